import assert from "node:assert/strict";
import { test } from "node:test";

import { CheckpointError, readSafetensors, writeSafetensors } from "../../js/onnxtape.js";
import { fromHalf, toHalf } from "../../js/dtypes.js";

/** A file with this header, and so many bytes of data. */
function file(header, data = 8, length = undefined) {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  bytes.set(text, 8);
  return bytes;
}

const entry = (dtype, shape, ...range) => ({ dtype, shape, data_offsets: range });

test("what is written is read, aligned or not, scalars and empty tensors included", () => {
  const tensors = {
    a: { dtype: "uint8", shape: [3], data: Uint8Array.of(1, 2, 3) },
    scalar: { dtype: "float64", shape: [], data: Float64Array.of(Math.PI) },
    empty: { dtype: "int64", shape: [0, 4], data: new BigInt64Array(0) },
    __proto: { dtype: "float32", shape: [2, 1], data: Float32Array.of(NaN, -0) },
  };
  const bytes = writeSafetensors(tensors, { producer: "test" });
  assert.deepEqual(Object.fromEntries(readSafetensors(bytes)), tensors);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  assert.deepEqual(Object.fromEntries(readSafetensors(shifted.subarray(1))), tensors);
  assert.deepEqual(Object.fromEntries(readSafetensors(bytes.buffer)), tensors);
  assert.throws(
    () => writeSafetensors({ a: { dtype: "int32", shape: [2], data: new Int32Array(3) } }),
    /"a" cannot be written: it has 12 bytes, and int32\[2\] takes 8/,
  );
});

test("a name that JavaScript knows is a name like others", () => {
  const header = `{"__proto__": ${JSON.stringify(entry("F32", [2], 0, 8))}}`;
  assert.deepEqual([...readSafetensors(file(header)).keys()], ["__proto__"]);
  assert.equal({}.dtype, undefined);
});

const hostile = {
  "no bytes": [new Uint8Array(0), /it has 0 bytes/],
  "a header longer than the file": [file("{}", 0, 1000), /header would have 1000 bytes/],
  "a header of 2^63 bytes": [file("{}", 0, 2n ** 63n), /header would have 9223372036854775808/],
  "no JSON": [file("{", 0), /header is not JSON/],
  "no UTF-8": [file("{}", 0).fill(0xff, 8), /header is not JSON/],
  "a list": [file("[]", 0), /header is not an object/],
  "an entry that is none": [file({ a: 1 }), /"a" is not described by an object/],
  "an unknown dtype": [file({ a: entry("C64", [1], 0, 8) }), /unsupported dtype "C64"/],
  "a dtype of JavaScript": [file({ a: entry("toString", [1], 0, 8) }), /unsupported dtype/],
  "a negative size": [file({ a: entry("F32", [-2], 0, 8) }), /shape of "a" is no list of sizes/],
  "a broken size": [file({ a: entry("F32", [0.5], 0, 8) }), /shape of "a" is no list of sizes/],
  "a size beyond all": [file({ a: entry("F32", [2 ** 52, 2 ** 52], 0, 8) }), /its shape takes/],
  "no offsets": [file({ a: { dtype: "F32", shape: [2] } }), /offsets of "a" are no range/],
  "offsets backwards": [file({ a: entry("F32", [2], 8, 0) }), /offsets of "a" are no range/],
  "an end after the file": [file({ a: entry("F32", [4], 0, 16) }), /"a" ends after the file/],
  "bytes that do not fit the shape": [file({ a: entry("F32", [3], 0, 8) }), /its shape takes 12/],
  "an overlap": [
    file({ a: entry("F32", [2], 0, 8), b: entry("F32", [1], 4, 8) }),
    /overlap or leave a hole/,
  ],
  "a hole": [file({ a: entry("F32", [1], 4, 8) }), /overlap or leave a hole/],
  "bytes of nobody": [file({ a: entry("F32", [1], 0, 4) }), /4 bytes belong to no tensor/],
};
for (const [what, [bytes, message]] of Object.entries(hostile)) {
  test(`a file with ${what} is refused`, () => {
    assert.throws(() => readSafetensors(bytes), (error) => {
      assert.ok(error instanceof CheckpointError, error);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("half precision: every number survives, others go to the nearest", () => {
  for (let bits = 0; bits < 1 << 16; bits++) {
    const value = fromHalf(bits);
    if (!Number.isNaN(value)) assert.equal(toHalf(value), bits);
  }
  const cases = [
    [65504, 0x7bff], [65519.99, 0x7bff], [65520, 0x7c00], [-Infinity, 0xfc00], [NaN, 0x7e00],
    [2 ** -25, 0], [2 ** -25 * 1.001, 1], [1 + 2 ** -11, 0x3c00], [1 + 3 * 2 ** -11, 0x3c02],
    [2047.5 / 2048, 0x3c00], [2 ** -14 - 2 ** -26, 0x400],
  ];
  for (const [value, bits] of cases) assert.equal(toHalf(value), bits, String(value));
});
