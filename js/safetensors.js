/** State files: named tensors in the safetensors format. */

import { DTYPES, sizeOf } from "./dtypes.js";
import { CheckpointError } from "./errors.js";

const CODES = new Map(Object.entries(DTYPES).map(([name, { code }]) => [code, name]));
const ORDER = Object.keys(DTYPES);
const METADATA = "__metadata__";
// What the format itself allows.
const LARGEST_HEADER = 100_000_000;

/**
 * Write named tensors as the bytes of one safetensors file: those that onnxtape writes in Python.
 *
 * @param {Record<string, {dtype: string, shape: readonly number[], data: ArrayBufferView}>} tensors
 * @param {Record<string, string>} [metadata] text to keep in the header
 * @returns {Uint8Array}
 */
export function writeSafetensors(tensors, metadata) {
  // Wide elements first, so that each tensor starts at a multiple of its element's size.
  const entries = Object.entries(tensors).sort(
    ([a, { dtype: first }], [b, { dtype: second }]) =>
      ORDER.indexOf(first) - ORDER.indexOf(second) || (a < b ? -1 : 1),
  );
  const described = metadata ? [[METADATA, metadata]] : [];
  let offset = 0;
  for (const [name, { dtype, shape, data }] of entries) {
    const expected = DTYPES[dtype] && sizeOf(shape) * DTYPES[dtype].size;
    if (data.byteLength !== expected || name === METADATA) {
      throw new CheckpointError(
        `The tensor ${quoted(name)} cannot be written: it has ${data.byteLength} bytes, and ` +
          `${dtype}[${shape}] takes ${expected ?? "no place in a state file"}.`,
      );
    }
    const end = offset + data.byteLength;
    described.push([name, { dtype: DTYPES[dtype].code, shape: [...shape], data_offsets: [offset, end] }]);
    offset = end;
  }
  const header = new TextEncoder().encode(JSON.stringify(Object.fromEntries(described)));
  const start = 8 + Math.ceil(header.length / 8) * 8;
  const file = new Uint8Array(start + offset).fill(0x20, 8, start);
  new DataView(file.buffer).setBigUint64(0, BigInt(start - 8), true);
  file.set(header, 8);
  let at = start;
  for (const [, { data }] of entries) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}

/**
 * Read the tensors of a safetensors file; each array is a copy of its own.
 *
 * @param {Uint8Array | ArrayBuffer} bytes
 * @param {string} [source] what `bytes` are, for messages
 * @returns {Map<string, {dtype: string, shape: number[], data: ArrayBufferView}>}
 * @throws {CheckpointError} it is no safetensors file, cut short, or its header contradicts itself
 */
export function readSafetensors(bytes, source = "The state") {
  const refuse = (why) => {
    throw new CheckpointError(`${source} is not a state file, or was cut short: ${why}.`);
  };
  const isBuffer = bytes instanceof ArrayBuffer;
  if (!isBuffer && !(bytes instanceof Uint8Array)) {
    refuse("it is neither a Uint8Array nor an ArrayBuffer");
  }
  // A Buffer of Node is a Uint8Array too, but one whose slices are no copies.
  const file = isBuffer
    ? new Uint8Array(bytes)
    : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < 8) refuse(`it has ${file.length} bytes`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = view.getBigUint64(0, true);
  if (length > LARGEST_HEADER || length > file.length - 8) {
    refuse(`its header would have ${length} bytes`);
  }
  const start = 8 + Number(length);
  let header;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, start));
    header = JSON.parse(text);
  } catch (error) {
    refuse(`its header is not JSON (${error.message})`);
  }
  if (!isObject(header)) refuse("its header is not an object");
  const tensors = new Map();
  const ranges = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === METADATA) continue;
    const { dtype, shape, range } = checked(name, entry, refuse);
    ranges.push(range);
    if (range[1] > file.length - start) refuse(`${quoted(name)} ends after the file`);
    const own = file.slice(start + range[0], start + range[1]);
    tensors.set(name, { dtype, shape, data: new DTYPES[dtype].array(own.buffer) });
  }
  // Bytes that two tensors share, or that none owns, are how a header lies.
  ranges.sort(([a, b], [c, d]) => a - c || b - d);
  let end = 0;
  for (const [from, to] of ranges) {
    if (from !== end) refuse(`its tensors overlap or leave a hole at byte ${Math.min(from, end)}`);
    end = to;
  }
  if (end !== file.length - start) refuse(`${file.length - start - end} bytes belong to no tensor`);
  return tensors;
}

function checked(name, entry, refuse) {
  if (!isObject(entry)) refuse(`${quoted(name)} is not described by an object`);
  const { dtype: code, shape, data_offsets: range } = entry;
  if (!CODES.has(code)) refuse(`${quoted(name)} has the unsupported dtype ${JSON.stringify(code)}`);
  if (!areSizes(shape)) refuse(`the shape of ${quoted(name)} is no list of sizes`);
  if (!areSizes(range) || range.length !== 2 || range[0] > range[1]) {
    refuse(`the offsets of ${quoted(name)} are no range`);
  }
  const dtype = CODES.get(code);
  const size = sizeOf(shape) * DTYPES[dtype].size;
  if (range[1] - range[0] !== size) {
    refuse(`${quoted(name)} has ${range[1] - range[0]} bytes, and its shape takes ${size}`);
  }
  return { dtype, shape, range };
}

const areSizes = (value) =>
  Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const quoted = (name) => JSON.stringify(name);
