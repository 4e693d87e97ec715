/** What manifest.json says, checked. */

import { DTYPES, specOf } from "./dtypes.js";
import { ArtifactError } from "./errors.js";

const FORMAT = "onnxtape-artifact";
const FORMAT_VERSION = 1;
const ROLES = ["parameter", "buffer", "optimizer", "metric", "generator"];
export const TRAINING_FILE = "training.onnx";
export const INFERENCE_FILE = "inference.onnx";
export const EVALUATION_FILE = "evaluation.onnx";
export const STATE_FILE = "state.safetensors";

/**
 * Read and check the text of manifest.json.
 *
 * @throws {ArtifactError} it is no JSON, no manifest, of a newer format, or contradicts itself
 */
export function readManifest(bytes) {
  let content;
  try {
    content = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new ArtifactError(`manifest.json is not valid JSON: ${error.message}.`, { cause: error });
  }
  if (content?.format !== FORMAT) {
    throw new ArtifactError(`manifest.json does not say "format": "${FORMAT}".`);
  }
  const version = whole(content.format_version, "'format_version' in manifest.json");
  if (version > FORMAT_VERSION) {
    throw new ArtifactError(
      `The artifact has format_version ${version}, and this onnxtape reads up to ` +
        `${FORMAT_VERSION}. It was written by ${JSON.stringify(content.producer)}: take a newer ` +
        "onnxtape.js.",
    );
  }
  const manifest = {
    producer: text(content.producer, "'producer'"),
    opset: whole(content.opset, "'opset'"),
    inputs: each(content.inputs, "'inputs'", tensor),
    outputs: each(content.outputs, "'outputs'", tensor),
    state: each(content.state, "'state'", state),
    inference: content.inference === null ? null : inference(content.inference),
    evaluation: content.evaluation ? evaluation(content.evaluation) : null,
    files: files(content.files),
    failures: failures(content.failures),
  };
  check(manifest);
  return deepFrozen(manifest);
}

/** Require that no two names collide, and that the files belong to the description. */
function check({ inputs, outputs, state, inference, evaluation, files }) {
  distinct("state entries", names(state));
  checkStep({ inputs, outputs, state }, TRAINING_FILE);
  const needed = [TRAINING_FILE, STATE_FILE];
  if (inference) {
    needed.push(INFERENCE_FILE);
    distinct(`inputs of ${INFERENCE_FILE}`, [...names(inference.inputs), ...names(state)]);
    distinct(`outputs of ${INFERENCE_FILE}`, names(inference.outputs));
  }
  if (evaluation) {
    needed.push(EVALUATION_FILE);
    distinct("state entries of the evaluation", names(evaluation.state));
    checkStep(evaluation, EVALUATION_FILE);
    for (const entry of evaluation.state) {
      const same = state.some((one) => one.name === entry.name && specOf(one) === specOf(entry));
      if (entry.role !== "metric" && !same) {
        throw new ArtifactError(
          `The evaluation reads the state entry '${entry.name}' as ${specOf(entry)}, which the ` +
            "training step does not have.",
        );
      }
    }
  }
  for (const file of needed) {
    if (!Object.hasOwn(files, file)) {
      throw new ArtifactError(`manifest.json does not list the file ${file}.`);
    }
  }
}

const names = (entries) => entries.map(({ name }) => name);

/** Require that the inputs and outputs of a step's graph have different names. */
function checkStep({ inputs, outputs, state }, file) {
  distinct(`inputs of ${file}`, [...names(inputs), ...state.map(({ input }) => input)]);
  const updates = state.filter(({ output }) => output !== null).map(({ output }) => output);
  distinct(`outputs of ${file}`, [...names(outputs), ...updates]);
}

function tensor(value, where) {
  return {
    name: text(value?.name, `'name' in ${where}`),
    dtype: oneOf(Object.keys(DTYPES), value?.dtype, `'dtype' in ${where}`),
    shape: each(value?.shape, `'shape' in ${where}`, (size, what) =>
      size === null || (typeof size === "string" && size) ? size : whole(size, what),
    ),
  };
}

function state(value, where) {
  const entry = tensor(value, where);
  for (const size of entry.shape) whole(size, `'shape' in ${where}`);
  return {
    ...entry,
    input: text(value.input, `'input' in ${where}`),
    output: value.output === null ? null : text(value.output, `'output' in ${where}`),
    role: oneOf(ROLES, value.role, `'role' in ${where}`),
    initial: initial(value.initial, `'initial' in ${where}`),
  };
}

/** What a metric begins at; what JSON has no number for is written as Python writes it. */
function initial(value, where) {
  const named = { inf: Infinity, "-inf": -Infinity };
  if (value === undefined) return 0;
  if (typeof value === "number") return value;
  if (Object.hasOwn(named, value)) return named[value];
  throw new ArtifactError(
    `${where} must be a number, "inf" or "-inf", not ${JSON.stringify(value)}.`,
  );
}

function inference(value) {
  return {
    inputs: each(value?.inputs, "'inputs' in 'inference'", tensor),
    outputs: each(value?.outputs, "'outputs' in 'inference'", tensor),
  };
}

function evaluation(value) {
  return {
    inputs: each(value?.inputs, "'inputs' in 'evaluation'", tensor),
    outputs: each(value?.outputs, "'outputs' in 'evaluation'", tensor),
    state: each(value?.state, "'state' in 'evaluation'", state),
    failures: failures(value?.failures),
    accumulated: each(value?.accumulated ?? [], "'accumulated' in 'evaluation'", text),
  };
}

function files(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ArtifactError("'files' in manifest.json must be an object.");
  }
  for (const [name, entry] of Object.entries(value)) {
    if (!/^\w[\w. -]*$/.test(name) || /[. ]$/.test(name)) {
      throw new ArtifactError(
        `manifest.json names ${JSON.stringify(name)}: a file of an artifact has a plain name and ` +
          "lies in its folder.",
      );
    }
    whole(entry?.size, `'size' of ${name}`);
    if (!/^[0-9a-f]{64}$/.test(entry.sha256)) {
      throw new ArtifactError(`The sha256 of ${name} in manifest.json is not 64 hexadecimal digits.`);
    }
  }
  return value;
}

/** What it means when nodes of a graph fail, by their names; older artifacts say nothing. */
function failures(value) {
  if (value === undefined || value === null) return {};
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new ArtifactError("'failures' in manifest.json must be an object.");
  }
  for (const [name, meaning] of Object.entries(value)) {
    text(meaning, `${JSON.stringify(name)} in 'failures'`);
  }
  return value;
}

function whole(value, where) {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new ArtifactError(`${where} must be a whole number, not ${JSON.stringify(value)}.`);
}

function text(value, where) {
  if (typeof value === "string" && value) return value;
  throw new ArtifactError(`${where} must be a text, not ${JSON.stringify(value)}.`);
}

function each(value, where, read) {
  if (!Array.isArray(value)) {
    throw new ArtifactError(`${where} must be a list, not ${JSON.stringify(value)}.`);
  }
  return value.map((item, index) => read(item, `item ${index} of ${where}`));
}

function oneOf(choices, value, where) {
  if (choices.includes(value)) return value;
  throw new ArtifactError(
    `${where} must be one of ${choices.join(", ")}, not ${JSON.stringify(value)}.`,
  );
}

function distinct(what, names) {
  const repeated = names.filter((name, index) => names.indexOf(name) < index);
  if (repeated.length) {
    throw new ArtifactError(
      `The ${what} must all have different names; used more than once: ${repeated.join(", ")}.`,
    );
  }
}

function deepFrozen(value) {
  if (typeof value !== "object" || value === null) return value;
  Object.values(value).forEach(deepFrozen);
  return Object.freeze(value);
}
