"""Joining, cutting, turning and moving: shapes of parts, without arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import Axis, normalized, normalized_axes, refused
from onnxtape.ops.creation import shape_tensor, static_shape
from onnxtape.ops.promotion import INT64, operands
from onnxtape.ops.shapes import (
    concatenate,
    expand_dims,
    flip,
    ravel,
    reshape,
    shape,
    split,
    swapaxes,
)
from onnxtape.tensor import Tensor

__all__ = [
    "append",
    "array_split",
    "dsplit",
    "dstack",
    "extract_sequences",
    "fliplr",
    "flipud",
    "hsplit",
    "hstack",
    "meshgrid",
    "roll",
    "rot90",
    "slice",
    "slice_update",
    "unravel_index",
    "vsplit",
    "vstack",
]


def append(x1: Any, x2: Any, axis: int | None = None) -> Tensor:
    """x2 after x1 along an axis; by default both flat."""
    if axis is None:
        return concatenate([ravel(x1), ravel(x2)], 0)
    return concatenate([x1, x2], axis)


def _of_rank(x: Any, rank: int, axes: dict[int, list[int]]) -> Tensor:
    """x with new axes (by its rank) until it has `rank` of them."""
    t = convert_to_tensor(x)
    own = B.known_rank(t, "stack")
    return expand_dims(t, axes[own]) if own < rank else t


def vstack(xs: Sequence[Any]) -> Tensor:
    """One below the other, along the first axis; vectors are rows."""
    return concatenate([_of_rank(x, 2, {0: [0, 1], 1: [0]}) for x in xs], 0)


def hstack(xs: Sequence[Any]) -> Tensor:
    """Side by side, along the second axis; vectors along their only one."""
    tensors = [_of_rank(x, 1, {0: [0]}) for x in xs]
    return concatenate(tensors, 0 if all(B.rank(t) == 1 for t in tensors) else 1)


def dstack(xs: Sequence[Any]) -> Tensor:
    """One behind the other, along the third axis."""
    new = {0: [0, 1, 2], 1: [0, 2], 2: [2]}
    return concatenate([_of_rank(x, 3, new) for x in xs], 2)


def array_split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Parts that are nearly equal, the first ones larger (an int); or as `split`.

    Raises:
        ShapeError: a number of parts, along an axis whose size is not known.
    """
    t = convert_to_tensor(x)
    if not isinstance(indices_or_sections, int):
        return split(t, indices_or_sections, axis)
    axis = normalized(axis, B.known_rank(t, "array_split"), "array_split")
    dim, count = B.dim(t, axis), indices_or_sections
    if count < 1 or not isinstance(dim, int):
        raise refused(
            f"array_split takes a positive number of parts of a size that is known, not {count} "
            f"parts of axis {axis} of {format_shape(B.shape(t))}"
        )
    least, more = divmod(dim, count)
    sizes = [least + 1] * more + [least] * (count - more)
    return split(t, np.cumsum(sizes)[:-1].tolist(), axis) if count > 1 else [t]


def vsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the first axis."""
    return split(x, indices_or_sections, 0)


def hsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the second axis, of a vector along its only one."""
    t = convert_to_tensor(x)
    return split(t, indices_or_sections, 0 if B.known_rank(t, "hsplit") == 1 else 1)


def dsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the third axis."""
    return split(x, indices_or_sections, 2)


def flipud(x: Any) -> Tensor:
    """Reversed along the first axis."""
    return flip(x, 0)


def fliplr(x: Any) -> Tensor:
    """Reversed along the second axis."""
    return flip(x, 1)


def rot90(array: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Tensor:
    """Turned k times by a right angle, from the first of two axes towards the second."""
    t = convert_to_tensor(array)
    first, second = normalized_axes(axes, B.known_rank(t, "rot90"), "rot90")
    turns = k % 4
    if turns == 0:
        return t
    if turns == 2:
        return flip(t, (first, second))
    if turns == 1:
        return swapaxes(flip(t, second), first, second)
    return flip(swapaxes(t, first, second), second)


def roll(x: Any, shift: int | Sequence[int], axis: Axis = None) -> Tensor:
    """Moved on by `shift` places along the axes; what falls off the end comes in at the front.

    Args:
        shift: one for all axes, or one for each.
        axis: by default of the flat tensor, which gets its shape back.
    """
    t = convert_to_tensor(x)
    if axis is None:
        return reshape(roll(ravel(t), shift, 0), shape(t))
    # NumPy adds up what an axis is moved that occurs twice.
    axes = [axis] if isinstance(axis, (int, np.integer)) else list(axis)
    shifts = [shift] * len(axes) if isinstance(shift, (int, np.integer)) else list(shift)
    if len(shifts) != len(axes):
        raise refused(f"roll: {len(shifts)} shifts do not go with {len(axes)} axes")
    for by, along in zip(shifts, axes, strict=True):
        place = normalized(along, B.known_rank(t, "roll"), "roll")
        size = shape(t)[place]
        if isinstance(size, int):
            middle: Any = [-by % size] if size else [0]
        else:
            middle = B.op("Mod", B.op("Reshape", -by + 0 * size, [1]), _vector(size))
        ends = [np.iinfo(np.int64).max]
        back = B.op("Slice", t, middle, ends, [place])
        t = B.op("Concat", back, B.op("Slice", t, [0], middle, [place]), axis=place)
    return t


def _vector(size: Any) -> Tensor:
    return B.op("Reshape", convert_to_tensor(size, INT64), [1])


def meshgrid(*x: Any, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of every point of a grid: one tensor per vector.

    Args:
        indexing: "xy": the first vector runs along the second axis, and the second along the
            first; "ij": each along its own.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is 'xy' or 'ij', not {indexing!r}")
    vectors = [ravel(v) for v in x]
    places = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        places[:2] = [1, 0]
    sizes = {place: shape(v)[0] for place, v in zip(places, vectors, strict=True)}
    whole = shape_tensor([sizes[a] for a in range(len(vectors))])
    found = []
    for place, vector in zip(places, vectors, strict=True):
        others = [a for a in range(len(vectors)) if a != place]
        found.append(B.op("Expand", expand_dims(vector, others), whole) if others else vector)
    return found


def slice(inputs: Any, start_indices: Any, shape: Any) -> Tensor:
    """The block of `shape` whose first element is at `start_indices`.

    Args:
        start_indices: one int or integer tensor per axis, or a vector of them.
        shape: one int per axis; -1 for all that is left.
    """
    t = convert_to_tensor(inputs)
    rank = B.known_rank(t, "slice")
    sizes = static_shape(shape)
    if sizes is None or len(sizes) != rank:
        raise refused(f"slice takes {rank} numbers as a shape, not {shape}")
    starts = shape_tensor(start_indices)
    if B.dim(starts, 0) not in (rank, None):
        raise refused(f"slice takes one start for each of {rank} axes, not {start_indices}")
    if not rank:
        return t
    rest = np.asarray([size == -1 for size in sizes])
    ends = B.op("Add", starts, list(sizes))
    if rest.any():
        ends = B.op("Where", rest, np.asarray(np.iinfo(np.int64).max), ends)
    part = B.op("Slice", t, starts, ends, list(range(rank)))
    return part if rest.any() else B.refine_shape(part, sizes)


def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Tensor:
    """`inputs` with the block `updates` in the place that begins at `start_indices`."""
    t, block = convert_to_tensor(inputs), convert_to_tensor(updates)
    block = B.cast(block, t.dtype)
    rank = B.known_rank(t, "slice_update")
    if B.known_rank(block, "slice_update") != rank:
        raise refused(
            f"slice_update: a block of {format_shape(B.shape(block))} does not go into a tensor "
            f"of {format_shape(B.shape(t))}"
        )
    if not rank:
        return block
    starts = split(shape_tensor(start_indices), rank)
    sizes = shape(t)
    place: Any = B.scalar(0, INT64)
    zero, one = B.scalar(0, INT64), B.scalar(1, INT64)
    for axis, count in enumerate(shape(block)):
        along = B.op("Range", zero, convert_to_tensor(count, INT64), one)
        along = B.op("Add", along, starts[axis])
        along = expand_dims(along, list(range(1, rank - axis))) if axis < rank - 1 else along
        place = B.op("Add", B.op("Mul", place, convert_to_tensor(sizes[axis], INT64)), along)
    flat = B.op("ScatterElements", ravel(t), ravel(place), ravel(block), axis=0)
    return reshape(flat, sizes)


def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Tensor:
    """Windows of `sequence_length` along the last axis, each `sequence_stride` after the other.

    Returns:
        (..., windows, sequence_length), of the windows that are whole.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "extract_sequences")
    if rank < 1 or sequence_length < 1 or sequence_stride < 1:
        raise refused(
            "extract_sequences takes a tensor of rank 1 or more, a positive length and a positive "
            f"stride, not {format_shape(B.shape(t))}, {sequence_length} and {sequence_stride}"
        )
    size = shape(t)[-1]
    count = (size - sequence_length) // sequence_stride + 1
    if isinstance(count, int):
        starts: Any = B.constant(np.arange(max(count, 0)) * sequence_stride)
    else:
        counted = B.op("Range", B.scalar(0, INT64), B.cast(count, INT64), B.scalar(1, INT64))
        starts = B.op("Mul", counted, sequence_stride)
    places = B.op("Add", B.op("Unsqueeze", starts, [1]), np.arange(sequence_length))
    return B.op("Gather", t, places, axis=rank - 1)


def unravel_index(indices: Any, shape: Any) -> tuple[Tensor, ...]:
    """The index along each axis of a tensor of `shape`, for indices into the flat tensor."""
    sizes = static_shape(shape)
    if sizes is None:
        raise refused(f"unravel_index takes a shape of numbers, not {shape}")
    (rest,) = operands(indices)
    if rest.dtype.kind not in "iu":
        raise TypeError(f"unravel_index takes integers, not {rest.dtype}")
    given = rest.dtype
    rest = B.cast(rest, INT64)
    # Negative ones count from the end.
    rest = B.op("Mod", rest, int(np.prod(sizes, dtype=np.int64)))
    found: list[Tensor] = []
    for size in reversed(sizes):
        place = B.op("Mod", rest, size)
        found.append(B.cast(place, given))
        rest = B.op("Div", B.op("Sub", rest, place), size)
    return tuple(reversed(found))
