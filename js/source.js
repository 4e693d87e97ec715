/** Where the files of an artifact come from, and whether they are what was written. */

import { ArtifactError } from "./errors.js";

/**
 * A function that gives the bytes of one file of the artifact.
 *
 * @param {string | URL | Record<string, Uint8Array | ArrayBuffer | string>} source
 */
export function openSource(source) {
  if (source instanceof URL || (typeof source === "string" && (isWeb(source) || !isNode()))) {
    return fromUrl(source);
  }
  if (typeof source === "string") return fromFolder(source);
  if (typeof source === "object" && source !== null) return fromObject(source);
  throw new ArtifactError(
    "The source of an artifact is a folder (Node), a URL, or an object of files by name.",
  );
}

/** Require the size and the SHA-256 that the manifest gives for a file. */
export async function verifyFile(name, bytes, entry) {
  if (bytes.length !== entry.size) {
    const how = bytes.length < entry.size ? "was cut short" : "has grown";
    throw new ArtifactError(
      `${name} ${how}: it has ${bytes.length} bytes, and the manifest says ${entry.size}.`,
    );
  }
  const digest = new Uint8Array(await (await subtle()).digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== entry.sha256) {
    throw new ArtifactError(
      `${name} was changed after the artifact was written: its SHA-256 differs from the manifest's.`,
    );
  }
}

const isNode = () => typeof process === "object" && Boolean(process.versions?.node);
const isWeb = (text) => /^(https?|blob|data|file):/i.test(text);

function fromUrl(source) {
  const base = new URL(source, globalThis.location?.href);
  if (base.protocol === "file:" && isNode()) return fromFolder(base);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return async (name) => {
    const response = await fetch(new URL(encodeURIComponent(name), base));
    if (!response.ok) {
      throw new ArtifactError(`${response.url} cannot be had: HTTP ${response.status}.`);
    }
    return new Uint8Array(await response.arrayBuffer());
  };
}

function fromFolder(folder) {
  return async (name) => {
    // Hidden from bundlers, which would look for Node's modules in a browser's bundle.
    const [fs, path, url] = await Promise.all(
      ["node:fs/promises", "node:path", "node:url"].map((m) => import(/* webpackIgnore: true */ /* @vite-ignore */ m)),
    );
    const file = path.join(folder instanceof URL ? url.fileURLToPath(folder) : folder, name);
    try {
      return new Uint8Array(await fs.readFile(file));
    } catch (error) {
      throw new ArtifactError(`${file} cannot be read: ${error.message}`, { cause: error });
    }
  };
}

function fromObject(files) {
  return async (name) => {
    const file = Object.hasOwn(files, name) ? files[name] : undefined;
    if (typeof file === "string") return new TextEncoder().encode(file);
    if (file instanceof ArrayBuffer) return new Uint8Array(file);
    // Node's Buffers are Uint8Arrays, and may share their memory with others.
    if (ArrayBuffer.isView(file)) return new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
    throw new ArtifactError(`The object of files has no ${JSON.stringify(name)} with bytes.`);
  };
}

async function subtle() {
  if (globalThis.crypto?.subtle) return globalThis.crypto.subtle;
  if (isNode()) return (await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:crypto")).webcrypto.subtle;
  throw new ArtifactError(
    "The files cannot be verified: this page has no Web Crypto. Serve it by https, or from localhost.",
  );
}
