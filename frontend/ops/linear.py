"""Products of matrices and tensors."""

from __future__ import annotations

from typing import Any

from onnxtape.engine import B
from onnxtape.ops.arithmetic import multiply, operands
from onnxtape.ops.shapes import normalized, reshape, shape, transpose
from onnxtape.tensor import Tensor

__all__ = ["dot", "einsum", "matmul", "outer", "tensordot"]


def matmul(x1: Any, x2: Any) -> Tensor:
    """NumPy's matmul: leading dimensions broadcast, vectors are promoted."""
    return B.op("MatMul", *operands(x1, x2))


def dot(x1: Any, x2: Any) -> Tensor:
    """NumPy's dot: the last axis of x1 with the second-to-last of x2 (its last, for a vector)."""
    x, y = operands(x1, x2)
    rank_x, rank_y = B.known_rank(x, "dot"), B.known_rank(y, "dot")
    if rank_x == 0 or rank_y == 0:
        return multiply(x, y)
    if rank_y <= 2:
        return B.op("MatMul", x, y)
    return tensordot(x, y, ([rank_x - 1], [rank_y - 2]))


def outer(x1: Any, x2: Any) -> Tensor:
    """The products of every element of one with every element of the other: a matrix."""
    return multiply(reshape(x1, (-1, 1)), reshape(x2, (1, -1)))


def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Tensor:
    """The sum of products over pairs of axes, as numpy.tensordot."""
    x, y = operands(x1, x2)
    rank_x, rank_y = B.known_rank(x, "tensordot"), B.known_rank(y, "tensordot")
    if isinstance(axes, int):
        axes = (list(range(rank_x - axes, rank_x)), list(range(axes)))
    over_x, over_y = ([a] if isinstance(a, int) else list(a) for a in axes)
    over_x = [normalized(a, rank_x) for a in over_x]
    over_y = [normalized(a, rank_y) for a in over_y]
    free_x = [a for a in range(rank_x) if a not in over_x]
    free_y = [a for a in range(rank_y) if a not in over_y]
    dims_x, dims_y = shape(x), shape(y)
    size: Any = 1
    for a in over_y:
        size = dims_y[a] * size
    left = reshape(transpose(x, [*free_x, *over_x]), (-1, size))
    right = reshape(transpose(y, [*over_y, *free_y]), (size, -1))
    out = [*(dims_x[a] for a in free_x), *(dims_y[a] for a in free_y)]
    return reshape(B.op("MatMul", left, right), out)


def einsum(subscripts: str, *xs: Any) -> Tensor:
    """Einstein summation."""
    return B.op("Einsum", *operands(*xs), equation=subscripts)
