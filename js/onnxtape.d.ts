/** Training with an artifact of onnxtape, in Node and in browsers, on stock ONNX Runtime. */

export type Dtype =
  | "float64" | "float32" | "float16" | "bfloat16"
  | "int64" | "int32" | "int16" | "int8"
  | "uint64" | "uint32" | "uint16" | "uint8" | "bool";

/** float16 is the bits of each number; bool is bytes, 0 or 1. */
export type Data =
  | Float64Array | Float32Array | BigInt64Array | BigUint64Array | Int32Array | Uint32Array
  | Int16Array | Uint16Array | Int8Array | Uint8Array;

type Scalar = number | bigint | boolean;
type Nested = readonly (Scalar | Nested | Data)[];
/**
 * What a batch input may be. A flat array gets its shape from the manifest and from the sizes of the
 * other inputs; `{data, shape}` and ONNX Runtime's own tensors bring theirs along.
 */
export type Value =
  | Scalar
  | Nested
  | ArrayBufferView
  | { data: ArrayBufferView | Nested; shape: readonly number[] }
  | { data: ArrayBufferView | Nested; dims: readonly number[] };

/** A value for each input, by name. */
export type Batch = Readonly<Record<string, Value>>;

/** A scalar as a number (a bigint for int64 and uint64, a boolean for bool), or an array. */
export type Result = number | bigint | boolean | (Data & { shape: readonly number[] });

export interface Tensor {
  dtype: Dtype;
  shape: readonly number[];
  data: Data;
}

export type Role = "parameter" | "buffer" | "optimizer" | "metric" | "generator";

export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  /** A name stands for a size that may differ between calls; null for one of which nothing is known. */
  readonly shape: readonly (number | string | null)[];
}

export interface StateEntry extends TensorEntry {
  readonly shape: readonly number[];
  readonly input: string;
  readonly output: string | null;
  readonly role: Role;
  /** Of a metric, what all its elements begin at. */
  readonly initial: number;
}

export interface Manifest {
  readonly producer: string;
  readonly opset: number;
  readonly inputs: readonly TensorEntry[];
  readonly outputs: readonly TensorEntry[];
  readonly state: readonly StateEntry[];
  readonly inference: {
    readonly inputs: readonly TensorEntry[];
    readonly outputs: readonly TensorEntry[];
  } | null;
  readonly evaluation: {
    readonly inputs: readonly TensorEntry[];
    readonly outputs: readonly TensorEntry[];
    readonly state: readonly StateEntry[];
    readonly failures: Readonly<Record<string, string>>;
    /** The results that metrics keep, so that they are of all batches. */
    readonly accumulated: readonly string[];
  } | null;
  readonly files: Readonly<Record<string, { readonly sha256: string; readonly size: number }>>;
  /** What it means when nodes of training.onnx fail, by their names. */
  readonly failures: Readonly<Record<string, string>>;
}

/** The module onnxruntime-node or onnxruntime-web. */
export interface OrtModule {
  InferenceSession: { create(model: Uint8Array, options?: object): Promise<unknown> };
  Tensor: new (...parameters: never[]) => unknown;
}

/** A folder (Node), a URL, or the files by name. */
export type Source = string | URL | Readonly<Record<string, Uint8Array | ArrayBuffer | string>>;

export interface Options {
  /** Where to run, as ONNX Runtime's executionProviders. The CPU by default. */
  providers?: readonly (string | { name: string })[];
  /** More options for ONNX Runtime's sessions. */
  sessionOptions?: object;
}

/** Runs the training step of an artifact and keeps its state. Calls wait for each other. */
export class TrainingSession {
  private constructor();
  /** Load and verify an artifact. */
  static load(ort: OrtModule, source: Source, options?: Options): Promise<TrainingSession>;
  readonly manifest: Manifest;
  get inputs(): readonly TensorEntry[];
  get outputs(): readonly TensorEntry[];
  /** Run one training step: compute the results, and change the state. */
  step(batch: Batch): Promise<Record<string, Result>>;
  /** Run the inference graph with the present state. */
  infer(inputs: Readonly<Record<string, Value>>): Promise<Record<string, Result>>;
  /** Run the evaluation step on a batch or several, with the present state, which stays as it is. */
  evaluate(batches: Batch | Iterable<Batch> | AsyncIterable<Batch>): Promise<Record<string, Result>>;
  /** Copies of all state entries. */
  state(): Promise<Record<string, Tensor & { role: Role }>>;
  /** Replace one state entry, e.g. a learning rate. */
  setState(name: string, value: Value): Promise<void>;
  /** The whole state as the bytes of a safetensors file. */
  save(): Promise<Uint8Array>;
  /** Replace the whole state by what `save` gave, here or in Python. */
  restore(bytes: Uint8Array | ArrayBuffer): Promise<void>;
  /** Free ONNX Runtime's memory. */
  release(): Promise<void>;
}

export function readSafetensors(bytes: Uint8Array | ArrayBuffer, source?: string): Map<string, Tensor>;
export function writeSafetensors(
  tensors: Readonly<Record<string, Tensor>>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array;

export class OnnxtapeError extends Error {}
/** What was loaded is not an artifact, or not an intact one. */
export class ArtifactError extends OnnxtapeError {}
/** A state file cannot be read, or holds the state of something else. */
export class CheckpointError extends OnnxtapeError {}
/** A value handed to a graph has the wrong name, dtype or shape. */
export class InputError extends OnnxtapeError {}
/** ONNX Runtime refused to load a graph, or failed while running it. */
export class ExecutionError extends OnnxtapeError {}
