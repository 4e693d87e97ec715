/** Opening and running graphs: ONNX Runtime's sessions, their errors, and what they give. */

import { fromHalf, shown, specOf } from "./dtypes.js";
import { ArtifactError, ExecutionError } from "./errors.js";

export async function createSession(ort, model, options, file) {
  try {
    return await ort.InferenceSession.create(model, options);
  } catch (error) {
    throw new ExecutionError(`ONNX Runtime cannot load ${file}: ${error.message}`, { cause: error });
  }
}

/** `meanings`: what it means when a node fails, by the name with which ONNX Runtime says so. */
export async function run(session, feeds, fetches, failure, meanings = {}) {
  try {
    return await session.run(feeds, fetches);
  } catch (error) {
    const said = String(error.message ?? error);
    const known = Object.entries(meanings).find(([name]) => said.includes(`Name:'${name}'`));
    throw new ExecutionError(`${failure}: ${known ? known[1] : said}`, { cause: error });
  }
}

export const tensorOf = (ort, { dtype, shape }, data) => new ort.Tensor(dtype, data, [...shape]);

/** The tensors of a batch that `readBatch` has read, by name. */
export const feedsOf = (ort, batch) =>
  Object.fromEntries(batch.map((one) => [one.name, tensorOf(ort, one, one.data)]));

/** Tensors by name as a caller gets them. */
export const results = (entries, found) =>
  Object.fromEntries(
    entries.map((entry) => {
      const { data, dims } = found[entry.name];
      return [entry.name, result(entry, plain(data, entry.dtype), dims)];
    }),
  );

/** A scalar as a number (a bigint for int64 and uint64, a boolean for bool), or an array. */
export function result({ dtype, shape }, data, dims) {
  if (shape.length || dims.length) return Object.assign(data, { shape: [...dims] });
  if (dtype === "float16") return fromHalf(data[0]);
  return dtype === "bool" ? data[0] !== 0 : data[0];
}

/** Half-precision data as its bits, also where ONNX Runtime gives a Float16Array. */
export function plain(data, dtype) {
  if (dtype !== "float16" || data instanceof Uint16Array) return data;
  return new Uint16Array(data.buffer, data.byteOffset, data.length);
}

/**
 * Require a loaded graph to have the inputs and outputs that the manifest promises for a step.
 *
 * @throws {ArtifactError} it has others, or with another dtype or shape
 */
export function requireDescribed(session, { inputs, outputs, state }, file) {
  const reads = [...inputs, ...state.map((entry) => ({ ...entry, name: entry.input }))];
  const updates = state.filter(({ output }) => output !== null);
  const writes = [...outputs, ...updates.map((entry) => ({ ...entry, name: entry.output }))];
  requireNames("inputs", session.inputNames, reads, file);
  requireNames("outputs", session.outputNames, writes, file);
  const told = [
    ...(session.inputMetadata ?? []).map((found) => [found, reads]),
    ...(session.outputMetadata ?? []).map((found) => [found, writes]),
  ];
  for (const [found, described] of told) {
    const entry = described.find(({ name }) => name === found.name);
    if (found.type !== entry.dtype || !mayBe(found.shape, entry.shape)) {
      throw new ArtifactError(
        `${file} has '${found.name}' as ${found.type}${shown(found.shape)}; the manifest says ` +
          `${specOf(entry)}.`,
      );
    }
  }
}

/** Whether a graph's declared shape allows a manifest's; an empty one stands for any rank. */
function mayBe(declared, shape) {
  if (!declared.length) return true;
  const fits = (size, i) =>
    typeof size !== "number" || typeof shape[i] !== "number" || size === shape[i];
  return declared.length === shape.length && declared.every(fits);
}

function requireNames(what, found, described, file) {
  const names = described.map(({ name }) => name).sort();
  if ([...found].sort().join("\n") !== names.join("\n")) {
    throw new ArtifactError(
      `The ${what} of ${file} are ${[...found].sort().join(", ") || "none"}; the manifest says ` +
        `${names.join(", ") || "none"}.`,
    );
  }
}
