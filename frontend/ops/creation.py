"""New tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.engine import B, convert_to_tensor
from onnxtape.tensor import Tensor

__all__ = [
    "arange",
    "eye",
    "full",
    "full_like",
    "linspace",
    "one_hot",
    "ones",
    "ones_like",
    "shape_tensor",
    "zeros",
    "zeros_like",
]


def shape_tensor(shape: Any) -> Tensor:
    """A shape, whose entries may be tensors, as an int64 vector."""
    if isinstance(shape, Tensor):
        return convert_to_tensor(shape, np.int64)
    dims = [shape] if isinstance(shape, int) else list(shape)
    if all(isinstance(d, (int, np.integer)) for d in dims):
        return B.constant(np.asarray(dims, dtype=np.int64))
    parts = [B.op("Reshape", convert_to_tensor(d, np.int64), [1]) for d in dims]
    return parts[0] if len(parts) == 1 else B.op("Concat", *parts, axis=0)


def full(shape: Any, fill_value: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor of `shape` (entries may be scalar tensors), every element `fill_value`."""
    value = convert_to_tensor(fill_value, dtype)
    static = isinstance(shape, int) or (
        isinstance(shape, Sequence) and all(isinstance(d, int) for d in shape)
    )
    if static and shape in ((), []):
        return value
    return B.op("Expand", value, shape_tensor(shape))


def zeros(shape: Any, dtype: npt.DTypeLike = "float32") -> Tensor:
    """Zeros."""
    return full(shape, 0.0, dtype)


def ones(shape: Any, dtype: npt.DTypeLike = "float32") -> Tensor:
    """Ones."""
    return full(shape, 1.0, dtype)


def full_like(x: Any, fill_value: float, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor of x's shape, every element the number `fill_value`."""
    t = convert_to_tensor(x)
    return B.full_like(t, fill_value, t.dtype if dtype is None else np.dtype(dtype))


def zeros_like(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Zeros in x's shape."""
    return full_like(x, 0.0, dtype)


def ones_like(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Ones in x's shape."""
    return full_like(x, 1.0, dtype)


def arange(
    start: Any, stop: Any = None, step: Any = 1, dtype: npt.DTypeLike | None = None
) -> Tensor:
    """Numbers from start (0 if only one bound is given) up to, not including, stop."""
    if stop is None:
        start, stop = 0, start
    if dtype is None:
        dtype = "float32" if any(isinstance(v, float) for v in (start, stop, step)) else "int32"
    return B.op("Range", *(convert_to_tensor(v, dtype) for v in (start, stop, step)))


def linspace(start: float, stop: float, num: int = 50, dtype: npt.DTypeLike = "float32") -> Tensor:
    """`num` evenly spaced numbers from start to stop, both included."""
    return B.constant(np.linspace(start, stop, num).astype(dtype))


def eye(n: int, m: int | None = None, k: int = 0, dtype: npt.DTypeLike = "float32") -> Tensor:
    """An (n, m) matrix with ones on diagonal k."""
    return B.constant(np.eye(n, m, k).astype(dtype))


def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: npt.DTypeLike = "float32") -> Tensor:
    """One-hot vectors along a new axis; an index out of range gives zeros."""
    indices = convert_to_tensor(x, np.int64)
    values = B.constant(np.asarray([0, 1], dtype=dtype))
    # ONNX counts negative indices from the end; here, as in Keras, they have no class.
    no_class = B.scalar(num_classes, np.dtype(np.int64))
    indices = B.op("Where", B.op("Less", indices, 0), no_class, indices)
    return B.op("OneHot", indices, B.scalar(num_classes, np.dtype(np.int64)), values, axis=axis)
