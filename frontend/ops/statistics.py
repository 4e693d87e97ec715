"""Reductions that pass over NaNs, order statistics, differences and cumulative products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.dims import format_shape
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import subtract
from onnxtape.ops.axes import Axis, normalized, normalized_axes, refused
from onnxtape.ops.creation import stop_gradient
from onnxtape.ops.logic import not_equal
from onnxtape.ops.promotion import BOOL, INT64, operands
from onnxtape.ops.reductions import argmax, argmin, cumsum, max, mean, min, prod, sum
from onnxtape.ops.shapes import expand_dims, moveaxis, ravel, reshape, shape
from onnxtape.ops.sorting import ascending
from onnxtape.tensor import Tensor

__all__ = [
    "amax",
    "amin",
    "cdist",
    "corrcoef",
    "correlate",
    "diff",
    "median",
    "nanargmax",
    "nanargmin",
    "nancumsum",
    "nanmax",
    "nanmean",
    "nanmedian",
    "nanmin",
    "nanpercentile",
    "nanprod",
    "nanquantile",
    "nanstd",
    "nansum",
    "nanvar",
    "percentile",
    "ptp",
    "quantile",
    "trapezoid",
]

amax = max
amin = min


def ptp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element minus the smallest ("peak to peak")."""
    return subtract(max(x, axis, keepdims), min(x, axis, keepdims))


# Without NaNs -----------------------------------------------------------------------------------


def without_nans(t: Tensor, number: float) -> Tensor:
    """The tensor with a number in the place of NaNs."""
    if not is_float(t.dtype):
        return t
    return B.op("Where", B.op("IsNaN", t), B.scalar(number, t.dtype), t)


def _counted(t: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """How many elements are no NaNs, in the tensor's dtype."""
    return sum(B.cast(B.op("Not", B.op("IsNaN", t)), t.dtype), axis, keepdims)


def nansum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum of what is no NaN."""
    return sum(without_nans(convert_to_tensor(x), 0.0), axis, keepdims)


def nanprod(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product of what is no NaN."""
    return prod(without_nans(convert_to_tensor(x), 1.0), axis, keepdims)


def nanmean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean of what is no NaN; a NaN where there is nothing else."""
    (t,) = operands(x, floating=True)
    return B.op("Div", nansum(t, axis, keepdims), _counted(t, axis, keepdims))


def nanvar(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The variance (divided by the count) of what is no NaN."""
    (t,) = operands(x, floating=True)
    apart = B.op("Sub", t, nanmean(t, axis, keepdims=True))
    return nanmean(B.op("Mul", apart, apart), axis, keepdims)


def nanstd(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The standard deviation (divided by the count) of what is no NaN."""
    return B.op("Sqrt", nanvar(x, axis, keepdims))


def nanmax(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element that is no NaN; a NaN where there is none."""
    return _extreme(max, x, axis, keepdims, -np.inf)


def nanmin(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element that is no NaN; a NaN where there is none."""
    return _extreme(min, x, axis, keepdims, np.inf)


def _extreme(
    reduce: Callable[..., Tensor], x: Any, axis: Axis, keepdims: bool, least: float
) -> Tensor:
    t = convert_to_tensor(x)
    if not is_float(t.dtype):
        return reduce(t, axis, keepdims)
    found = reduce(without_nans(t, least), axis, keepdims)
    none = B.op("Equal", _counted(t, axis, keepdims), 0.0)
    return B.op("Where", none, B.scalar(np.nan, t.dtype), found)


def nanargmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (int32) of the largest element that is no NaN; -1 where there is none."""
    return _place(argmax, x, axis, keepdims, -np.inf)


def nanargmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (int32) of the smallest element that is no NaN; -1 where there is none."""
    return _place(argmin, x, axis, keepdims, np.inf)


def _place(
    search: Callable[..., Tensor], x: Any, axis: int | None, keepdims: bool, least: float
) -> Tensor:
    t = convert_to_tensor(x)
    if not is_float(t.dtype):
        return search(t, axis, keepdims)
    found = search(without_nans(t, least), axis, keepdims)
    none = B.op("Equal", _counted(t, axis, keepdims), 0.0)
    return B.op("Where", none, B.scalar(-1, found.dtype), found)


def nancumsum(x: Any, axis: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Partial sums along an axis, by default of the flat tensor, NaNs counting as 0."""
    t = convert_to_tensor(x, dtype)
    return cumsum(without_nans(t, 0.0), axis)


# Order statistics -------------------------------------------------------------------------------

_METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(
    x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """The q-quantiles over the axes, by default of all elements.

    Args:
        q: in [0, 1]: a number, or a vector of them, which becomes the result's first axis.
        method: what is taken between two elements: "linear" interpolation, the "lower", the
            "higher", the "nearest" (of equally near ones, the one at the even index), or the
            "midpoint".

    Returns:
        In floating point; a NaN where one is among the elements.

    Raises:
        ValueError: another method.
    """
    return _quantile(x, q, axis, method, keepdims, "quantile", skip=False)


def nanquantile(
    x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` of what is no NaN; a NaN where there is nothing else."""
    return _quantile(x, q, axis, method, keepdims, "nanquantile", skip=True)


def percentile(
    x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` for q in [0, 100]."""
    return _quantile(x, _hundredths(q), axis, method, keepdims, "percentile", skip=False)


def nanpercentile(
    x: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`nanquantile` for q in [0, 100]."""
    return _quantile(x, _hundredths(q), axis, method, keepdims, "nanpercentile", skip=True)


def _hundredths(q: Any) -> Any:
    if isinstance(q, Tensor):
        return B.op("Div", B.cast(q, np.dtype(np.float64)), 100.0)
    return np.asarray(q, np.float64) / 100.0


def median(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The median over the axes, by default of all elements, in floating point."""
    return _quantile(x, 0.5, axis, "linear", keepdims, "median", skip=False)


def nanmedian(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The median of what is no NaN; a NaN where there is nothing else."""
    return _quantile(x, 0.5, axis, "linear", keepdims, "nanmedian", skip=True)


def _quantile(
    x: Any, q: Any, axis: Axis, method: str, keepdims: bool, what: str, skip: bool
) -> Tensor:
    if method not in _METHODS:
        names = ", ".join(map(repr, _METHODS))
        raise ValueError(f"{what}: method is one of {names}, not {method!r}")
    (t,) = operands(x, floating=True)
    # In double precision, which tells all places of the largest tensor apart.
    wanted = convert_to_tensor(np.asarray(q, np.float64) if not isinstance(q, Tensor) else q)
    wanted = B.cast(wanted, np.dtype(np.float64))
    scalar = B.known_rank(wanted, what) == 0
    rank = B.known_rank(t, what)
    axes = normalized_axes(axis, rank, what)
    kept = [a for a in range(rank) if a not in axes]
    rows = moveaxis(t, kept, list(range(len(kept))))
    rows = reshape(rows, [*shape(rows)[: len(kept)], -1])
    last = len(kept)

    order = ascending(stop_gradient(rows), last)
    ordered = B.op("GatherElements", rows, order, axis=last)
    nan = B.op("IsNaN", rows)
    if skip:
        # NaNs count as infinities where they are ordered, so they come among these or after.
        ordered = _with_nans_last(ordered)
        valid = B.op("ReduceSum", B.cast(B.op("Not", nan), INT64), [last], keepdims=1)
    else:
        valid = B.op("Expand", B.dim_tensor(rows, last), [1] * (last + 1))
    first_to_last = B.cast(B.op("Max", B.op("Sub", valid, 1), 0), np.dtype(np.float64))
    place = B.op("Mul", first_to_last, ravel(wanted))
    low, high = B.op("Floor", place), B.op("Ceil", place)
    if method in ("lower", "higher", "nearest"):
        chosen = {"lower": low, "higher": high, "nearest": B.op("Round", place)}[method]
        found = _picked(ordered, chosen, rows, last)
    else:
        below, above = (_picked(ordered, side, rows, last) for side in (low, high))
        part = B.op("Sub", place, low)
        if method == "midpoint":
            part = B.op("Mul", B.op("Ceil", part), 0.5)
        share = B.cast(part, t.dtype)
        difference = B.op("Sub", above, below)
        # An infinity minus itself; nothing lies between equals.
        difference = B.op("Where", B.op("Equal", above, below), B.scalar(0.0, t.dtype), difference)
        found = B.op("Add", below, B.op("Mul", difference, share))
    lost = B.cast(B.op("ReduceMax", B.cast(nan, np.dtype(np.int32)), [last], keepdims=1), BOOL)
    if skip:
        lost = B.op("Equal", valid, 0)
    found = B.op("Where", lost, B.scalar(np.nan, t.dtype), found)
    found = B.op("Squeeze", found, [last]) if scalar else moveaxis(found, last, 0)
    if keepdims:
        found = expand_dims(found, [a if scalar else a + 1 for a in axes])
    return found


def _with_nans_last(ordered: Tensor) -> Tensor:
    """NaNs, which were put among the infinities, as infinities: those are then all alike."""
    return without_nans(ordered, np.inf)


def _picked(ordered: Tensor, places: Tensor, rows: Tensor, axis: int) -> Tensor:
    """The elements at these places of every row."""
    indices = B.cast(places, INT64)
    if axis:
        lead = [B.dim_tensor(rows, a) for a in range(axis)]
        indices = B.op("Expand", indices, B.op("Concat", *lead, [1], axis=0))
    return B.op("GatherElements", ordered, indices, axis=axis)


# Along an axis ----------------------------------------------------------------------------------


def _along(t: Tensor, axis: int, start: int, end: int) -> Tensor:
    return B.op("Slice", t, [start], [end], [axis])


def diff(a: Any, n: int = 1, axis: int = -1) -> Tensor:
    """The n-th differences between neighbours along an axis; of booleans, whether they differ."""
    t = convert_to_tensor(a)
    axis = normalized(axis, B.known_rank(t, "diff"), "diff")
    if n < 0:
        raise ValueError(f"diff: n is 0 or more, not {n}")
    end = np.iinfo(np.int64).max
    for _ in range(n):
        after, before = _along(t, axis, 1, end), _along(t, axis, 0, -1)
        t = not_equal(after, before) if t.dtype == BOOL else B.op("Sub", after, before)
    return t


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Tensor:
    """The integral along an axis by the trapezoidal rule.

    Args:
        x: where the values are: of y's shape, or a vector along the axis.
        dx: the distance between them, where x is not given.
    """
    (t,) = operands(y, floating=True)
    rank = B.known_rank(t, "trapezoid")
    axis = normalized(axis, rank, "trapezoid")
    end = np.iinfo(np.int64).max
    pairs = B.op("Add", _along(t, axis, 1, end), _along(t, axis, 0, -1))
    if x is None:
        width = convert_to_tensor(dx, t.dtype)
    else:
        places = convert_to_tensor(x, t.dtype)
        is_vector = B.known_rank(places, "trapezoid") == 1
        width = diff(places, axis=0 if is_vector else axis)
        if is_vector:
            width = expand_dims(width, list(range(1, rank - axis)))
    return sum(B.op("Mul", B.op("Mul", pairs, width), 0.5), axis)


def corrcoef(x: Any) -> Tensor:
    """The correlation coefficients of variables (rows) over observations (columns)."""
    (t,) = operands(x, floating=True)
    rank = B.known_rank(t, "corrcoef")
    if rank not in (1, 2):
        raise refused(f"corrcoef takes a vector or a matrix, not {format_shape(B.shape(t))}")
    t = B.op("Sub", t, mean(t, -1, keepdims=True))
    rows = B.op("Unsqueeze", t, [0]) if rank == 1 else t
    products = B.op("MatMul", rows, B.op("Transpose", rows, perm=[1, 0]))
    sizes = B.op("ReduceL2", rows, [1], keepdims=1)
    found = B.op("Div", B.op("Div", products, sizes), B.op("Transpose", sizes, perm=[1, 0]))
    found = B.op("Clip", found, -1.0, 1.0)
    return B.op("Squeeze", found, [0, 1]) if rank == 1 else found


def correlate(x1: Any, x2: Any, mode: str = "valid") -> Tensor:
    """The sums of products of a vector with another one at all offsets, as numpy.correlate.

    Args:
        mode: "valid": where they overlap as a whole; "same": as many as the longer one has
            elements; "full": wherever they overlap.
    """
    x, y = operands(x1, x2, long=True)
    m, n = (B.dim(t, 0) if B.known_rank(t, "correlate") == 1 else None for t in (x, y))
    if not isinstance(m, int) or not isinstance(n, int) or not m or not n:
        raise refused(
            f"correlate takes two vectors whose sizes are known, not {format_shape(B.shape(x))} "
            f"and {format_shape(B.shape(y))}"
        )
    if mode not in ("valid", "same", "full"):
        raise ValueError(f"correlate: mode is 'valid', 'same' or 'full', not {mode!r}")
    longer, shorter, size = (x, y, n) if m >= n else (y, x, m)
    before, after = {
        "valid": (0, 0),
        # The middle of the whole, nearer to its start.
        "same": (size // 2, size - 1 - size // 2),
        "full": (size - 1, size - 1),
    }[mode]
    found = B.op(
        "Conv",
        B.op("Unsqueeze", longer, [0, 1]),
        B.op("Unsqueeze", shorter, [0, 1]),
        pads=[before, after],
    )
    found = B.op("Squeeze", found, [0, 1])
    if longer is y:
        found = B.op("Slice", found, [-1], [np.iinfo(np.int64).min], [0], [-1])
    return found


def cdist(x: Any, y: Any) -> Tensor:
    """The Euclidean distances (..., m, n) between points (..., m, d) and points (..., n, d).

    By their differences, so that points close to each other keep all digits.
    """
    a, b = operands(x, y, floating=True)
    apart = B.op("Sub", B.op("Unsqueeze", a, [-2]), B.op("Unsqueeze", b, [-3]))
    return B.op("ReduceL2", apart, [-1], keepdims=0)
