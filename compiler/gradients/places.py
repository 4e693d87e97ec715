"""Masks and positions that several families need."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder

B = Builder[Any]


def along(b: B, vector: Any, axis: int, rank: int) -> Any:
    """The vector as a tensor of that rank, with size 1 but for `axis`."""
    others = [i for i in range(rank) if i != axis]
    return b.op("Unsqueeze", vector, others) if others else vector


def compare_positions(
    b: B, op_type: str, x: Any, axis: int, axes: tuple[int, int], rank: int
) -> Any:
    """A comparison of the positions along two axes, both as long as `axis` of x.

    A boolean tensor of that rank, with size 1 but for those two axes.
    """
    numbers = b.positions(x, axis)
    return b.op(op_type, *(along(b, numbers, i, rank) for i in axes))


def identity_mask(b: B, x: Any, axis: int, axes: tuple[int, int], rank: int) -> Any:
    """Whether the positions along two axes are equal; see `compare_positions`."""
    return compare_positions(b, "Equal", x, axis, axes, rank)


def parted(b: B, x: Any, axis: Any, tail: int = 0) -> Any:
    """The shape (before, size, after, *tail) that x has around an axis known only at run time.

    Args:
        axis: an integer scalar or vector of one, which may count from the back.
        tail: how many of the last axes stay apart.
    """
    rank = b.known_rank(x, "an axis that is known only at run time")
    axis = b.op("Reshape", b.cast(axis, np.dtype(np.int64)), [1])
    axis = b.op("Mod", b.op("Add", axis, rank), rank)
    # A leading 1, for the product of no sizes.
    sizes = b.op("Concat", b.constant([1]), b.op("Shape", x), axis=0)
    here = b.op("Add", axis, 1)
    before = b.op("ReduceProd", b.op("Slice", sizes, [0], here, [0]), keepdims=1)
    size = b.op("Gather", sizes, here)
    after = b.op("Slice", sizes, b.op("Add", here, 1), [1 + rank - tail], [0])
    after = b.op("ReduceProd", b.op("Concat", b.constant([1]), after, axis=0), keepdims=1)
    last = [b.op("Slice", sizes, [1 + rank - tail], [1 + rank], [0])] if tail else []
    return b.op("Concat", before, size, after, *last, axis=0)


def scatter_add(
    b: B, op_type: str, zeros: Any, places: Any, updates: Any, **attributes: Any
) -> Any:
    """ScatterElements or ScatterND that adds; in float32 where the numbers have 16 bits.

    ONNX Runtime's CPU kernels add no such numbers, and sums of many of them would lose digits.
    """
    dtype, wide = b.dtype(updates), np.dtype(np.float32)
    if dtype.itemsize >= wide.itemsize:
        return b.op(op_type, zeros, places, updates, reduction="add", **attributes)
    zeros, updates = b.cast(zeros, wide), b.cast(updates, wide)
    return b.cast(b.op(op_type, zeros, places, updates, reduction="add", **attributes), dtype)
