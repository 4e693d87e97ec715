"""Random numbers: explicit state, the same bits eagerly, compiled, and in an artifact.

What draws takes `seed`: a `SeedGenerator` to draw from; an int for always the same numbers; by
default the global stream. No gradient flows through what is drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape import context, missing
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.dtypes import to_onnx
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.generators import (
    FixedStream,
    SeedGenerator,
    generator_of,
    global_generator,
    initial_generator,
    set_seed,
)
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.creation import shape_tensor, stop_gradient
from onnxtape.ops.special import erfinv_central
from onnxtape.tensor import Tensor

__all__ = [
    "SeedGenerator",
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "global_generator",
    "initial_generator",
    "normal",
    "randint",
    "set_seed",
    "shuffle",
    "truncated_normal",
    "uniform",
]

_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)

#: So many 64-bit numbers are drawn at once, a megabyte.
_BLOCK = 1 << 17

Seed = int | SeedGenerator | FixedStream | None


def _lanes(shape: Any, seed: Any) -> tuple[Tensor, Tensor, Any]:
    """Two float32 vectors of integers in [0, 2^24), which together cover `shape`'s elements.

    They are the high 24 bits of either half of each random number.
    """
    dims = B.constant_value(shape_tensor(shape))
    if dims is not None:
        total: Any = int(np.prod(dims, dtype=np.int64))
        count: Any = (total + 1) // 2
    else:
        total = B.op("ReduceProd", shape_tensor(shape), keepdims=0)
        count = B.op("Div", B.op("Add", total, 1), 2)
    bits = generator_of(seed).draw(count)
    high = B.op("BitShift", bits, np.asarray(40, np.uint64), direction="RIGHT")
    low = B.op("BitShift", bits, np.asarray(32, np.uint64), direction="LEFT")
    low = B.op("BitShift", low, np.asarray(40, np.uint64), direction="RIGHT")
    return B.cast(high, _FLOAT32), B.cast(low, _FLOAT32), total


def _joined(first: Tensor, second: Tensor, total: Any, shape: Any) -> Tensor:
    """Both lanes as one tensor of `shape`."""
    both = B.op("Concat", first, second, axis=0)
    if not (isinstance(total, int) and total % 2 == 0):
        end = [total] if isinstance(total, int) else B.op("Reshape", total, [1])
        both = B.op("Slice", both, [0], end, [0])
    return B.op("Reshape", both, shape_tensor(shape), allowzero=1)


def _whole(shape: Any, seed: Seed) -> Tensor:
    """Integers in [0, 2^24), as float32."""
    return _joined(*_lanes(shape, seed), shape)


def _in_blocks(shape: Any, seed: Seed, draw: Callable[[Any, Seed], Tensor]) -> Tensor:
    """`draw(shape, seed)`, which makes each number of one lane alone; eagerly, of many numbers,
    block by block: between its operations these take several times the memory of the result, and
    ONNX Runtime's arena would keep it."""
    dims = None if context.state.symbolic is not None else B.constant_value(shape_tensor(shape))
    total = 0 if dims is None else int(np.prod(dims, dtype=np.int64))
    if dims is None or total <= 2 * _BLOCK:
        return draw(shape, seed)
    stream = generator_of(seed)
    words = (total + 1) // 2
    begins = range(0, words, _BLOCK)
    parts = (draw([2 * min(_BLOCK, words - begin)], stream).numpy() for begin in begins)
    first = next(parts)
    lanes = np.empty((2, words), first.dtype)
    for begin, part in zip(begins, itertools.chain([first], parts), strict=True):
        lanes[:, begin : begin + part.size // 2] = part.reshape(2, -1)
    return convert_to_tensor(lanes.reshape(-1)[:total].reshape(dims))


def _moved(x: Tensor, scale: float, shift: float) -> Tensor:
    """x * scale + shift, each where it does something."""
    if scale != 1:
        x = B.op("Mul", x, float(scale))
    return x if shift == 0 else B.op("Add", x, float(shift))


def uniform(
    shape: Any,
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: npt.DTypeLike | None = None,
    seed: Seed = None,
) -> Tensor:
    """Uniform numbers in [minval, maxval), multiples of 2^-24 of the range.

    Args:
        shape: of the result; entries may be scalar tensors.
        dtype: a floating-point dtype, float32 by default.
    """
    made = _require_float(dtype)
    if maxval < minval:
        raise ValueError(f"uniform: maxval is {maxval}, less than minval, {minval}")
    return _in_blocks(
        shape, seed, lambda part, stream: _uniform(part, minval, maxval, made, stream)
    )


def _uniform(shape: Any, minval: float, maxval: float, made: np.dtype[Any], seed: Seed) -> Tensor:
    x = B.op("Mul", _whole(shape, seed), 2.0**-24)
    x = _moved(x, maxval - minval, minval)
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
    dtype: npt.DTypeLike | None = None,
    seed: Seed = None,
) -> Tensor:
    """Normally distributed numbers (Box and Muller's transform of uniform ones).

    Args: as for `uniform`.
    """
    made = _require_float(dtype)
    return _in_blocks(shape, seed, lambda part, stream: _normal(part, mean, stddev, made, stream))


def _normal(shape: Any, mean: float, stddev: float, made: np.dtype[Any], seed: Seed) -> Tensor:
    high, low, total = _lanes(shape, seed)
    # (k + 1) / 2^24 lies in (0, 1], so its logarithm is finite.
    radius = B.op("Log", B.op("Mul", B.op("Add", high, 1.0), 2.0**-24))
    radius = B.op("Sqrt", B.op("Mul", radius, -2.0))
    angle = B.op("Mul", low, 2.0 * math.pi * 2.0**-24)
    first = B.op("Mul", radius, B.op("Cos", angle))
    second = B.op("Mul", radius, B.op("Sin", angle))
    z = _joined(first, second, total, shape)
    return B.cast(_moved(z, stddev, mean), made)


def truncated_normal(
    shape: Any,
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: npt.DTypeLike | None = None,
    seed: Seed = None,
) -> Tensor:
    """Normal numbers no further than two standard deviations from the mean.

    By inversion: z = sqrt(2) erfinv(u) with u uniform in +-erf(sqrt(2)), and M. Giles's
    approximation of erfinv ("Approximating the erfinv function", 2010), exact to float32 there.

    Args: as for `uniform`.
    """
    made = _require_float(dtype)
    bound = math.erf(math.sqrt(2.0))

    def draw(part: Any, stream: Seed) -> Tensor:
        u = _uniform(part, -bound, bound, _FLOAT32, stream)
        # |u| < erf(sqrt 2) is within the central branch of the approximation.
        z = B.op("Mul", erfinv_central(u), u)
        return B.cast(_moved(z, math.sqrt(2.0) * stddev, mean), made)

    return _in_blocks(shape, seed, draw)


def randint(
    shape: Any,
    minval: int,
    maxval: int,
    dtype: npt.DTypeLike = "int32",
    seed: Seed = None,
) -> Tensor:
    """Whole numbers from minval up to, not including, maxval (a range of at most 2^24)."""
    if not 0 < maxval - minval <= 2**24:
        raise ValueError(f"randint needs 0 < maxval - minval <= 2^24, not {maxval - minval}")
    unit = B.op("Mul", _whole(shape, seed), (maxval - minval) * 2.0**-24)
    whole = B.op("Cast", B.op("Floor", unit), to=to_onnx(np.dtype(dtype)))
    return B.op("Add", whole, minval)


def dropout(
    inputs: Any,
    rate: float,
    noise_shape: Any = None,
    seed: Seed = None,
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


def shuffle(x: Any, axis: int = 0, seed: Seed = None) -> Tensor:
    """The slices along an axis in random order: that of as many 64-bit random numbers."""
    t = convert_to_tensor(x)
    axis = normalized(axis, B.known_rank(t, "shuffle"), "shuffle")
    size = B.dim_tensor(t, axis)
    keys = generator_of(seed).draw(B.op("Squeeze", size, [0]))
    # As signed integers, which there is an ordering of.
    order = B.op_multi("TopK", B.cast(keys, _INT64), size, outputs=2, axis=0)[1]
    return B.op("Gather", t, order, axis=axis)


def categorical(
    logits: Any, num_samples: int, dtype: npt.DTypeLike | None = "int32", seed: Seed = None
) -> Tensor:
    """Classes drawn with probabilities softmax(logits).

    The largest of logits plus Gumbel noise, -log(-log(u)) (E. Gumbel, 1954).

    Args:
        logits: (batch, classes).

    Returns:
        Integers (batch, num_samples).
    """
    t = stop_gradient(convert_to_tensor(logits, _FLOAT32))
    if B.known_rank(t, "categorical") != 2:
        raise refused(f"categorical takes logits (batch, classes), not {format_shape(B.shape(t))}")
    sizes = B.op("Concat", B.dim_tensor(t, 0), [num_samples], B.dim_tensor(t, 1), axis=0)
    noise = B.op("Neg", B.op("Log", B.op("Neg", B.op("Log", _inside(sizes, seed)))))
    chosen = B.op("ArgMax", B.op("Add", B.op("Unsqueeze", t, [1]), noise), axis=2, keepdims=0)
    found = B.cast(chosen, np.dtype(dtype or np.int32))
    return B.refine_shape(found, (B.dim(t, 0), num_samples))


def _inside(shape: Any, seed: Seed) -> Tensor:
    """Uniform numbers strictly between 0 and 1."""
    return B.op("Mul", B.op("Add", B.op("Min", _whole(shape, seed), 2.0**24 - 2), 0.5), 2.0**-24)


#: A candidate is turned down with a probability of less than 0.05, so all are with 1e-13.
_CANDIDATES = 10


def gamma(shape: Any, alpha: Any, dtype: npt.DTypeLike | None = None, seed: Seed = None) -> Tensor:
    """Numbers of the gamma distribution with shape parameter alpha and scale 1.

    G. Marsaglia and W. Tsang, "A simple method for generating gamma variables" (2000). The first
    of ten candidates that is accepted is taken; computed in float32.

    Args:
        alpha: positive, broadcasting with `shape`; no gradient flows to it.
        others: as for `uniform`.
    """
    return B.cast(B.op("Exp", _log_gamma(shape, alpha, seed)), _require_float(dtype))


def _log_gamma(shape: Any, alpha: Any, seed: Seed) -> Tensor:
    """The logarithm of such numbers, which does not vanish for small alpha."""
    stream = generator_of(seed)
    a = stop_gradient(convert_to_tensor(alpha, _FLOAT32))
    small = B.op("Less", a, 1.0)
    # Below 1: of alpha + 1, times u^(1 / alpha).
    d = B.op("Sub", B.op("Where", small, B.op("Add", a, 1.0), a), 1.0 / 3.0)
    c = B.op("Reciprocal", B.op("Sqrt", B.op("Mul", d, 9.0)))
    sizes = shape_tensor(shape)
    drawn = B.op("Concat", [_CANDIDATES], sizes, axis=0)
    x = normal(drawn, seed=stream)
    root = B.op("Add", B.op("Mul", x, c), 1.0)
    positive = B.op("Greater", root, 0.0)
    log_v = B.op("Mul", B.op("Log", B.op("Where", positive, root, 1.0)), 3.0)
    v = B.op("Exp", log_v)
    bound = B.op("Mul", B.op("Mul", x, x), 0.5)
    bound = B.op("Add", bound, B.op("Mul", d, B.op("Add", B.op("Sub", 1.0, v), log_v)))
    accepted = B.op("And", positive, B.op("Less", B.op("Log", _inside(drawn, stream)), bound))
    first = B.op("ArgMax", B.cast(accepted, np.dtype(np.int32)), axis=0, keepdims=1)
    log_v = B.op("Squeeze", B.op("GatherElements", log_v, first, axis=0), [0])
    found = B.op("Add", log_v, B.op("Log", d))
    less = B.op("Div", B.op("Log", _inside(sizes, stream)), a)
    return B.op("Where", small, B.op("Add", found, less), found)


def beta(
    shape: Any,
    alpha: Any,
    beta: Any,
    dtype: npt.DTypeLike | None = None,
    seed: Seed = None,
) -> Tensor:
    """Numbers of the beta distribution: x / (x + y) for x and y of gamma distributions.

    Args:
        alpha, beta: positive, broadcasting with `shape`; no gradient flows to them.
        others: as for `uniform`.
    """
    made = _require_float(dtype)
    stream = generator_of(seed)
    x, y = _log_gamma(shape, alpha, stream), _log_gamma(shape, beta, stream)
    return B.cast(B.op("Sigmoid", B.op("Sub", x, y)), made)


def binomial(
    shape: Any,
    counts: Any,
    probabilities: Any,
    dtype: npt.DTypeLike | None = None,
    seed: Seed = None,
) -> Tensor:
    """How many of `counts` trials succeed, each with the given probability.

    The trials are made one by one, so this takes time and memory for the largest count.

    Args:
        counts: whole numbers that are known while tracing, broadcasting with `shape`.
        probabilities: in [0, 1], broadcasting with `shape`.
        others: as for `uniform`.

    Raises:
        ShapeError: counts that are known only at run time.
    """
    made = _require_float(dtype)
    trials = convert_to_tensor(counts, _FLOAT32)
    known = B.constant_value(trials)
    if known is None:
        raise refused("binomial needs counts that are known while tracing")
    most = int(known.max(initial=0))
    drawn = uniform(B.op("Concat", [most], shape_tensor(shape), axis=0), seed=seed)
    chance = stop_gradient(convert_to_tensor(probabilities, _FLOAT32))
    # Trial i counts where there are more than i.
    rank = max(B.known_rank(drawn, "binomial") - 1, known.ndim)
    numbers = np.arange(most, dtype=np.float32).reshape(-1, *[1] * rank)
    happens = B.op("And", B.op("Less", drawn, chance), B.op("Less", numbers, trials))
    return B.op("ReduceSum", B.cast(happens, made), [0], keepdims=0)


def _require_float(dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    made = np.dtype(dtype or _FLOAT32)
    if not is_float(made):
        raise TypeError(f"random floats have a floating-point dtype, not {made}")
    return made


if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
