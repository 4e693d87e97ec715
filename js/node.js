/** What only Node can do: state in files. */

import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

/**
 * Write the session's state to one safetensors file, whole or not at all.
 *
 * It is written beside `path`, flushed to the disk and then renamed, so an earlier file there stays
 * intact until the new one is complete.
 */
export async function saveState(session, path) {
  const bytes = await session.save();
  const temporary = join(dirname(path), `.${randomUUID()}.tmp`);
  try {
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Replace the session's state by what `saveState`, or Python's `TrainingSession.save`, wrote. */
export async function loadState(session, path) {
  await session.restore(new Uint8Array(await readFile(path)));
}
