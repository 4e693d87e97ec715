"""Diagonals, triangles and matrices made of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.dims import format_shape
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import minimum, multiply
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.promotion import BOOL, INT64, numeric, operands, widened
from onnxtape.ops.reductions import sum
from onnxtape.ops.shapes import expand_dims, moveaxis, ravel, reshape, shape
from onnxtape.tensor import Tensor

__all__ = [
    "cross",
    "diag",
    "diagflat",
    "diagonal",
    "identity",
    "kron",
    "trace",
    "tri",
    "tril",
    "triu",
    "vander",
]


def identity(n: int, dtype: npt.DTypeLike | None = None) -> Tensor:
    """An (n, n) matrix with ones on its diagonal."""
    return B.constant(np.eye(n).astype(dtype or "float32"))


def tri(N: int, M: int | None = None, k: int = 0, dtype: npt.DTypeLike | None = None) -> Tensor:
    """An (N, M) matrix with ones on and below diagonal k."""
    return B.constant(np.tri(N, M, k).astype(dtype or "float32"))


def tril(x: Any, k: int = 0) -> Tensor:
    """The matrices in the last two axes with zeros above diagonal k."""
    return _triangle(x, k, upper=0)


def triu(x: Any, k: int = 0) -> Tensor:
    """The matrices in the last two axes with zeros below diagonal k."""
    return _triangle(x, k, upper=1)


def _triangle(x: Any, k: int, upper: int) -> Tensor:
    t = convert_to_tensor(x)
    name = "triu" if upper else "tril"
    if B.known_rank(t, name) < 2:
        raise refused(f"{name} takes matrices, not a tensor of {format_shape(B.shape(t))}")
    # Trilu has kernels for few dtypes.
    made = t.dtype if is_float(t.dtype) or t.dtype in (BOOL, INT64) else INT64
    return B.cast(B.op("Trilu", B.cast(t, made), B.scalar(k, INT64), upper=upper), t.dtype)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements on diagonal `offset` of the matrices in two axes, along a last axis.

    Raises:
        ShapeError: there are no two different axes.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "diagonal")
    axes = [normalized(a, rank, "diagonal") for a in (axis1, axis2)]
    if axes[0] == axes[1]:
        raise refused(f"diagonal takes two different axes, not {axis1} and {axis2}")
    t = moveaxis(t, axes, [-2, -1])
    *outer, rows, columns = shape(t)
    first = offset if offset >= 0 else -offset * columns
    count = _least(rows + min(offset, 0), columns - max(offset, 0))
    flat = reshape(t, [*outer, rows * columns])
    # From each element of a diagonal it is one row and one column to the next.
    step = columns + 1
    steps, last = _vector(step), _vector(first + _least(count, rows) * step)
    return B.op("Slice", flat, _vector(first), last, [len(outer)], steps)


def _least(a: Any, b: Any) -> Any:
    """The smaller of two sizes, and no less than 0."""
    if isinstance(a, int) and isinstance(b, int):
        return max(min(a, b), 0)
    return B.op("Max", B.cast(minimum(a, b), INT64), B.scalar(0, INT64))


def _vector(size: Any) -> Any:
    return [size] if isinstance(size, int) else B.op("Reshape", B.cast(size, INT64), [1])


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal. Booleans and small integers count as int32."""
    return sum(diagonal(x, offset, axis1, axis2), -1)


def diag(x: Any, k: int = 0) -> Tensor:
    """Diagonal k of a matrix; or, of a vector, the matrix with the vector on its diagonal k.

    Raises:
        ShapeError: x is neither.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "diag")
    if rank == 2:
        return diagonal(t, k)
    if rank != 1:
        raise refused(f"diag takes a vector or a matrix, not {format_shape(B.shape(t))}")
    end = k if k >= 0 else -k
    wide = widened(t)
    values = B.op("Pad", wide, [0, end]) if end else wide
    size = shape(values)[0]
    places = B.op("Range", B.scalar(0, INT64), convert_to_tensor(size, INT64), B.scalar(1, INT64))
    rows, columns = B.op("Unsqueeze", places, [1]), B.op("Unsqueeze", places, [0])
    on_diagonal = B.op("Equal", B.op("Add", rows, k) if k else rows, columns)
    # Its elements go by row above the main diagonal, by column below.
    spread = B.op("Unsqueeze", values, [1 if k >= 0 else 0])
    return B.cast(B.op("Where", on_diagonal, spread, B.scalar(0, wide.dtype)), t.dtype)


def diagflat(x: Any, k: int = 0) -> Tensor:
    """The matrix with all elements of x on its diagonal k."""
    return diag(ravel(x), k)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector's elements in columns (Vandermonde's matrix), descending by default.

    Args:
        N: the number of columns; by default as many as elements, whose number is then known.
    """
    (t,) = numeric(x)
    count = B.dim(t, 0) if N is None else N
    if B.known_rank(t, "vander") != 1 or not isinstance(count, int):
        raise refused(
            f"vander takes a vector, and N where its size is not known, not "
            f"{format_shape(B.shape(t))}"
        )
    powers = np.arange(count) if increasing else np.arange(count)[::-1]
    columns = B.op("Pow", B.op("Unsqueeze", widened(t), [1]), powers.astype(widened(t).dtype))
    return B.cast(columns, t.dtype)


def kron(x1: Any, x2: Any) -> Tensor:
    """Kronecker's product: every element of x1 times the whole of x2, as blocks."""
    x, y = operands(x1, x2)
    rank = max(B.known_rank(x, "kron"), B.known_rank(y, "kron"))
    x, y = (expand_dims(t, list(range(rank - B.known_rank(t, "kron")))) for t in (x, y))
    sizes = [a * b for a, b in zip(shape(x), shape(y), strict=True)]
    left = expand_dims(x, list(range(1, 2 * rank, 2)))
    right = expand_dims(y, list(range(0, 2 * rank, 2)))
    return reshape(multiply(left, right), sizes)


def cross(
    x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Tensor:
    """The cross product of vectors of 3 (or 2) elements.

    Args:
        axisa, axisb, axisc: the vectors' axis in x1, in x2 and in the result.
        axis: all three of them.

    Raises:
        ShapeError: vectors of another size.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = numeric(x1, x2)
    x, y = moveaxis(x, axisa, -1), moveaxis(y, axisb, -1)
    sizes = [B.dim(t, B.known_rank(t, "cross") - 1) for t in (x, y)]
    if not set(sizes) <= {2, 3}:
        raise refused(
            f"cross takes vectors of 2 or 3 elements, not {format_shape(B.shape(x))} and "
            f"{format_shape(B.shape(y))}"
        )
    a, b = _components(x, sizes[0]), _components(y, sizes[1])

    def minor(i: int, j: int) -> Tensor:
        return B.op("Sub", B.op("Mul", a[i], b[j]), B.op("Mul", a[j], b[i]))

    if sizes == [2, 2]:
        return B.op("Squeeze", minor(0, 1), [-1])
    whole = B.op("Concat", minor(1, 2), minor(2, 0), minor(0, 1), axis=-1)
    return moveaxis(whole, -1, axisc)


def _components(t: Tensor, size: Any) -> list[Tensor]:
    """Three slices of one element along the last axis, the third 0 where there are two."""
    found = [B.op("Slice", t, [i], [i + 1], [-1]) for i in range(size)]
    return found if size == 3 else [*found, B.scalar(0, t.dtype)]
