"""Reductions, sorting and searching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import multiply, operands, sqrt, square, subtract
from onnxtape.tensor import Tensor

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "average",
    "count_nonzero",
    "cumsum",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "prod",
    "std",
    "sum",
    "top_k",
    "var",
]

Axis = int | Sequence[int] | None
_INT32 = np.dtype(np.int32)


def _reduce(op_type: str, t: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = None if axis is None else [axis] if isinstance(axis, int) else list(axis)
    if axes == []:
        return t
    return B.op(op_type, t, axes, keepdims=int(keepdims))


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over the axes, by default all. Booleans count as int32."""
    t = convert_to_tensor(x)
    if t.dtype == np.bool_:
        t = B.cast(t, _INT32)
    return _reduce("ReduceSum", t, axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over the axes, in floating point."""
    return _reduce("ReduceMean", operands(x, floating=True)[0], axis, keepdims)


def average(x: Any, axis: Axis = None, weights: Any = None) -> Tensor:
    """The weighted mean."""
    if weights is None:
        return mean(x, axis)
    t, w = operands(x, weights, floating=True)
    return B.op("Div", sum(multiply(t, w), axis), sum(w, axis))


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over the axes."""
    return _reduce("ReduceProd", convert_to_tensor(x), axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over the axes; ties share the gradient."""
    return _reduce("ReduceMax", convert_to_tensor(x), axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over the axes; ties share the gradient."""
    return _reduce("ReduceMin", convert_to_tensor(x), axis, keepdims)


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The variance (divided by the count) over the axes."""
    (t,) = operands(x, floating=True)
    return mean(square(subtract(t, mean(t, axis, keepdims=True))), axis, keepdims)


def std(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The standard deviation (divided by the count) over the axes."""
    return sqrt(var(x, axis, keepdims))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))), without overflow."""
    return _reduce("ReduceLogSumExp", operands(x, floating=True)[0], axis, keepdims)


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The 2-norm over the axes (all by default), or the 1-norm with ord=1."""
    (t,) = operands(x, floating=True)
    if ord not in (None, 1, 2, "fro", "euclidean"):
        raise ValueError(f"norm: ord is None, 1, 2 or 'euclidean', not {ord!r}")
    return _reduce("ReduceL1" if ord == 1 else "ReduceL2", t, axis, keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements hold."""
    bits = B.cast(convert_to_tensor(x, bool), _INT32)
    return B.cast(_reduce("ReduceMin", bits, axis, keepdims), np.dtype(bool))


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether one element holds."""
    bits = B.cast(convert_to_tensor(x, bool), _INT32)
    return B.cast(_reduce("ReduceMax", bits, axis, keepdims), np.dtype(bool))


def count_nonzero(x: Any, axis: Axis = None) -> Tensor:
    """How many elements are not zero, as int32."""
    return sum(convert_to_tensor(x, bool), axis)


def _arg(op_type: str, x: Any, axis: int | None, keepdims: bool, dtype: npt.DTypeLike) -> Tensor:
    t = convert_to_tensor(x)
    if t.dtype == np.bool_:
        t = B.cast(t, _INT32)
    if axis is None:
        t, axis = B.op("Reshape", t, [-1]), 0
    return B.cast(B.op(op_type, t, axis=axis, keepdims=int(keepdims)), np.dtype(dtype))


def argmax(
    x: Any, axis: int | None = None, keepdims: bool = False, dtype: npt.DTypeLike = "int32"
) -> Tensor:
    """The index of the (first) largest element along an axis, by default of the flat tensor."""
    return _arg("ArgMax", x, axis, keepdims, dtype)


def argmin(
    x: Any, axis: int | None = None, keepdims: bool = False, dtype: npt.DTypeLike = "int32"
) -> Tensor:
    """The index of the (first) smallest element along an axis, by default of the flat tensor."""
    return _arg("ArgMin", x, axis, keepdims, dtype)


def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest elements along the last axis and their indices (int32)."""
    values, indices = B.op_multi(
        "TopK", convert_to_tensor(x), [k], outputs=2, axis=-1, sorted=int(sorted)
    )
    return values, B.cast(indices, _INT32)


def cumsum(x: Any, axis: int | None = None) -> Tensor:
    """Partial sums along an axis, by default of the flat tensor."""
    t = convert_to_tensor(x)
    if t.dtype == np.bool_:
        t = B.cast(t, _INT32)
    if axis is None:
        t, axis = B.op("Reshape", t, [-1]), 0
    return B.op("CumSum", t, B.scalar(axis, np.dtype(np.int64)))
