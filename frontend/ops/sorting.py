"""Sorting, searching and counting."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.creation import shape_tensor, stop_gradient
from onnxtape.ops.promotion import BOOL, INT32, INT64, numeric, operands, widened
from onnxtape.ops.reductions import max, min
from onnxtape.ops.shapes import ravel, shape
from onnxtape.tensor import Tensor

__all__ = [
    "argpartition",
    "argsort",
    "bincount",
    "digitize",
    "histogram",
    "in_top_k",
    "nonzero",
    "searchsorted",
    "sort",
    "unique",
]

#: What Unique has kernels for, and what it is given for other dtypes.
_UNIQUE = {np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int8), INT64}


def ascending(t: Tensor, axis: int) -> Tensor:
    """The indices (int64) that sort along an axis; equals stay in order.

    NaNs count as infinities, whose order an ordering needs.
    """
    keys = widened(t)
    if is_float(t.dtype):
        keys = B.op("Where", B.op("IsNaN", t), B.scalar(np.inf, t.dtype), t)
    size = B.dim_tensor(t, axis)
    return B.op_multi("TopK", keys, size, outputs=2, axis=axis, largest=0, sorted=1)[1]


def argsort(x: Any, axis: int | None = -1) -> Tensor:
    """The indices (int32) that sort along an axis, or (None) the flat tensor; ties in order."""
    t = ravel(x) if axis is None else convert_to_tensor(x)
    if B.known_rank(t, "argsort") == 0:
        return B.scalar(0, INT32)
    place = normalized(axis or 0, B.known_rank(t, "argsort"), "argsort")
    return B.cast(ascending(stop_gradient(t), place), INT32)


def sort(x: Any, axis: int | None = -1) -> Tensor:
    """The elements in ascending order along an axis, or (None) all of them; NaNs at the end."""
    t = ravel(x) if axis is None else convert_to_tensor(x)
    rank = B.known_rank(t, "sort")
    if rank == 0:
        return t
    place = normalized(axis or 0, rank, "sort")
    return B.op("GatherElements", t, ascending(stop_gradient(t), place), axis=place)


def argpartition(x: Any, kth: int, axis: int | None = -1) -> Tensor:
    """Indices (int32) that bring smaller elements before the one that belongs at `kth`.

    They are sorted altogether, which is one such order.

    Raises:
        ShapeError: the axis has no index `kth`.
    """
    t = ravel(x) if axis is None else convert_to_tensor(x)
    place = normalized(axis or 0, B.known_rank(t, "argpartition"), "argpartition")
    size = B.dim(t, place)
    if isinstance(size, int) and not -size <= kth < size:
        raise refused(f"argpartition: axis {place} of size {size} has no index {kth}")
    return argsort(t, place)


def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Tensor:
    """Where values would have to go in to keep a vector in order, as int32.

    Args:
        sorted_sequence: an ascending vector.
        side: "left": before elements that equal the value; "right": after them.

    Raises:
        ShapeError: `sorted_sequence` is no vector.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side is 'left' or 'right', not {side!r}")
    row, wanted = (stop_gradient(t) for t in numeric(sorted_sequence, values))
    if B.known_rank(row, "searchsorted") != 1:
        raise refused(
            f"searchsorted takes a sorted vector, not a tensor of {format_shape(B.shape(row))}"
        )
    size = B.dim(row, 0)
    if size == 0:
        return B.full_like(wanted, 0, INT32)
    # Bisection: how many elements come before, from the highest bit of that count to the lowest.
    bits = size.bit_length() if isinstance(size, int) else 31
    count = B.op("Squeeze", B.dim_tensor(row, 0), [0])
    before = "Less" if side == "left" else "LessOrEqual"
    found = B.full_like(wanted, 0, INT64)
    for bit in reversed(range(bits)):
        further = B.op("Add", found, 1 << bit)
        last = B.op("Sub", B.op("Min", further, count), 1)
        passed = B.op(before, B.op("Gather", row, last, axis=0), wanted)
        passed = B.op("And", passed, B.op("LessOrEqual", further, count))
        found = B.op("Where", passed, further, found)
    return B.cast(found, INT32)


def digitize(x: Any, bins: Any) -> Tensor:
    """The bin of each element, as int32: bin i is from bins[i - 1] up to, not including, bins[i].

    Args:
        bins: an ascending vector.
    """
    return searchsorted(bins, x, "right")


def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Tensor:
    """How often each of 0, 1, 2, ... occurs (int32), or the sum of its weights.

    Args:
        x: integers, none of them negative: a vector, or a batch of them.
        weights: of x's shape.
        minlength: the least size of the result, which else goes up to the largest element.

    Raises:
        ValueError: `sparse`, which there is not.
        ShapeError: x is neither of rank 1 nor 2.
    """
    if sparse:
        raise ValueError("bincount: there are no sparse tensors; leave sparse=False")
    t = convert_to_tensor(x, INT64)
    rank = B.known_rank(t, "bincount")
    if rank not in (1, 2):
        raise refused(f"bincount takes rank 1 or 2, not a tensor of {format_shape(B.shape(t))}")
    counted = B.full_like(t, 1, INT32) if weights is None else widened(convert_to_tensor(weights))
    # One -1 more, so that there is a largest element; and no length below minlength.
    largest = B.op("Concat", ravel(t), [-1, minlength - 1], axis=0)
    length = B.op("Add", B.op("ReduceMax", largest, [0], keepdims=1), 1)
    if rank == 1:
        bins = B.op("Expand", B.scalar(0, counted.dtype), length)
    else:
        bins = B.op(
            "Expand",
            B.scalar(0, counted.dtype),
            B.op("Concat", B.dim_tensor(t, 0), length, axis=0),
        )
    found = B.op("ScatterElements", bins, t, counted, axis=rank - 1, reduction="add")
    return B.refine_shape(found, (B.dim(t, 0), None) if rank == 2 else (None,))


def histogram(
    x: Any, bins: int = 10, range: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """How many elements there are in each of `bins` equal bins (int32), and the bins' edges.

    Args:
        range: from where to where the bins go; elements beyond do not count. By default from the
            smallest to the largest element.
    """
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"histogram takes a positive number of bins, not {bins!r}")
    if range is not None and not range[0] <= range[1]:
        raise ValueError(f"histogram: the range {tuple(range)} has its ends the wrong way round")
    (t,) = operands(stop_gradient(ravel(x)), floating=True)
    low, high = (
        (min(t), max(t)) if range is None else (B.scalar(v, t.dtype) for v in map(float, range))
    )
    # As NumPy: of no width, half a unit to both sides.
    margin = B.op("Where", B.op("Equal", low, high), B.scalar(0.5, t.dtype), B.scalar(0, t.dtype))
    low, high = B.op("Sub", low, margin), B.op("Add", high, margin)
    steps = (np.arange(bins + 1) / bins).astype(t.dtype)
    edges = B.op("Add", B.op("Mul", B.op("Sub", high, low), steps), low)
    # The end exactly, whatever rounding made of it.
    edges = B.op("Where", np.arange(bins + 1) == bins, high, edges)
    place = B.op("Sub", B.cast(searchsorted(edges, t, "right"), INT64), 1)
    # The last bin has its end; what lies outside goes to one that is cut off.
    place = B.op("Where", B.op("Equal", t, high), B.scalar(bins - 1, INT64), place)
    place = B.op("Where", B.op("Less", place, 0), B.scalar(bins, INT64), place)
    counts = bincount(B.op("Min", place, bins), minlength=bins + 1)
    return B.op("Slice", counts, [0], [bins], [0]), edges


def in_top_k(targets: Any, predictions: Any, k: int) -> Tensor:
    """Whether each target's prediction is among the k largest of its row; ties are.

    Args:
        targets: integer classes (batch,).
        predictions: (batch, classes).
    """
    scores, classes = widened(convert_to_tensor(predictions)), convert_to_tensor(targets, INT64)
    if B.known_rank(scores, "in_top_k") != 2 or B.known_rank(classes, "in_top_k") != 1:
        raise refused(
            f"in_top_k takes targets (batch,) and predictions (batch, classes), not "
            f"{format_shape(B.shape(classes))} and {format_shape(B.shape(scores))}"
        )
    own = B.op("GatherElements", scores, B.op("Unsqueeze", classes, [1]), axis=1)
    ahead = B.op("ReduceSum", B.cast(B.op("Greater", scores, own), INT32), [1], keepdims=0)
    return B.op("Less", ahead, k)


def nonzero(x: Any) -> tuple[Tensor, ...]:
    """The indices of the elements that are not zero: one int32 vector per axis."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "nonzero")
    if rank == 0:
        raise refused("nonzero takes a tensor of rank 1 or more")
    places = B.cast(B.op("NonZero", B.cast(t, BOOL)), INT32)
    if rank == 1:
        return (B.op("Squeeze", places, [0]),)
    rows = B.op_multi("Split", places, outputs=rank, axis=0, num_outputs=rank)
    return tuple(B.op("Squeeze", row, [0]) for row in rows)


def unique(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: float | None = None,
) -> Any:
    """Each element once.

    Args:
        sorted: in ascending order; else in the order in which they come.
        return_index: also where each comes first (int32).
        return_inverse: also which of them each element is (int32), in x's shape.
        return_counts: also how often each comes (int32).
        axis: of whole slices along an axis; by default of the flat tensor.
        size: cut to this many of them, or filled up.
        fill_value: what with; 0 by default. Indices are filled up with 1, counts with 0, as Keras.

    Returns:
        The elements; a tuple of them and of what else is asked for, in the order above.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "unique")
    place = None if axis is None else normalized(axis, rank, "unique")
    made = t.dtype if t.dtype in _UNIQUE else np.dtype(np.float32) if is_float(t.dtype) else INT64
    values, index, inverse, counts = B.op_multi(
        "Unique", B.cast(t, made), outputs=4, axis=place, sorted=int(sorted)
    )
    values = _sized(B.cast(values, t.dtype), place or 0, size, fill_value or 0)
    found = [values]
    if return_index:
        found.append(_sized(B.cast(index, INT32), 0, size, 1))
    if return_inverse:
        whole = B.cast(inverse, INT32)
        found.append(B.reshape_like(whole, t) if place is None else whole)
    if return_counts:
        found.append(_sized(B.cast(counts, INT32), 0, size, 0))
    return found[0] if len(found) == 1 else tuple(found)


def _sized(t: Tensor, axis: int, size: int | None, fill: float) -> Tensor:
    if size is None:
        return t
    part = B.op("Slice", t, [0], [size], [axis])
    sizes = shape(part)
    missing = shape_tensor([size - n if a == axis else n for a, n in enumerate(sizes)])
    rest = B.op("Expand", B.scalar(fill, t.dtype), missing)
    return B.op("Concat", part, rest, axis=axis)
