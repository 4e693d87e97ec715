"""Products of matrices and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape import context
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.errors import located
from onnxtape.engine import B
from onnxtape.errors import DtypeError
from onnxtape.ops.arithmetic import multiply
from onnxtape.ops.axes import normalized_axes, refused
from onnxtape.ops.creation import static_shape
from onnxtape.ops.promotion import BOOL, operands, widened
from onnxtape.ops.shapes import ravel, reshape, shape, transpose
from onnxtape.tensor import Tensor

__all__ = ["dot", "einsum", "inner", "matmul", "outer", "tensordot", "vdot"]


def _product(x: Tensor, y: Tensor) -> Tensor:
    """MatMul, whose kernels take no small integers."""
    return B.cast(B.op("MatMul", widened(x), widened(y)), x.dtype)


def _of_bytes(*xs: Any) -> bool:
    """Whether these are tensors of int8, whose products Keras sums in int32 here."""
    return all(np.dtype(getattr(x, "dtype", bool)) == np.int8 for x in xs)


def matmul(x1: Any, x2: Any) -> Tensor:
    """NumPy's matmul: leading dimensions broadcast, vectors are promoted.

    Tensors of int8 give one of int32, as in `einsum`.
    """
    x, y = operands(x1, x2)
    if _of_bytes(x1, x2):
        x, y = widened(x), widened(y)
    return _product(x, y)


def dot(x1: Any, x2: Any) -> Tensor:
    """NumPy's dot: the last axis of x1 with the second-to-last of x2 (its last, for a vector)."""
    x, y = operands(x1, x2)
    rank_x, rank_y = B.known_rank(x, "dot"), B.known_rank(y, "dot")
    if rank_x == 0 or rank_y == 0:
        return multiply(x, y)
    if rank_y <= 2:
        return _product(x, y)
    return tensordot(x, y, ([rank_x - 1], [rank_y - 2]))


def outer(x1: Any, x2: Any) -> Tensor:
    """The products of every element of one with every element of the other: a matrix."""
    return multiply(reshape(x1, (-1, 1)), reshape(x2, (1, -1)))


def inner(x1: Any, x2: Any) -> Tensor:
    """NumPy's inner: the sums of products over the last axis of both."""
    x, y = operands(x1, x2)
    if B.known_rank(x, "inner") == 0 or B.known_rank(y, "inner") == 0:
        return multiply(x, y)
    return tensordot(x, y, (-1, -1))


def vdot(x1: Any, x2: Any) -> Tensor:
    """The sum of the products of all elements of one with those of the other: a scalar."""
    return dot(ravel(x1), ravel(x2))


def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Tensor:
    """The sum of products over pairs of axes, as numpy.tensordot."""
    x, y = operands(x1, x2)
    rank_x, rank_y = B.known_rank(x, "tensordot"), B.known_rank(y, "tensordot")
    if isinstance(axes, int):
        if axes > min(rank_x, rank_y):
            raise refused(f"tensordot: tensors of rank {rank_x} and {rank_y} have no {axes} pairs")
        axes = (range(rank_x - axes, rank_x), range(axes))
    over_x = normalized_axes(axes[0], rank_x, "tensordot")
    over_y = normalized_axes(axes[1], rank_y, "tensordot")
    pairs = zip(over_x, over_y, strict=False)
    sizes = [(B.dim(x, a), B.dim(y, b)) for a, b in pairs]
    if len(over_x) != len(over_y) or any(
        a != b for a, b in sizes if isinstance(a, int) and isinstance(b, int)
    ):
        raise refused(
            f"tensordot: axes {tuple(over_x)} of {format_shape(B.shape(x))} and {tuple(over_y)} "
            f"of {format_shape(B.shape(y))} do not pair up"
        )
    free_x = [a for a in range(rank_x) if a not in over_x]
    free_y = [a for a in range(rank_y) if a not in over_y]
    dims_x, dims_y = shape(x), shape(y)
    rows, columns = [dims_x[a] for a in free_x], [dims_y[a] for a in free_y]
    summed: Any = 1
    for a in over_y:
        summed = dims_y[a] * summed
    left = reshape(transpose(x, [*free_x, *over_x]), (_count(rows), summed))
    right = reshape(transpose(y, [*over_y, *free_y]), (summed, _count(columns)))
    return reshape(_product(left, right), [*rows, *columns])


def _count(dims: list[Any]) -> int:
    """The product of the dimensions; -1, for Reshape to find out, where it is not known."""
    known = static_shape(dims)
    return -1 if known is None else int(np.prod(known, dtype=np.int64))


def einsum(subscripts: str, *xs: Any) -> Tensor:
    """Einstein summation, as numpy.einsum with subscripts."""
    tensors = operands(*xs)
    if _of_bytes(*xs):
        tensors = [*map(widened, tensors)]
    if tensors[0].dtype == BOOL:
        raise DtypeError(located("einsum takes numbers, not booleans", context.provenance()))
    result = B.op("Einsum", *map(widened, tensors), equation=subscripts)
    return B.cast(result, tensors[0].dtype)
