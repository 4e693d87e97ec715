/**
 * Training with an artifact of onnxtape, in Node and in browsers, on stock ONNX Runtime.
 *
 *     import * as ort from "onnxruntime-node"; // or "onnxruntime-web"
 *     import { TrainingSession } from "onnxtape";
 *
 *     const session = await TrainingSession.load(ort, "artifact");
 *     const { loss } = await session.step({ x, y });
 */

import { readBatch, toArray } from "./batches.js";
import { DTYPES, shown, specOf } from "./dtypes.js";
import { ArtifactError, CheckpointError, InputError } from "./errors.js";
import { Evaluation } from "./evaluation.js";
import {
  createSession, feedsOf, plain, requireDescribed, results, run, tensorOf,
} from "./graphs.js";
import {
  EVALUATION_FILE, INFERENCE_FILE, readManifest, STATE_FILE, TRAINING_FILE,
} from "./manifest.js";
import { readSafetensors, writeSafetensors } from "./safetensors.js";
import { openSource, verifyFile } from "./source.js";

export { ArtifactError, CheckpointError, ExecutionError, InputError, OnnxtapeError } from "./errors.js";
export { readSafetensors, writeSafetensors };

/** What a WebGPU buffer may hold between steps; other state passes through JavaScript's memory. */
const ON_GPU = new Set(["float32", "float16", "int32", "int64", "uint32", "uint8", "bool"]);
const LISTED = 8;

/**
 * Runs the training step of an artifact and keeps its state.
 *
 * The state stays in ONNX Runtime's tensors. In Node each entry has two, which a step reads and
 * writes in turn; elsewhere ONNX Runtime makes the new tensors and the old ones are disposed of. A
 * step that fails leaves the state as it was.
 *
 * Calls of one session wait for each other, in the order in which they were made.
 */
export class TrainingSession {
  #ort;
  #options;
  #session;
  #inference = null;
  #inferenceGraph;
  #evaluation = null;
  #evaluationGraph;
  #current = new Map(); // state name: the tensor that the next step reads
  #spare = new Map(); // state name: the tensor that it writes, where the caller may provide one
  #last = Promise.resolve();

  /**
   * Load and verify an artifact.
   *
   * @param ort the module onnxruntime-node or onnxruntime-web
   * @param source a folder (Node), a URL, or an object of files by name
   * @param options `providers`: where to run, the CPU by default; `sessionOptions`: more options
   *   for ONNX Runtime's sessions
   * @throws {ArtifactError} the artifact is damaged, or its graph is not what its manifest says
   * @throws {ExecutionError} ONNX Runtime cannot load the graph
   */
  static async load(ort, source, options = {}) {
    if (typeof ort?.InferenceSession?.create !== "function" || typeof ort.Tensor !== "function") {
      throw new InputError(
        "The first argument of TrainingSession.load is the module onnxruntime-node or " +
          'onnxruntime-web: import * as ort from "onnxruntime-node".',
      );
    }
    const read = openSource(source);
    const manifest = readManifest(await read("manifest.json"));
    requireHeld(manifest);
    if (manifest.evaluation) requireHeld(manifest.evaluation);
    const files = {};
    for (const [name, entry] of Object.entries(manifest.files)) {
      files[name] = await read(name);
      await verifyFile(name, files[name], entry);
    }
    const state = readSafetensors(files[STATE_FILE], STATE_FILE);
    checkState(manifest.state, state, STATE_FILE);
    return new TrainingSession(ort, manifest, options)._open(files, state);
  }

  /** Use `TrainingSession.load`. */
  constructor(ort, manifest, { providers = ["cpu"], sessionOptions = {} } = {}) {
    this.#ort = ort;
    /** What the artifact holds. */
    this.manifest = manifest;
    this.#options = { ...sessionOptions, executionProviders: [...providers] };
  }

  /** @internal */
  async _open(files, state) {
    const options = { ...this.#options };
    const updated = this.manifest.state.filter(({ output }) => output !== null);
    if (options.executionProviders.some((p) => (p.name ?? p) === "webgpu")) {
      options.preferredOutputLocation = Object.fromEntries(
        updated.filter(({ dtype }) => ON_GPU.has(dtype)).map(({ output }) => [output, "gpu-buffer"]),
      );
    }
    this.#session = await createSession(this.#ort, files[TRAINING_FILE], options, TRAINING_FILE);
    requireDescribed(this.#session, this.manifest, TRAINING_FILE);
    this.#inferenceGraph = files[INFERENCE_FILE];
    this.#evaluationGraph = files[EVALUATION_FILE];
    this.#write(state);
    if (aliasesOutputs(this.#ort)) {
      for (const entry of updated) {
        const { size } = this.#current.get(entry.name);
        this.#spare.set(entry.name, tensorOf(this.#ort, entry, new DTYPES[entry.dtype].array(size)));
      }
    }
    return this;
  }

  /** The batch inputs of a step. */
  get inputs() {
    return this.manifest.inputs;
  }

  /** The results of a step. */
  get outputs() {
    return this.manifest.outputs;
  }

  /**
   * Run one training step: compute the results, and change the state.
   *
   * @param batch a value for each input: numbers, (nested) arrays, a typed array, or {data, shape}.
   *   A typed array of the declared dtype is used without a copy; leave it alone until the step is
   *   over.
   * @returns the results by name: a scalar is a number (a bigint for int64 and uint64, a boolean
   *   for bool), anything else a typed array with a `shape`
   * @throws {InputError} a value is missing, unknown, or has the wrong dtype or shape
   * @throws {ExecutionError} ONNX Runtime failed; the state is as before the step
   */
  step(batch) {
    return this.#inTurn(async () => {
      const feeds = feedsOf(this.#ort, readBatch(this.inputs, batch, "step"));
      const fetches = Object.fromEntries(this.outputs.map(({ name }) => [name, null]));
      for (const { name, input, output } of this.manifest.state) {
        feeds[input] = this.#current.get(name);
        if (output !== null) fetches[output] = this.#spare.get(name) ?? null;
      }
      const { failures } = this.manifest;
      const found = await run(this.#session, feeds, fetches, "The training step failed", failures);
      for (const { name, output } of this.manifest.state) {
        if (output === null) continue;
        const old = this.#current.get(name);
        this.#current.set(name, found[output]);
        if (this.#spare.has(name)) this.#spare.set(name, old);
        else old.dispose();
      }
      return results(this.outputs, found);
    });
  }

  /**
   * Run the inference graph with the present state.
   *
   * @returns the results by name, as those of a step
   * @throws {ArtifactError} the artifact has no inference graph
   * @throws {InputError} a value is missing, unknown, or has the wrong dtype or shape
   * @throws {ExecutionError} ONNX Runtime failed
   */
  infer(inputs) {
    return this.#inTurn(async () => {
      const { inference } = this.manifest;
      if (!inference) {
        throw new ArtifactError(
          "The artifact holds no inference graph; export it with one: " +
            "step.export(path, ..., model=model).",
        );
      }
      this.#inference ??= await this.#openInference(inference);
      const feeds = feedsOf(this.#ort, readBatch(inference.inputs, inputs, "inference graph"));
      for (const { name } of this.manifest.state) {
        if (this.#inference.inputNames.includes(name)) feeds[name] = this.#current.get(name);
      }
      const fetches = Object.fromEntries(inference.outputs.map(({ name }) => [name, null]));
      const found = await run(this.#inference, feeds, fetches, "Inference failed");
      return results(inference.outputs, found);
    });
  }

  /**
   * Run the evaluation step with the present state, which stays as it is.
   *
   * @param batches a batch, or an iterable of batches (async ones too), which must not ask anything
   *   of this session
   * @returns the results by name: metrics of all batches, means over the samples of other results,
   *   and results with a row for each sample joined
   * @throws {ArtifactError} the artifact has no evaluation step
   * @throws {InputError} a value is missing, unknown, or has the wrong dtype or shape; there is no
   *   batch; or results cannot be joined
   * @throws {ExecutionError} ONNX Runtime failed
   */
  evaluate(batches) {
    return this.#inTurn(async () => {
      this.#evaluation ??= await Evaluation.open(
        this.#ort, this.manifest.evaluation, this.#evaluationGraph, this.#options,
      );
      return this.#evaluation.run(this.#current, isIterable(batches) ? batches : [batches]);
    });
  }

  /** Copies of all state entries, by name: `{dtype, shape, role, data}`. */
  state() {
    return this.#inTurn(() => this.#read());
  }

  /**
   * Replace one state entry, e.g. a learning rate: `setState("adam/learning_rate", 1e-4)`.
   *
   * @throws {InputError} there is no such entry, or the value has another shape or kind
   */
  setState(name, value) {
    return this.#inTurn(() => {
      const entry = this.manifest.state.find((one) => one.name === name);
      if (!entry) {
        const known = this.manifest.state.map((one) => one.name).join(", ");
        throw new InputError(`There is no state entry '${name}'; the entries are ${known}.`);
      }
      const what = `The state entry '${name}'`;
      const { data, shape } = toArray(value, entry.dtype, what);
      const size = this.#current.get(name).size;
      if (shape === null ? data.length !== size : shown(shape) !== shown(entry.shape)) {
        const found = shape === null ? `${data.length} numbers` : `shape ${shown(shape)}`;
        throw new InputError(`${what} has shape ${shown(entry.shape)}, and the value ${found}.`);
      }
      this.#write(new Map([[name, { data }]]));
    });
  }

  /** The whole state as the bytes of a safetensors file, which Python reads too. */
  save() {
    return this.#inTurn(async () => {
      return writeSafetensors(await this.#read(), { producer: this.manifest.producer });
    });
  }

  /**
   * Replace the whole state by what `save` gave, here or in Python.
   *
   * @throws {CheckpointError} the bytes are damaged, or hold the state of another model. Nothing
   *   was replaced.
   */
  restore(bytes) {
    return this.#inTurn(() => {
      const state = readSafetensors(bytes, "The state given to restore");
      checkState(this.manifest.state, state, "The state given to restore");
      this.#write(state);
    });
  }

  /** Free ONNX Runtime's memory. The session cannot be used afterwards. */
  release() {
    return this.#inTurn(async () => {
      await this.#session.release();
      await this.#inference?.release();
      await this.#evaluation?.release();
      for (const tensor of [...this.#current.values(), ...this.#spare.values()]) tensor.dispose();
    });
  }

  /** Do something once everything that was asked for before is done, or has failed. */
  #inTurn(action) {
    const result = this.#last.then(action);
    this.#last = result.then(
      () => {},
      () => {},
    );
    return result;
  }

  async #read() {
    const state = {};
    for (const { name, dtype, shape, role } of this.manifest.state) {
      // The tensor's own memory is written again by the step after the next.
      const data = plain(await this.#current.get(name).getData(), dtype).slice();
      state[name] = { dtype, shape, role, data };
    }
    return state;
  }

  /** Put checked arrays, or copies of them, where the next step reads. */
  #write(state) {
    for (const [name, { data }] of state) {
      const entry = this.manifest.state.find((one) => one.name === name);
      this.#current.get(name)?.dispose();
      this.#current.set(name, tensorOf(this.#ort, entry, data.slice()));
    }
  }

  async #openInference({ inputs }) {
    const session = await createSession(
      this.#ort, this.#inferenceGraph, this.#options, INFERENCE_FILE,
    );
    const known = [...inputs, ...this.manifest.state].map(({ name }) => name);
    const strange = session.inputNames.filter((name) => !known.includes(name));
    if (strange.length) {
      await session.release();
      throw new ArtifactError(
        `${INFERENCE_FILE} has the inputs ${strange.join(", ")}, which the manifest does not describe.`,
      );
    }
    return session;
  }
}

/** Whether this ONNX Runtime writes outputs into tensors of the caller: Node's does, and the
 * browser's on the CPU would leave them as they were. */
const aliasesOutputs = (ort) => Boolean(ort.env?.versions?.node) && !ort.env.versions.web;

const isIterable = (value) => Boolean(value?.[Symbol.iterator] ?? value?.[Symbol.asyncIterator]);

function requireHeld({ inputs, outputs, state }) {
  for (const { name, dtype } of [...inputs, ...outputs, ...state]) {
    if (dtype === "bfloat16") {
      throw new ArtifactError(
        `'${name}' is bfloat16, and ONNX Runtime's JavaScript has no such tensors. Export the ` +
          "step in float32 or float16.",
      );
    }
  }
}

function checkState(entries, found, source) {
  const names = entries.map(({ name }) => name);
  const missing = names.filter((name) => !found.has(name));
  const unexpected = [...found.keys()].filter((name) => !names.includes(name));
  const different = entries
    .filter((entry) => found.has(entry.name) && specOf(found.get(entry.name)) !== specOf(entry))
    .map((entry) => `${entry.name} is ${specOf(found.get(entry.name))}, the model has ${specOf(entry)}`);
  const problems = [
    ["missing", missing],
    ["not in the model", unexpected],
    ["different", different],
  ].filter(([, items]) => items.length);
  if (problems.length) {
    const listed = (items) =>
      items.slice(0, LISTED).join(", ") +
      (items.length > LISTED ? ` and ${items.length - LISTED} more` : "");
    const told = problems.map(([what, items]) => `${what}: ${listed(items)}`).join("; ");
    throw new CheckpointError(`${source} belongs to another model: ${told}.`);
  }
}
