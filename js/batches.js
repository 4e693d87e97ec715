/** Turning what a caller hands over into tensors, and checking it against what a graph declares. */

import { DTYPES, FLOATING, shown, sizeOf, specOf, toHalf } from "./dtypes.js";
import { InputError } from "./errors.js";

const BIG = new Set(["int64", "uint64"]);

/**
 * Check and convert the values of one call.
 *
 * @param {readonly {name: string, dtype: string, shape: readonly (number | string | null)[]}[]} entries
 * @param {Record<string, unknown>} values
 * @param {string} what what takes them: "step", "inference graph"
 * @returns {{name: string, dtype: string, shape: number[], data: ArrayBufferView}[]}
 * @throws {InputError} a value is missing, unknown, of the wrong dtype or shape, or two inputs
 *   disagree in a dimension that they share by name
 */
export function readBatch(entries, values, what) {
  requireNames(entries, values ?? {}, what);
  const given = entries.map((entry) => ({
    entry,
    ...toArray(values[entry.name], entry.dtype, `The input '${entry.name}'`),
  }));
  const sizes = new Map();
  // A flat array's shape follows from the sizes that the other inputs bring along.
  let waiting = given.filter((one) => one.shape === null);
  for (const one of given) if (one.shape !== null) settle(one, sizes, what);
  while (waiting.length) {
    const ready = waiting.filter(({ entry }) => unknown(entry, sizes).length <= 1);
    if (!ready.length) {
      const { entry, data } = waiting[0];
      throw new InputError(
        `The input '${entry.name}' is a flat array of ${data.length} numbers, from which the shape ` +
          `${shown(entry.shape)} does not follow: give {data, shape} or nested arrays.`,
      );
    }
    for (const one of ready) {
      one.shape = shapeOf(one, sizes, what);
      settle(one, sizes, what);
    }
    waiting = waiting.filter((one) => one.shape === null);
  }
  return given.map(({ entry, data, shape }) => ({ name: entry.name, dtype: entry.dtype, shape, data }));
}

/**
 * Convert a value to the array of a dtype where that keeps its kind.
 *
 * @param {unknown} value a number, bigint or boolean, (nested) arrays of them, a typed array, or
 *   {data, shape} or {data, dims} with one of these
 * @returns {{data: ArrayBufferView, shape: number[] | null}} the shape is null for a flat array,
 *   which may be a tensor of any rank
 * @throws {InputError} it is none of these, or would change its kind
 */
export function toArray(value, dtype, what) {
  if (isTyped(value)) return { data: fromTyped(value, dtype, what), shape: null };
  if (Array.isArray(value)) {
    const shape = [];
    for (let inner = value; isList(inner); inner = inner[0]) shape.push(inner.length);
    const flat = [];
    flatten(value, shape, 0, flat, what);
    return { data: fromValues(flat, dtype, what), shape: shape.length > 1 ? shape : null };
  }
  if (typeof value === "object" && value !== null && "data" in value) {
    const shape = value.shape ?? value.dims;
    const { data } = toArray(value.data, dtype, what);
    if (Array.isArray(shape) && sizeOf(shape) === data.length) return { data, shape: [...shape] };
    const of = Array.isArray(shape) ? `shape ${shown(shape)}` : "no shape";
    throw new InputError(`${what} has ${of}, and ${data.length} numbers.`);
  }
  return { data: fromValues([value], dtype, what), shape: [] };
}

function requireNames(entries, values, what) {
  const known = new Set(entries.map(({ name }) => name));
  const problems = [
    ...entries.filter(({ name }) => values[name] === undefined).map(({ name }) => `'${name}' missing`),
    ...Object.keys(values).filter((name) => !known.has(name)).map((name) => `'${name}' unknown`),
  ];
  if (problems.length) {
    const declared = entries.map((entry) => `${entry.name}: ${specOf(entry)}`).join(", ");
    throw new InputError(
      `The batch does not have the ${what}'s inputs: ${problems.join(", ")}. ` +
        `The ${what} takes ${declared || "no inputs"}.`,
    );
  }
}

const unknown = ({ shape }, sizes) =>
  shape.filter((size) => typeof size !== "number" && !sizes.has(size));

/** The shape of a flat array, of whose dimensions at most one is not known yet. */
function shapeOf({ entry, data }, sizes, what) {
  const known = entry.shape.map((size) => (typeof size === "number" ? size : sizes.get(size)));
  const rest = data.length / sizeOf(known.filter((size) => size !== undefined));
  const shape = known.map((size) => size ?? rest);
  if (!Number.isInteger(rest) || sizeOf(shape) !== data.length) {
    throw new InputError(
      `The input '${entry.name}' has ${data.length} numbers; the ${what} takes ` +
        `${shown(entry.shape)}${withSizes(entry, sizes)}.`,
    );
  }
  return shape;
}

function withSizes({ shape }, sizes) {
  const named = shape.filter((size) => sizes.has(size)).map((size) => `${size} ${sizes.get(size)}`);
  return named.length ? `, here with ${named.join(", ")}` : "";
}

/** Hold a shape to the declared one, and note the sizes of its named dimensions. */
function settle({ entry, shape }, sizes, what) {
  const fits =
    shape.length === entry.shape.length &&
    entry.shape.every((size, i) => typeof size !== "number" || size === shape[i]);
  if (!fits) {
    throw new InputError(
      `The input '${entry.name}' has shape ${shown(shape)}; the ${what} takes ${shown(entry.shape)}.`,
    );
  }
  entry.shape.forEach((size, i) => {
    if (typeof size !== "string") return;
    if (sizes.has(size) && sizes.get(size) !== shape[i]) {
      throw new InputError(
        `The inputs disagree in the dimension '${size}': '${entry.name}' has ${shape[i]}, ` +
          `another has ${sizes.get(size)}.`,
      );
    }
    sizes.set(size, shape[i]);
  });
}

const isTyped = (value) => ArrayBuffer.isView(value) && !(value instanceof DataView);
const isList = (value) => Array.isArray(value) || isTyped(value);

function flatten(value, shape, depth, into, what) {
  if (depth === shape.length) {
    if (isList(value)) throw new InputError(`${what} has rows of different depths.`);
    into.push(value);
    return;
  }
  if (!isList(value) || value.length !== shape[depth]) {
    throw new InputError(`${what} has rows of different lengths.`);
  }
  for (const item of value) flatten(item, shape, depth + 1, into, what);
}

function fromTyped(value, dtype, what) {
  const wanted = DTYPES[dtype].array;
  if (value instanceof wanted) {
    if (dtype === "bool" && value.some((byte) => byte > 1)) refuse(what, "bytes above 1", dtype);
    return value;
  }
  const kind = value.constructor.name.replace(/Array$/, "");
  const isFloat = kind.startsWith("Float");
  if (dtype === "float16" && kind === "Float16") {
    return new Uint16Array(value.buffer, value.byteOffset, value.length);
  }
  if (dtype === "bool" || (isFloat && !FLOATING.has(dtype))) refuse(what, `a ${kind}Array`, dtype);
  return fromValues(value, dtype, what);
}

function fromValues(values, dtype, what) {
  const { array: TypedArray } = DTYPES[dtype];
  const data = new TypedArray(values.length);
  const floating = FLOATING.has(dtype);
  const big = BIG.has(dtype);
  for (let i = 0; i < data.length; i++) {
    const value = values[i];
    const type = typeof value;
    if (dtype === "bool") {
      if (type !== "boolean") refuse(what, written(value), dtype);
      data[i] = value ? 1 : 0;
    } else if (floating) {
      if (!["number", "bigint", "boolean"].includes(type)) refuse(what, written(value), dtype);
      data[i] = dtype === "float16" ? toHalf(Number(value)) : Number(value);
    } else {
      const isWhole = type === "bigint" || type === "boolean" || Number.isInteger(value);
      if (!isWhole) refuse(what, written(value), dtype);
      data[i] = big ? BigInt(value) : Number(value);
      // A typed array wraps silently.
      if (data[i] != value) {
        throw new InputError(`${what} holds whole numbers that do not fit into ${dtype}: ${value}.`);
      }
    }
  }
  return data;
}

function refuse(what, found, dtype) {
  throw new InputError(
    `${what} holds ${found}; ${dtype} is needed, and the conversion would not keep its kind. ` +
      "Convert it yourself if that is what you mean.",
  );
}

const written = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));
