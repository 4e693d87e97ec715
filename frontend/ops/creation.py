"""New tensors, and other views of given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import context
from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import normalized
from onnxtape.ops.promotion import INT64, operands, widened
from onnxtape.tensor import Tensor

__all__ = [
    "arange",
    "array",
    "cast",
    "convert_to_numpy",
    "convert_to_tensor",
    "copy",
    "dtype",
    "empty",
    "empty_like",
    "eye",
    "full",
    "full_like",
    "geomspace",
    "is_tensor",
    "linspace",
    "logspace",
    "multi_hot",
    "one_hot",
    "ones",
    "ones_like",
    "stop_gradient",
    "zeros",
    "zeros_like",
]


def cast(x: Any, dtype: npt.DTypeLike) -> Tensor:
    """x with another element type; a float becomes an int by truncation."""
    return convert_to_tensor(x, dtype)


def stop_gradient(variable: Any) -> Tensor:
    """A tensor's or variable's value, through which no gradient flows."""
    t = convert_to_tensor(variable)
    # Another object: a tape knows tensors by identity, so it has never seen this one.
    symbolic = context.state.symbolic or t._symbolic
    if symbolic is not None:
        passed = symbolic.stopped(t)
    elif t._ort is not None:
        passed = Tensor._from_ort(t._ort)
        # Holds what it aliases, so that no step writes into it.
        passed._history = t
    else:
        passed = Tensor(t.numpy())
    return passed


def shape_tensor(shape: Any) -> Tensor:
    """A shape, whose entries may be tensors, as an int64 vector."""
    if isinstance(shape, Tensor):
        return convert_to_tensor(shape, INT64)
    dims = [shape] if isinstance(shape, (int, np.integer)) else list(shape)
    if static_shape(dims) is not None:
        return B.constant(np.asarray(dims, dtype=np.int64))
    parts = [B.op("Reshape", convert_to_tensor(d, INT64), [1]) for d in dims]
    return parts[0] if len(parts) == 1 else B.op("Concat", *parts, axis=0)


def static_shape(shape: Any) -> tuple[int, ...] | None:
    """A shape of numbers; None where an entry, or the whole, is a tensor."""
    if isinstance(shape, (int, np.integer)):
        return (int(shape),)
    if isinstance(shape, Sequence) and all(isinstance(d, (int, np.integer)) for d in shape):
        return tuple(map(int, shape))
    return None


def full(shape: Any, fill_value: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor of `shape` (entries may be scalar tensors), every element `fill_value`.

    Args:
        dtype: float32 by default, here and wherever numbers are made of nothing.
    """
    value = convert_to_tensor(fill_value, dtype or FLOAT32)
    return value if static_shape(shape) == () else B.op("Expand", value, shape_tensor(shape))


def zeros(shape: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Ones."""
    return full(shape, 1, dtype)


def empty(shape: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor of `shape` whose elements do not matter: zeros."""
    return zeros(shape, dtype)


def empty_like(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor of x's shape whose elements do not matter: zeros."""
    return zeros_like(x, dtype)


def full_like(x: Any, fill_value: float, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor of x's shape, every element the number `fill_value`."""
    t = convert_to_tensor(x)
    return B.full_like(t, fill_value, t.dtype if dtype is None else np.dtype(dtype))


def zeros_like(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Zeros in x's shape."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Ones in x's shape."""
    return full_like(x, 1, dtype)


def arange(
    start: Any, stop: Any = None, step: Any = None, dtype: npt.DTypeLike | None = None
) -> Tensor:
    """Numbers from start (0 if only one bound is given) up to, not including, stop.

    By default they have the dtype in which the bounds and the step meet.
    """
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    bounds = (start, stop, step)
    if all(isinstance(v, (int, float)) for v in bounds):
        if any(isinstance(v, float) for v in bounds):
            # Counted in double precision, as NumPy does: in float32, 0.3 / 0.1 is more than 3.
            return B.constant(np.arange(*bounds).astype(dtype or "float32"))
        tensors = [B.scalar(v, INT64) for v in bounds]
        return B.cast(B.op("Range", *tensors), np.dtype(dtype or "int32"))
    tensors = operands(*bounds)
    # Range has kernels for few dtypes.
    numbers = B.op("Range", *map(widened, tensors))
    return B.cast(numbers, tensors[0].dtype if dtype is None else np.dtype(dtype))


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: npt.DTypeLike | None = None,
    axis: int = 0,
) -> Any:
    """`num` evenly spaced numbers from start to stop.

    Args:
        start, stop: numbers, or tensors, which broadcast.
        endpoint: whether stop is the last of them; else it is the one after.
        retstep: return the pair of the numbers and the distance between them.
        dtype: by default float32, or the floating-point dtype of the tensors.
        axis: of the result, along which they lie.
    """
    if num < 0:
        raise ValueError(f"linspace: num is 0 or more, not {num}")
    parts = num - 1 if endpoint else num
    if isinstance(start, (int, float)) and isinstance(stop, (int, float)):
        line = np.linspace(start, stop, num, endpoint)
        numbers = B.constant(line.astype(dtype or FLOAT32))
        step: Any = (stop - start) / parts if parts > 0 else float("nan")
        return (numbers, step) if retstep else numbers
    low, high = operands(start, stop, floating=True)
    made = low.dtype
    width = B.op("Sub", high, low)
    rank = B.known_rank(width, "linspace")
    place = normalized(axis, rank + 1, "linspace")
    shares = (np.arange(num) / max(parts, 1)).astype(made)
    shares = shares.reshape([num if a == place else 1 for a in range(rank + 1)])
    # From either end, so that both are exact.
    ends = [B.op("Unsqueeze", B.expand_like(t, width), [place]) for t in (low, high)]
    near = B.op("Mul", ends[0], (1 - shares).astype(made))
    spaced = B.op("Add", near, B.op("Mul", ends[1], shares))
    numbers = spaced if dtype is None else B.cast(spaced, np.dtype(dtype))
    step = B.op("Div", width, float(parts)) if parts > 0 else float("nan")
    return (numbers, step) if retstep else numbers


def logspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: float = 10,
    dtype: npt.DTypeLike | None = None,
    axis: int = 0,
) -> Tensor:
    """`num` numbers from base ** start to base ** stop, each the same multiple of the one before.

    Args: as for `linspace`.
    """
    if isinstance(start, (int, float)) and isinstance(stop, (int, float)):
        line = np.logspace(start, stop, num, endpoint, float(base))
        return B.constant(line.astype(dtype or FLOAT32))
    exponents = linspace(start, stop, num, endpoint, axis=axis)
    spaced = B.op("Pow", B.scalar(float(base), exponents.dtype), exponents)
    return spaced if dtype is None else B.cast(spaced, np.dtype(dtype))


def geomspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    dtype: npt.DTypeLike | None = None,
    axis: int = 0,
) -> Tensor:
    """`num` numbers from start to stop, each the same multiple of the one before.

    Args: as for `linspace`; start and stop are of one sign, and not 0.
    """
    if isinstance(start, (int, float)) and isinstance(stop, (int, float)):
        return B.constant(np.geomspace(start, stop, num, endpoint).astype(dtype or FLOAT32))
    low, high = operands(start, stop, floating=True)
    exponents = linspace(0.0, B.op("Log", B.op("Div", high, low)), num, endpoint, axis=axis)
    place = normalized(axis, B.known_rank(exponents, "geomspace"), "geomspace")
    first = B.op("Unsqueeze", B.expand_like(low, B.op("Add", low, high)), [place])
    spaced = B.op("Mul", first, B.op("Exp", exponents))
    return spaced if dtype is None else B.cast(spaced, np.dtype(dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: npt.DTypeLike | None = None) -> Tensor:
    """An (N, M) matrix with ones on diagonal k."""
    return B.constant(np.eye(N, M, k).astype(dtype or FLOAT32))


#: The dtypes that OneHot has kernels for.
_ONE_HOT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), INT64)


def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: npt.DTypeLike | None = None) -> Tensor:
    """One-hot vectors along a new axis; an index out of range gives zeros."""
    indices = convert_to_tensor(x, INT64)
    rank = B.known_rank(indices, "one_hot")
    axis = normalized(axis, rank + 1, "one_hot")
    if rank == 0:
        # ONNX takes no scalar.
        return B.op("Squeeze", one_hot(B.op("Reshape", indices, [1]), num_classes, 1, dtype), [0])
    # ONNX counts negative indices from the end; here, as in Keras, they have no class.
    no_class = B.scalar(num_classes, INT64)
    indices = B.op("Where", B.op("Less", indices, 0), no_class, indices)
    wanted = np.dtype(dtype or FLOAT32)
    made = wanted if wanted in _ONE_HOT_DTYPES else INT64
    hot = B.op("OneHot", indices, no_class, np.asarray([0, 1], dtype=made), axis=axis)
    return B.cast(hot, wanted)


def multi_hot(
    inputs: Any, num_classes: int, axis: int = -1, dtype: npt.DTypeLike | None = None
) -> Tensor:
    """Ones at all of the classes in a row of indices: of (batch, n), (batch, num_classes).

    Args:
        inputs: integers (n,) or (batch, n, ...); those out of range have no class.
        axis: of the result, where the classes lie.
    """
    indices = convert_to_tensor(inputs)
    over = min(B.known_rank(indices, "multi_hot") - 1, 1)
    hot = one_hot(indices, num_classes, axis, INT64 if dtype is None else dtype)
    counted = B.op("ReduceMax", widened(hot), [over], keepdims=0)
    return B.cast(counted, np.dtype(dtype or FLOAT32))


def array(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """x as a tensor, as `convert_to_tensor`."""
    return convert_to_tensor(x, dtype)


def copy(x: Any) -> Tensor:
    """Another tensor with the same elements. (None changes in place, so this is seldom needed.)"""
    return B.op("Identity", convert_to_tensor(x))


def convert_to_numpy(x: Any) -> npt.NDArray[Any]:
    """The value as a NumPy array; not while tracing."""
    return np.asarray(convert_to_tensor(x))


def is_tensor(x: Any) -> bool:
    """Whether x is a tensor of onnxtape."""
    return isinstance(x, Tensor)


def dtype(x: Any) -> str:
    """The name of x's element type."""
    return convert_to_tensor(x).dtype.name
