"""Random numbers: explicit state, the same bits eagerly, compiled, and in an artifact.

The generator is Squares (B. Widynski, "Squares: A Fast Counter-Based RNG", arXiv:2004.06278), with
64 bits of output, written in standard integer operators. Its state is a variable of a key and a
counter, so it is saved, restored and exported like every other state.
"""

from __future__ import annotations

import functools
import math
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import context
from onnxtape.compiler.dtypes import to_onnx
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.creation import shape_tensor
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

_UINT64 = np.dtype(np.uint64)
_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)
_MASK64 = (1 << 64) - 1


class SeedGenerator:
    """A stream of random numbers.

    Args:
        seed: an int; streams of different seeds are independent. By default from the system.

    Attributes:
        state: uint64 vector (key, counter): the counter moves on with each draw.
    """

    def __init__(self, seed: int | None = None, name: str = "seed_generator") -> None:
        value = _initial_state(secrets.randbits(63) if seed is None else seed)
        self.state = Variable(value, trainable=False, name=name, role="generator")

    def reset(self, seed: int) -> None:
        """Start the stream of `seed` from its beginning."""
        self.state.assign(_initial_state(seed))

    def draw(self, count: Any) -> Tensor:
        """`count` (an int or an int64 scalar tensor) random uint64 numbers; advances the stream."""
        state = self.state.value
        advance = B.op("Mul", B.cast(convert_to_tensor(count), _UINT64), _SECOND)
        self.state.assign(B.op("Add", state, advance))
        return _squares(state, count)


# Selects the counter: (key, counter) + count * (0, 1).
_SECOND = np.asarray([0, 1], dtype=np.uint64)


def _initial_state(seed: int) -> npt.NDArray[np.uint64]:
    return np.asarray([_key(seed), 0], dtype=np.uint64)


def _key(seed: int) -> int:
    """An odd key with well mixed bits: SplitMix64's output function of the seed."""
    z = (seed + 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return (z ^ (z >> 31)) | 1


def _squares(state: Tensor, count: Any) -> Tensor:
    """Squares64 of `count` consecutive counters."""
    key, start = B.op_multi("Split", state, outputs=2, axis=0, num_outputs=2)
    steps = B.op("Range", *(convert_to_tensor(v, _INT64) for v in (0, count, 1)))
    counters = B.op("Add", B.cast(steps, _UINT64), start)
    half = np.asarray(32, dtype=np.uint64)

    def swapped_halves(v: Tensor) -> Tensor:
        high = B.op("BitShift", v, half, direction="LEFT")
        low = B.op("BitShift", v, half, direction="RIGHT")
        return B.op("BitwiseOr", high, low)

    y = B.op("Mul", counters, key)
    z = B.op("Add", y, key)
    x = y
    for addend in (y, z, y):
        x = swapped_halves(B.op("Add", B.op("Mul", x, x), addend))
    t = B.op("Add", B.op("Mul", x, x), z)
    x = swapped_halves(t)
    last = B.op("Add", B.op("Mul", x, x), y)
    return B.op("BitwiseXor", t, B.op("BitShift", last, half, direction="RIGHT"))


@functools.cache
def global_generator() -> SeedGenerator:
    """The stream that is used where no seed is given."""
    with context.eagerly():
        return SeedGenerator(name="global_seed_generator")


@functools.cache
def initial_generator() -> SeedGenerator:
    """The stream that variables' initial values are drawn from.

    Apart from the global one: a trace makes initial values at once and leaves the step's own
    numbers for when it runs, while eagerly both come in turn. Both must give the same numbers.
    """
    with context.eagerly():
        return SeedGenerator(name="initial_seed_generator")


def set_seed(seed: int) -> None:
    """Start from `seed`: initial values, the global stream, the shuffling of new datasets.

    Compiled functions go on with the new stream; they need no new trace.
    """
    from onnxtape import data

    with context.eagerly():
        global_generator().reset(seed)
        # Any other number that depends on the seed.
        initial_generator().reset(~seed)
    data.set_global_seed(seed)


def _lanes(shape: Any, seed: Any) -> tuple[Tensor, Tensor, Any]:
    """Two float32 vectors of integers in [0, 2^24), which together cover `shape`'s elements.

    They are the high 24 bits of either half of each random number.
    """
    if seed is None:
        drawn_from = initial_generator if context.state.initializing else global_generator
        generator: Any = drawn_from()
    elif isinstance(seed, SeedGenerator):
        generator = seed
    elif isinstance(seed, (int, np.integer)):
        generator = _Fixed(int(seed))
    else:
        raise TypeError(f"seed is None, an int or a SeedGenerator, not {type(seed).__name__}")
    dims = B.constant_value(shape_tensor(shape))
    if dims is not None:
        total: Any = int(np.prod(dims, dtype=np.int64))
        count: Any = (total + 1) // 2
    else:
        total = B.op("ReduceProd", shape_tensor(shape), keepdims=0)
        count = B.op("Div", B.op("Add", total, 1), 2)
    bits = generator.draw(count)
    high = B.op("BitShift", bits, np.asarray(40, np.uint64), direction="RIGHT")
    low = B.op("BitShift", bits, np.asarray(32, np.uint64), direction="LEFT")
    low = B.op("BitShift", low, np.asarray(40, np.uint64), direction="RIGHT")
    return B.cast(high, _FLOAT32), B.cast(low, _FLOAT32), total


class _Fixed:
    """The first numbers of a seed's stream, always the same."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, count: Any) -> Tensor:
        return _squares(B.constant(_initial_state(self._seed)), count)


def _joined(first: Tensor, second: Tensor, total: Any, shape: Any) -> Tensor:
    """Both lanes as one tensor of `shape`."""
    both = B.op("Concat", first, second, axis=0)
    if not (isinstance(total, int) and total % 2 == 0):
        end = [total] if isinstance(total, int) else B.op("Reshape", total, [1])
        both = B.op("Slice", both, [0], end, [0])
    return B.op("Reshape", both, shape_tensor(shape), allowzero=1)


def uniform(
    shape: Any,
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: npt.DTypeLike = "float32",
    seed: int | SeedGenerator | None = None,
) -> Tensor:
    """Uniform numbers in [minval, maxval), multiples of 2^-24 of the range.

    Args:
        shape: of the result; entries may be scalar tensors.
        dtype: a floating-point dtype.
        seed: a `SeedGenerator` to draw from; an int for always the same numbers; by default the
            global stream.
    """
    made = _require_float(dtype)
    if maxval < minval:
        raise ValueError(f"uniform: maxval is {maxval}, less than minval, {minval}")
    high, low, total = _lanes(shape, seed)
    x = B.op("Mul", _joined(high, low, total, shape), 2.0**-24)
    if (minval, maxval) != (0, 1):
        x = B.op("Add", B.op("Mul", x, float(maxval - minval)), float(minval))
    if (minval, maxval) != (0, 1) or made.itemsize < 4:
        # Rounding must not reach maxval.
        coarse = made if made.itemsize < 4 else _FLOAT32
        below = np.nextafter(np.asarray(maxval, coarse), np.asarray(minval, coarse))
        x = B.op("Min", x, float(below))
    return B.cast(x, made)


def normal(
    shape: Any,
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: npt.DTypeLike = "float32",
    seed: int | SeedGenerator | None = None,
) -> Tensor:
    """Normally distributed numbers (Box and Muller's transform of uniform ones).

    Args: as for `uniform`.
    """
    made = _require_float(dtype)
    high, low, total = _lanes(shape, seed)
    # (k + 1) / 2^24 lies in (0, 1], so its logarithm is finite.
    radius = B.op("Log", B.op("Mul", B.op("Add", high, 1.0), 2.0**-24))
    radius = B.op("Sqrt", B.op("Mul", radius, -2.0))
    angle = B.op("Mul", low, 2.0 * math.pi * 2.0**-24)
    first = B.op("Mul", radius, B.op("Cos", angle))
    second = B.op("Mul", radius, B.op("Sin", angle))
    z = _joined(first, second, total, shape)
    if stddev != 1:
        z = B.op("Mul", z, float(stddev))
    if mean != 0:
        z = B.op("Add", z, float(mean))
    return B.cast(z, made)


def truncated_normal(
    shape: Any,
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: npt.DTypeLike = "float32",
    seed: int | SeedGenerator | None = None,
) -> Tensor:
    """Normal numbers no further than two standard deviations from the mean.

    By inversion: z = sqrt(2) erfinv(u) with u uniform in +-erf(sqrt(2)), and M. Giles's
    approximation of erfinv ("Approximating the erfinv function", 2010), exact to float32 there.

    Args: as for `uniform`.
    """
    made = _require_float(dtype)
    bound = math.erf(math.sqrt(2.0))
    u = uniform(shape, -bound, bound, seed=seed)
    w = B.op("Neg", B.op("Log", B.op("Sub", 1.0, B.op("Mul", u, u))))
    # |u| < erf(sqrt 2) keeps w below 5, the central branch of the approximation.
    w = B.op("Sub", w, 2.5)
    p = B.full_like(w, 2.81022636e-08)
    for c in (
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    ):
        p = B.op("Add", B.op("Mul", p, w), c)
    z = B.op("Mul", B.op("Mul", p, u), math.sqrt(2.0) * stddev)
    if mean != 0:
        z = B.op("Add", z, float(mean))
    return B.cast(z, made)


def randint(
    shape: Any,
    minval: int,
    maxval: int,
    dtype: npt.DTypeLike = "int32",
    seed: int | SeedGenerator | None = None,
) -> Tensor:
    """Whole numbers from minval up to, not including, maxval (a range of at most 2^24)."""
    if not 0 < maxval - minval <= 2**24:
        raise ValueError(f"randint needs 0 < maxval - minval <= 2^24, not {maxval - minval}")
    high, low, total = _lanes(shape, seed)
    unit = B.op("Mul", _joined(high, low, total, shape), (maxval - minval) * 2.0**-24)
    whole = B.op("Cast", B.op("Floor", unit), to=to_onnx(np.dtype(dtype)))
    return B.op("Add", whole, minval)


def dropout(
    inputs: Any,
    rate: float,
    noise_shape: Any = None,
    seed: int | SeedGenerator | None = None,
) -> Tensor:
    """Elements set to zero with probability `rate` in [0, 1), the others divided by 1 - rate."""
    x = convert_to_tensor(inputs)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate lies in [0, 1), not at {rate}")
    _require_float(x.dtype)
    shape = B.shape_tensor(x) if noise_shape is None else noise_shape
    kept = B.op("GreaterOrEqual", uniform(shape, seed=seed), float(rate))
    scale = B.op("Mul", B.cast(kept, x.dtype), 1.0 / (1.0 - rate))
    if noise_shape is None:
        B.refine_shape(scale, B.shape(x))
    return B.op("Mul", x, scale)


def _require_float(dtype: npt.DTypeLike) -> np.dtype[Any]:
    made = np.dtype(dtype)
    if not is_float(made):
        raise TypeError(f"random floats have a floating-point dtype, not {made}")
    return made
