"""New tensors, and other views of given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import normalized
from onnxtape.ops.promotion import INT64, operands, widened
from onnxtape.tensor import Tensor

__all__ = [
    "arange",
    "cast",
    "convert_to_tensor",
    "eye",
    "full",
    "full_like",
    "linspace",
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


def stop_gradient(x: Any) -> Tensor:
    """x, through which no gradient flows."""
    t = convert_to_tensor(x)
    # Another object: a tape knows tensors by identity, so it has never seen this one.
    if t._symbolic is not None:
        passed = Tensor._from_symbol(t._symbol, t._symbolic)
        if t._symbolic.none_dims:
            from onnxtape.functional import StoppedGradient

            passed._history = StoppedGradient(t, [passed])
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


def full(shape: Any, fill_value: Any, dtype: npt.DTypeLike = "float32") -> Tensor:
    """A tensor of `shape` (entries may be scalar tensors), every element `fill_value`."""
    value = convert_to_tensor(fill_value, dtype)
    return value if static_shape(shape) == () else B.op("Expand", value, shape_tensor(shape))


def zeros(shape: Any, dtype: npt.DTypeLike = "float32") -> Tensor:
    """Zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: npt.DTypeLike = "float32") -> Tensor:
    """Ones."""
    return full(shape, 1, dtype)


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
    start: Any, stop: Any = None, step: Any = 1, dtype: npt.DTypeLike | None = None
) -> Tensor:
    """Numbers from start (0 if only one bound is given) up to, not including, stop.

    By default they have the dtype in which the bounds and the step meet.
    """
    if stop is None:
        start, stop = 0, start
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


def linspace(start: float, stop: float, num: int = 50, dtype: npt.DTypeLike = "float32") -> Tensor:
    """`num` evenly spaced numbers from start to stop, both included."""
    return B.constant(np.linspace(start, stop, num).astype(dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: npt.DTypeLike = "float32") -> Tensor:
    """An (N, M) matrix with ones on diagonal k."""
    return B.constant(np.eye(N, M, k).astype(dtype))


#: The dtypes that OneHot has kernels for.
_ONE_HOT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), INT64)


def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: npt.DTypeLike = "float32") -> Tensor:
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
    wanted = np.dtype(dtype)
    made = wanted if wanted in _ONE_HOT_DTYPES else INT64
    hot = B.op("OneHot", indices, no_class, np.asarray([0, 1], dtype=made), axis=axis)
    return B.cast(hot, wanted)
