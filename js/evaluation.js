/** Evaluating with an artifact: losses and metrics over batches, with the state of a session. */

import { readBatch } from "./batches.js";
import { DTYPES, FLOATING, fromHalf, shown, sizeOf, toHalf } from "./dtypes.js";
import { ArtifactError, InputError } from "./errors.js";
import {
  createSession, feedsOf, plain, requireDescribed, result, run, tensorOf,
} from "./graphs.js";
import { EVALUATION_FILE } from "./manifest.js";

/** The evaluation step of an artifact; the state that it is given stays as it is. */
export class Evaluation {
  #ort;
  #session;
  #entry;

  /** @throws {ArtifactError} the artifact has no evaluation step, or not the one it describes */
  static async open(ort, entry, graph, options) {
    if (!entry) {
      throw new ArtifactError(
        "The artifact holds no evaluation step; export it with one: " +
          "step.export(path, ..., evaluation=evaluate).",
      );
    }
    const session = await createSession(ort, graph, options, EVALUATION_FILE);
    try {
      requireDescribed(session, entry, EVALUATION_FILE);
    } catch (error) {
      await session.release();
      throw error;
    }
    return new Evaluation(ort, session, entry);
  }

  constructor(ort, session, entry) {
    this.#ort = ort;
    this.#session = session;
    this.#entry = entry;
  }

  /**
   * Evaluate batches, all metrics from their beginning.
   *
   * @param state the training state's tensors, by name
   * @param batches an (async) iterable of batches
   */
  async run(state, batches) {
    const { inputs, outputs, state: entries, failures, accumulated } = this.#entry;
    const held = new Map(entries.map((entry) => [entry, this.#beginning(entry, state)]));
    const own = new Set(); // what runs have made, and the next one may dispose of
    const carried = entries.filter(({ output }) => output !== null);
    const wanted = [...outputs.map(({ name }) => name), ...carried.map(({ output }) => output)];
    const totals = new Totals(outputs, accumulated);
    for await (const batch of batches) {
      const read = readBatch(inputs, batch, "evaluation step");
      const feeds = feedsOf(this.#ort, read);
      for (const [{ input }, tensor] of held) feeds[input] = tensor;
      const fetches = Object.fromEntries(wanted.map((name) => [name, null]));
      const found = await run(this.#session, feeds, fetches, "The evaluation failed", failures);
      for (const entry of carried) {
        const old = held.get(entry);
        held.set(entry, found[entry.output]);
        if (own.delete(old)) old.dispose();
        own.add(found[entry.output]);
      }
      totals.add(found, read.find(({ shape }) => shape.length)?.shape[0] ?? 1);
    }
    return totals.results();
  }

  release() {
    return this.#session.release();
  }

  /** A metric's own beginning: the training state's may be from the middle of an epoch. */
  #beginning(entry, state) {
    if (entry.role !== "metric") return state.get(entry.name);
    const { dtype, shape, initial } = entry;
    const data = new DTYPES[dtype].array(sizeOf(shape));
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data.fill(BigInt(initial));
    else data.fill(dtype === "float16" ? toHalf(initial) : initial);
    return tensorOf(this.#ort, entry, data);
  }
}

/**
 * The results of several batches, as one.
 *
 * What metrics keep is that of the last batch. Of what each batch has for itself, results whose
 * first dimension is free, one row for each sample, are joined; all others are averaged, each batch
 * with as many votes as it has samples.
 */
class Totals {
  #outputs;
  #accumulated;
  #samples = 0;
  #found = new Map(); // name: what the batches gave

  constructor(outputs, accumulated) {
    this.#outputs = outputs;
    this.#accumulated = accumulated;
  }

  add(tensors, samples) {
    this.#samples += samples;
    for (const entry of this.#outputs) {
      const { data, dims } = tensors[entry.name];
      const one = { data: plain(data, entry.dtype), dims: [...dims] };
      const before = this.#found.get(entry.name);
      if (this.#accumulated.includes(entry.name)) this.#found.set(entry.name, one);
      else if (isJoined(entry) && before) before.push(one);
      else if (isJoined(entry)) this.#found.set(entry.name, [one]);
      else this.#found.set(entry.name, summed(before, one, samples, entry));
    }
  }

  /** @throws {InputError} there was no batch, or arrays of different sizes cannot be joined */
  results() {
    if (!this.#found.size && this.#outputs.length) {
      throw new InputError("There was no batch to evaluate.");
    }
    return Object.fromEntries(this.#outputs.map((entry) => [entry.name, this.#result(entry)]));
  }

  #result(entry) {
    const found = this.#found.get(entry.name);
    if (this.#accumulated.includes(entry.name)) return result(entry, found.data, found.dims);
    if (isJoined(entry)) return joined(entry, found);
    const means = found.sums.map((sum) => sum / this.#samples);
    if (!FLOATING.has(entry.dtype)) return result({ ...entry, dtype: "float64" }, means, found.dims);
    const data = DTYPES[entry.dtype].array.from(entry.dtype === "float16" ? means.map(toHalf) : means);
    return result(entry, data, found.dims);
  }
}

const isJoined = ({ shape }) => shape.length > 0 && typeof shape[0] !== "number";

function summed(before, { data, dims }, samples, { dtype }) {
  const sums = before?.sums ?? new Float64Array(data.length);
  for (let i = 0; i < sums.length; i++) {
    sums[i] += samples * (dtype === "float16" ? fromHalf(data[i]) : Number(data[i]));
  }
  return { sums, dims };
}

function joined(entry, parts) {
  const rest = (dims) => shown(["batch", ...dims.slice(1)]);
  const other = parts.find(({ dims }) => rest(dims) !== rest(parts[0].dims));
  if (other) {
    throw new InputError(
      `The result '${entry.name}' is ${rest(parts[0].dims)} and ${rest(other.dims)} in different ` +
        "batches, so that it cannot be joined.",
    );
  }
  const rows = parts.reduce((sum, { dims }) => sum + dims[0], 0);
  const dims = [rows, ...parts[0].dims.slice(1)];
  const data = new DTYPES[entry.dtype].array(sizeOf(dims));
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return result(entry, data, dims);
}
