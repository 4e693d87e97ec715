/**
 * The dtypes that state and batches may have, under NumPy's names.
 *
 * JavaScript has no half-precision array everywhere, so float16 and bfloat16 are Uint16Arrays of
 * their bits; a bool is a byte, 0 or 1. The order is that in which safetensors sorts a file.
 */
export const DTYPES = {
  uint64: { code: "U64", size: 8, array: BigUint64Array },
  int64: { code: "I64", size: 8, array: BigInt64Array },
  float64: { code: "F64", size: 8, array: Float64Array },
  float32: { code: "F32", size: 4, array: Float32Array },
  uint32: { code: "U32", size: 4, array: Uint32Array },
  int32: { code: "I32", size: 4, array: Int32Array },
  bfloat16: { code: "BF16", size: 2, array: Uint16Array },
  float16: { code: "F16", size: 2, array: Uint16Array },
  uint16: { code: "U16", size: 2, array: Uint16Array },
  int16: { code: "I16", size: 2, array: Int16Array },
  int8: { code: "I8", size: 1, array: Int8Array },
  uint8: { code: "U8", size: 1, array: Uint8Array },
  bool: { code: "BOOL", size: 1, array: Uint8Array },
};

export const FLOATING = new Set(["float64", "float32", "float16"]);

/** How many elements a tensor of this shape has. */
export const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

/** A shape as messages show it: [batch, 64]. */
export const shown = (shape) => `[${shape.map((size) => size ?? "?").join(", ")}]`;

export const specOf = ({ dtype, shape }) => `${dtype}${shown(shape)}`;

/** The bits of the half-precision number nearest to `value`, ties to even. */
export function toHalf(value) {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const steps = magnitude / 2 ** (exponent - 10);
  const below = Math.floor(steps);
  const rest = steps - below;
  const rounded = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  // `rounded` brings the leading one of a normal number along, which counts as one exponent.
  return sign | (((exponent + 14) << 10) + rounded);
}

/** The number that half-precision bits stand for. */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
