"""Reductions over the segments that ids tell, and adding at places."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import may_equal, refused
from onnxtape.ops.creation import shape_tensor
from onnxtape.ops.promotion import INT64, in_float32, widened
from onnxtape.tensor import Tensor

__all__ = ["scatter", "segment_max", "segment_min", "segment_prod", "segment_sum"]


def segment_sum(
    data: Any, segment_ids: Any, num_segments: Any = None, sorted: bool = False
) -> Tensor:
    """The sums of the slices of `data` (along its first axis) with one id; 0 of none.

    Args:
        segment_ids: an integer per slice; slices with an id out of range do not count.
        num_segments: how many segments there are; by default one more than the largest id.
        sorted: whether the ids ascend, which does not matter here.

    Raises:
        ShapeError: there is not one id per slice.
    """
    return _reduced("add", data, segment_ids, num_segments)


def segment_prod(
    data: Any, segment_ids: Any, num_segments: Any = None, sorted: bool = False
) -> Tensor:
    """The products of the slices with one id; 1 of none. As `segment_sum`."""
    return _reduced("mul", data, segment_ids, num_segments)


def segment_max(
    data: Any, segment_ids: Any, num_segments: Any = None, sorted: bool = False
) -> Tensor:
    """The largest elements of the slices with one id; of none, the dtype's lowest number (minus
    infinity of floats). As `segment_sum`."""
    return _reduced("max", data, segment_ids, num_segments)


def segment_min(
    data: Any, segment_ids: Any, num_segments: Any = None, sorted: bool = False
) -> Tensor:
    """The smallest elements of the slices with one id; of none, the dtype's highest number
    (infinity of floats). As `segment_sum`."""
    return _reduced("min", data, segment_ids, num_segments)


def _reduced(reduction: str, data: Any, segment_ids: Any, num_segments: Any) -> Tensor:
    given, ids = convert_to_tensor(data), convert_to_tensor(segment_ids, INT64)
    t = in_float32(widened(given))
    shape, lengths = B.shape(t), B.shape(ids)
    if B.rank(ids) != 1 or B.rank(t) == 0 or (shape and not may_equal(shape[:1], lengths)):
        raise refused(
            f"segments: data {format_shape(shape)} takes a vector of as many ids as it has slices, "
            f"not {format_shape(lengths)}"
        )
    if num_segments is None:
        largest = B.op("ReduceMax", B.op("Concat", ids, [-1], axis=0), [0], keepdims=1)
        count = B.op("Add", largest, 1)
    else:
        count = shape_tensor([num_segments])
    # One row more, for the slices that do not count; it is cut off.
    outside = B.op("Or", B.op("Less", ids, 0), B.op("GreaterOrEqual", ids, count))
    ids = B.op("Where", outside, count, ids)
    rows = B.op("Add", count, 1)
    rest = B.op("Shape", t, start=1)
    whole = B.op("Concat", rows, rest, axis=0) if B.rank(t) != 1 else rows
    start = B.op("Expand", B.scalar(_neutral(reduction, t.dtype), t.dtype), whole)
    indices = B.op("Unsqueeze", ids, [1])
    found = B.op("ScatterND", start, indices, t, reduction=reduction)
    found = B.op("Slice", found, [0], count, [0])
    if shape is not None:
        known = int(num_segments) if isinstance(num_segments, (int, np.integer)) else None
        found = B.refine_shape(found, (known, *shape[1:]))
    return B.cast(found, given.dtype)


def _neutral(reduction: str, dtype: np.dtype[Any]) -> Any:
    if reduction in ("add", "mul"):
        return 0 if reduction == "add" else 1
    if is_float(dtype):
        return -np.inf if reduction == "max" else np.inf
    info = np.iinfo(dtype)
    return info.min if reduction == "max" else info.max


def scatter(indices: Any, values: Any, shape: Any) -> Tensor:
    """A tensor of `shape`, 0 but for `values` at `indices`, which add up at equal ones.

    Args:
        indices: (..., k), each naming a place by its first k axes.
        values: (..., and the remaining axes).
    """
    updates = convert_to_tensor(values)
    wide = in_float32(widened(updates))
    start = B.op("Expand", B.scalar(0, wide.dtype), shape_tensor(shape))
    places = convert_to_tensor(indices, INT64)
    return B.cast(B.op("ScatterND", start, places, wide, reduction="add"), updates.dtype)
