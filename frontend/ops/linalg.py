"""Linear systems: solving them, determinants, inverses and Cholesky's decomposition.

ONNX has no operators for these. They are written out row by row, so matrices have a size that is
known while tracing, and the graph grows with it: meant for tens of rows rather than hundreds.
Gradients are those of the steps. Matrices lie in the last two axes; axes before them are batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B
from onnxtape.ops.axes import refused
from onnxtape.ops.creation import stop_gradient
from onnxtape.ops.linear import matmul
from onnxtape.ops.promotion import operands
from onnxtape.ops.reductions import norm as norm
from onnxtape.ops.shapes import swapaxes
from onnxtape.tensor import Tensor

__all__ = [
    "cholesky",
    "cholesky_inverse",
    "det",
    "inv",
    "logdet",
    "slogdet",
    "solve",
    "solve_triangular",
]


def _square(t: Tensor, what: str) -> int:
    """The number of rows.

    Raises:
        ShapeError: the last two axes are no square of a known size.
    """
    rank = B.known_rank(t, what)
    sizes = (B.shape(t) or ())[-2:]
    if rank < 2 or sizes[0] != sizes[1] or not isinstance(sizes[0], int):
        raise refused(f"{what} takes square matrices of known size, not {format_shape(B.shape(t))}")
    return sizes[0]


def _row(t: Tensor, k: int, end: int | None = None) -> Tensor:
    """Row k (to row `end`), still of rank 2."""
    return B.op("Slice", t, [k], [k + 1 if end is None else end], [-2])


def _column(t: Tensor, k: int) -> Tensor:
    return B.op("Slice", t, [k], [k + 1], [-1])


def _unit(size: int, k: int) -> Any:
    """The k-th unit vector as a column of booleans."""
    return (np.arange(size) == k)[:, None]


def _eliminated(whole: Tensor, size: int, exact: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The rest of each row after the matrix in its first columns was made the identity.

    Gauss and Jordan's elimination; each pivot is the largest element of its column (N. Higham,
    Accuracy and Stability of Numerical Algorithms, 14.4).

    Args:
        exact: whether a pivot of 0 makes infinities, as it must where the system is solved.

    Returns:
        The rows, the pivots (..., 1, 1), and whether rows changed places for them.
    """
    rows = np.arange(size)[:, None]
    one = B.scalar(1.0, whole.dtype)
    pivots, swaps = [], []
    for k in range(size):
        below = B.op("Abs", B.op("Slice", _column(stop_gradient(whole), k), [k], [size], [-2]))
        place = B.op("Add", B.op("ArgMax", below, axis=-2, keepdims=1), k)
        there = B.op("Equal", B.constant(rows), place)
        chosen = B.op("Where", there, whole, B.scalar(0.0, whole.dtype))
        chosen = B.op("ReduceSum", chosen, [-2], keepdims=1)
        swapped = B.op("Where", there, _row(whole, k), whole)
        swapped = B.op("Where", _unit(size, k), chosen, swapped)
        pivot = _column(chosen, k)
        divisor = pivot if exact else B.op("Where", B.op("Equal", pivot, 0.0), one, pivot)
        scaled = B.op("Div", chosen, divisor)
        # From the row itself what leaves it scaled; from the others what makes their element 0.
        kept = B.cast(B.constant(_unit(size, k)), whole.dtype)
        factors = B.op("Sub", _column(swapped, k), kept)
        whole = B.op("Sub", swapped, B.op("Mul", factors, scaled))
        pivots.append(pivot)
        swaps.append(B.op("Not", B.op("Equal", place, k)))
    return whole, pivots, swaps


def solve(a: Any, b: Any) -> Tensor:
    """x with a @ x = b.

    Args:
        a: (..., n, n). A singular matrix gives infinities and NaNs.
        b: (..., n, m); or (n,), one right-hand side.

    Raises:
        ShapeError: `a` is not square, or `b` has another number of rows.
    """
    left, right = operands(a, b, floating=True)
    size = _square(left, "solve")
    vector = B.known_rank(right, "solve") == 1
    right = B.op("Unsqueeze", right, [1]) if vector else right
    rows = (B.shape(right) or ())[-2]
    if rows != size:
        raise refused(
            f"solve: {format_shape(B.shape(left))} has {size} rows, and the right-hand side "
            f"{format_shape(B.shape(right))} another number"
        )
    left, right = _alike(left, right)
    whole, _, _ = _eliminated(B.op("Concat", left, right, axis=-1), size, exact=True)
    found = B.op("Slice", whole, [size], [np.iinfo(np.int64).max], [-1])
    return B.op("Squeeze", found, [-1]) if vector else found


def _alike(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the batches of both."""
    if B.rank(left) == B.rank(right) == 2:
        return left, right
    batches = [B.op("Shape", t, end=-2) for t in (left, right)]
    found = []
    for t, other in ((left, batches[1]), (right, batches[0])):
        whole = B.op("Concat", other, [1, 1], axis=0)
        found.append(B.op("Expand", t, whole))
    return found[0], found[1]


def inv(x: Any) -> Tensor:
    """The inverses of matrices (..., n, n); of a singular one, infinities and NaNs.

    Raises:
        ShapeError: they are not square, or of unknown size.
    """
    (t,) = operands(x, floating=True)
    return solve(t, np.eye(_square(t, "inv"), dtype=t.dtype))


def _sign_and_pivots(x: Any, what: str) -> tuple[Tensor, Tensor]:
    """The determinant's sign by the swaps (...,), and the pivots (..., n)."""
    (t,) = operands(x, floating=True)
    _, pivots, swaps = _eliminated(t, _square(t, what), exact=False)
    joined = B.op("Squeeze", B.op("Concat", *pivots, axis=-1), [-2])
    moved = B.cast(B.op("Concat", *swaps, axis=-1), t.dtype)
    signs = B.op("Sub", 1.0, B.op("Mul", moved, 2.0))
    return B.op("ReduceProd", signs, [-2, -1], keepdims=0), joined


def det(x: Any) -> Tensor:
    """The determinants of matrices (..., n, n).

    Raises:
        ShapeError: they are not square, or of unknown size.
    """
    sign, pivots = _sign_and_pivots(x, "det")
    return B.op("Mul", sign, B.op("ReduceProd", pivots, [-1], keepdims=0))


def slogdet(x: Any) -> tuple[Tensor, Tensor]:
    """The sign of the determinant, and the logarithm of its absolute value; 0 and minus infinity
    of a singular matrix. As `det`."""
    sign, pivots = _sign_and_pivots(x, "slogdet")
    signs = B.op("ReduceProd", B.op("Sign", pivots), [-1], keepdims=0)
    logs = B.op("ReduceSum", B.op("Log", B.op("Abs", pivots)), [-1], keepdims=0)
    return B.op("Mul", sign, signs), logs


def logdet(x: Any) -> Tensor:
    """The logarithm of the determinant; a NaN where that is negative. As `det`."""
    sign, logs = slogdet(x)
    nan = B.scalar(np.nan, logs.dtype)
    return B.op("Where", B.op("Less", sign, 0.0), nan, logs)


def solve_triangular(a: Any, b: Any, lower: bool = False) -> Tensor:
    """x with a @ x = b, of the upper triangle of a (or the lower one), by substitution.

    Args:
        a: (..., n, n); the other triangle is not read.
        b: (..., n, m); or (n,), one right-hand side.

    Raises:
        ShapeError: `a` is not square.
    """
    left, right = operands(a, b, floating=True)
    size = _square(left, "solve_triangular")
    vector = B.known_rank(right, "solve_triangular") == 1
    right = B.op("Unsqueeze", right, [1]) if vector else right
    found: list[Tensor] = []
    for k in range(size) if lower else reversed(range(size)):
        row = _row(left, k)
        rest = _row(right, k)
        if found:
            done = B.op("Concat", *found, axis=-2) if len(found) > 1 else found[0]
            part = [0, k] if lower else [k + 1, size]
            known = B.op("Slice", row, [part[0]], [part[1]], [-1])
            rest = B.op("Sub", rest, B.op("MatMul", known, done))
        solved = B.op("Div", rest, _column(row, k))
        found = [*found, solved] if lower else [solved, *found]
    whole = B.op("Concat", *found, axis=-2)
    return B.op("Squeeze", whole, [-1]) if vector else whole


def cholesky(x: Any, upper: bool = False) -> Tensor:
    """The lower triangle l with l @ transpose(l) = x; or (upper) its transpose.

    Args:
        x: symmetric, positive definite matrices (..., n, n), of which the lower triangle is read;
            others give NaNs.

    Raises:
        ShapeError: they are not square, or of unknown size.
    """
    (t,) = operands(x, floating=True)
    size = _square(t, "cholesky")
    columns: list[Tensor] = []
    for k in range(size):
        rest = B.op("Slice", t, [k, k], [size, k + 1], [-2, -1])
        if columns:
            done = B.op("Concat", *columns, axis=-1) if k > 1 else columns[0]
            done = B.op("Slice", done, [k], [size], [-2])
            own = swapaxes(_row(done, 0), -2, -1)
            rest = B.op("Sub", rest, B.op("MatMul", done, own))
        scaled = B.op("Div", rest, B.op("Sqrt", _row(rest, 0)))
        rank = B.known_rank(t, "cholesky")
        pads = [0] * (2 * rank)
        pads[rank - 2] = k
        columns.append(B.op("Pad", scaled, pads) if k else scaled)
    whole = B.op("Concat", *columns, axis=-1)
    return swapaxes(whole, -2, -1) if upper else whole


def cholesky_inverse(x: Any, upper: bool = False) -> Tensor:
    """The inverse of the matrix whose Cholesky decomposition x is.

    Args:
        upper: whether x is the upper triangle.
    """
    (t,) = operands(x, floating=True)
    triangle = swapaxes(t, -2, -1) if upper else t
    inverse = solve_triangular(
        triangle, np.eye(_square(t, "cholesky_inverse"), dtype=t.dtype), True
    )
    return matmul(swapaxes(inverse, -2, -1), inverse)
