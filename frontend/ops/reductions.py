"""Reductions, sorting and searching."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import absolute, maximum, minimum, multiply, square, subtract
from onnxtape.ops.axes import Axis, normalized, normalized_axes, refused
from onnxtape.ops.elementary import sqrt
from onnxtape.ops.promotion import BOOL, INT32, INT64, UINT32, operands, widened
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


def _reduce(op_type: str, t: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = None
    if axis is not None:
        what = op_type.removeprefix("Reduce").lower()
        axes = normalized_axes(axis, B.known_rank(t, what), what)
        if not axes:
            return t
    return B.op(op_type, t, axes, keepdims=int(keepdims))


def _accumulated(op_type: str, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    """A sum or product; of small integers, in int32 or uint32."""
    t = convert_to_tensor(x)
    result = _reduce(op_type, widened(t), axis, keepdims)
    if t.dtype.kind == "u" and t.dtype.itemsize <= 4:
        return B.cast(result, UINT32)
    return result


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over the axes, by default all. Booleans count as int32."""
    return _accumulated("ReduceSum", x, axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over the axes, in floating point."""
    return _reduce("ReduceMean", operands(x, floating=True)[0], axis, keepdims)


def average(x: Any, axis: Axis = None, weights: Any = None) -> Tensor:
    """The weighted mean.

    Args:
        weights: of x's shape; or of the one axis that is averaged.
    """
    if weights is None:
        return mean(x, axis)
    t, w = operands(x, weights, floating=True)
    rank = B.known_rank(t, "average")
    if B.known_rank(w, "average") == 1 < rank:
        axes = normalized_axes(axis, rank, "average")
        if len(axes) != 1:
            raise refused("average: weights of rank 1 need the one axis that they belong to")
        w = B.op("Unsqueeze", w, [a for a in range(rank) if a != axes[0]])
    return B.op("Div", sum(multiply(t, w), axis), sum(B.expand_like(w, t), axis))


def prod(
    x: Any, axis: Axis = None, keepdims: bool = False, dtype: npt.DTypeLike | None = None
) -> Tensor:
    """The product over the axes. Booleans count as int32.

    Args:
        dtype: multiply in this one.
    """
    return _accumulated("ReduceProd", convert_to_tensor(x, dtype), axis, keepdims)


def _extreme(op_type: str, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    t = convert_to_tensor(x)
    return B.cast(_reduce(op_type, widened(t), axis, keepdims), t.dtype)


def max(x: Any, axis: Axis = None, keepdims: bool = False, initial: Any = None) -> Tensor:
    """The largest element over the axes; ties share the gradient.

    Args:
        initial: the result is at least this.
    """
    largest = _extreme("ReduceMax", x, axis, keepdims)
    return largest if initial is None else maximum(largest, _like(initial, largest))


def min(x: Any, axis: Axis = None, keepdims: bool = False, initial: Any = None) -> Tensor:
    """The smallest element over the axes; ties share the gradient.

    Args:
        initial: the result is at most this.
    """
    smallest = _extreme("ReduceMin", x, axis, keepdims)
    return smallest if initial is None else minimum(smallest, _like(initial, smallest))


def _like(number: Any, t: Tensor) -> Any:
    """What a number is among booleans."""
    return convert_to_tensor(number, BOOL) if t.dtype == BOOL else number


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The variance (divided by the count) over the axes."""
    (t,) = operands(x, floating=True)
    return mean(square(subtract(t, mean(t, axis, keepdims=True))), axis, keepdims)


def std(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The standard deviation (divided by the count) over the axes.

    Where all elements are equal its derivative is zero.
    """
    variance = var(x, axis, keepdims)
    apart = B.op("Greater", variance, 0.0)
    return B.op("Where", apart, sqrt(B.op("Where", apart, variance, 1.0)), variance)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))), without overflow."""
    return _reduce("ReduceLogSumExp", operands(x, floating=True)[0], axis, keepdims)


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The norm of vectors along an axis, or (ord None or "fro") of all elements over several.

    Args:
        ord: of a vector: 2 (the default), 1, or plus or minus infinity.
        axis: by default all.

    Raises:
        ValueError: another `ord`; matrix norms other than Frobenius's are not here.
    """
    (t,) = operands(x, floating=True)
    axes = normalized_axes(axis, B.known_rank(t, "norm"), "norm")
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return _reduce("ReduceL2", t, axes, keepdims)
    if len(axes) != 1 or ord not in (1, np.inf, -np.inf):
        raise ValueError(
            f"norm: no norm over {len(axes)} axes with ord={ord!r}; over one axis, ord is None, "
            "1, 2, inf or -inf, over two, None or 'fro'"
        )
    if ord == 1:
        return _reduce("ReduceL1", t, axes, keepdims)
    return (max if ord > 0 else min)(absolute(t), axes, keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements hold; of no elements, True."""
    fails = B.op("Not", convert_to_tensor(x, bool))
    return B.op("Not", B.cast(sum(fails, axis, keepdims), BOOL))


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether one element holds; of no elements, False."""
    return B.cast(sum(convert_to_tensor(x, bool), axis, keepdims), BOOL)


def count_nonzero(x: Any, axis: Axis = None) -> Tensor:
    """How many elements are not zero, as int32."""
    return sum(convert_to_tensor(x, bool), axis)


def _arg(op_type: str, x: Any, axis: int | None, keepdims: bool, dtype: npt.DTypeLike) -> Tensor:
    what = op_type.lower()
    t = widened(convert_to_tensor(x))
    rank = B.known_rank(t, what)
    if 0 in (B.shape(t) or ()):
        raise refused(f"{what}: a tensor of shape {format_shape(B.shape(t))} has no elements")
    if axis is None or rank == 0:
        flat = B.op(op_type, B.op("Reshape", t, [-1]), axis=0, keepdims=0)
        found = B.op("Reshape", flat, [1] * rank) if keepdims and rank else flat
    else:
        axis = normalized(axis, rank, what)
        found = B.op(op_type, t, axis=axis, keepdims=int(keepdims))
    return B.cast(found, np.dtype(dtype))


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
    t = convert_to_tensor(x)
    dim = B.dim(t, normalized(-1, B.known_rank(t, "top_k"), "top_k"))
    if k < 0 or (isinstance(dim, int) and k > dim):
        raise refused(f"top_k: the last axis has size {dim}, so there are no {k} largest")
    values, indices = B.op_multi("TopK", widened(t), [k], outputs=2, axis=-1, sorted=int(sorted))
    return B.cast(values, t.dtype), B.cast(indices, INT32)


def cumsum(x: Any, axis: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Partial sums along an axis, by default of the flat tensor. Booleans count as int32.

    Args:
        dtype: sum in this one.
    """
    t = convert_to_tensor(x, dtype)
    wide = widened(t)
    if axis is None:
        wide, axis = B.op("Reshape", wide, [-1]), 0
    else:
        axis = normalized(axis, B.known_rank(t, "cumsum"), "cumsum")
    sums = B.op("CumSum", wide, B.scalar(axis, INT64))
    return sums if t.dtype == BOOL else B.cast(sums, t.dtype)
