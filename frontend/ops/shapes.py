"""Shapes: reading them and changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import is_static
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import operands
from onnxtape.ops.creation import shape_tensor
from onnxtape.tensor import Tensor

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flatten",
    "flip",
    "moveaxis",
    "ndim",
    "pad",
    "ravel",
    "repeat",
    "reshape",
    "shape",
    "size",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "transpose",
    "unstack",
]


def normalized(axis: int, rank: int) -> int:
    """A non-negative axis; ValueError when it is out of range."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for a tensor of rank {rank}")
    return axis % rank


def shape(x: Any) -> tuple[Any, ...]:
    """The shape: ints, and int64 scalar tensors for what is known only at run time."""
    t = convert_to_tensor(x)
    dims = B.shape(t)
    if is_static(dims):
        return dims
    return tuple(
        dim if isinstance(dim, int) else B.op("Squeeze", B.dim_tensor(t, i))
        for i, dim in enumerate(dims or ())
    )


def ndim(x: Any) -> int:
    """The number of dimensions."""
    return len(convert_to_tensor(x).shape)


def size(x: Any) -> Any:
    """The number of elements: an int, or an int64 scalar tensor where it is not known."""
    t = convert_to_tensor(x)
    dims = B.shape(t)
    if is_static(dims):
        return int(np.prod(dims, dtype=np.int64))
    return B.op("Size", t)


def reshape(x: Any, newshape: Any) -> Tensor:
    """The same elements in another shape; one entry may be -1, entries may be scalar tensors."""
    t = convert_to_tensor(x)
    if isinstance(newshape, int):
        newshape = (newshape,)
    return B.op("Reshape", t, shape_tensor(newshape), allowzero=1)


def ravel(x: Any) -> Tensor:
    """All elements in one dimension."""
    return reshape(x, (-1,))


def flatten(x: Any) -> Tensor:
    """(batch, ...) to (batch, everything else)."""
    t = convert_to_tensor(x)
    dims = B.shape(t)
    if dims is not None and is_static(dims[1:]):
        rest = int(np.prod(dims[1:], dtype=np.int64))
        if not isinstance(dims[0], int):
            return B.op("Reshape", t, [-1, rest])
        return B.op("Reshape", t, [dims[0], rest], allowzero=1)
    return B.op("Flatten", t, axis=1)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order, by default reversed."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "transpose")
    order = list(range(rank))[::-1] if axes is None else [normalized(a, rank) for a in axes]
    if sorted(order) != list(range(rank)):
        raise ValueError(f"axes {axes} are not an order of the {rank} axes")
    return B.op("Transpose", t, perm=order) if rank > 1 else t


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "swapaxes")
    order = list(range(rank))
    a, b = normalized(axis1, rank), normalized(axis2, rank)
    order[a], order[b] = order[b], order[a]
    return transpose(t, order)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes moved to other places, the others in order."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "moveaxis")
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    sources = [normalized(a, rank) for a in sources]
    targets = [normalized(a, rank) for a in targets]
    order = [a for a in range(rank) if a not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transpose(t, order)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Tensor:
    """New axes of size 1."""
    return B.op("Unsqueeze", convert_to_tensor(x), [axis] if isinstance(axis, int) else list(axis))


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Without these axes of size 1, or without all such axes."""
    t = convert_to_tensor(x)
    if axis is None:
        return B.op("Squeeze", t)
    return B.op("Squeeze", t, [axis] if isinstance(axis, int) else list(axis))


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors joined along an existing axis."""
    tensors = operands(*xs)
    return tensors[0] if len(tensors) == 1 else B.op("Concat", *tensors, axis=axis)


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    tensors = [B.op("Unsqueeze", t, [axis]) for t in operands(*xs)]
    return tensors[0] if len(tensors) == 1 else B.op("Concat", *tensors, axis=axis)


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Equal parts (an int), or the parts between these indices, as numpy.split."""
    t = convert_to_tensor(x)
    axis = normalized(axis, B.known_rank(t, "split"))
    dim = B.dim(t, axis)
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if isinstance(dim, int) and dim % count:
            raise ValueError(f"axis {axis} of size {dim} cannot be split into {count} equal parts")
        if count == 1:
            return [t]
        return list(B.op_multi("Split", t, outputs=count, axis=axis, num_outputs=count))
    if not isinstance(dim, int):
        raise ValueError("splitting at indices needs an axis whose size is known")
    bounds = [0, *indices_or_sections, dim]
    sizes = [high - low for low, high in zip(bounds, bounds[1:], strict=False)]
    return list(B.op_multi("Split", t, sizes, outputs=len(sizes), axis=axis))


def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The slices along an axis, without it."""
    t = convert_to_tensor(x)
    axis = normalized(axis, B.known_rank(t, "unstack"))
    count = num if num is not None else B.dim(t, axis)
    if not isinstance(count, int):
        raise ValueError("unstack needs `num` where the axis's size is not known")
    return [B.op("Squeeze", part, [axis]) for part in split(t, count, axis)]


def tile(x: Any, repeats: int | Sequence[int]) -> Tensor:
    """The tensor repeated `repeats` times along each axis."""
    t = convert_to_tensor(x)
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = B.known_rank(t, "tile")
    if len(counts) > rank:
        t = expand_dims(t, list(range(len(counts) - rank)))
    counts = [1] * (rank - len(counts)) + counts
    return B.op("Tile", t, counts)


def repeat(x: Any, repeats: int, axis: int | None = None) -> Tensor:
    """Each element repeated `repeats` times along an axis (the flattened tensor by default)."""
    t = ravel(x) if axis is None else convert_to_tensor(x)
    rank = B.known_rank(t, "repeat")
    axis = normalized(0 if axis is None else axis, rank)
    copies = [1] * (rank + 1)
    copies[axis + 1] = repeats
    tiled = B.op("Tile", B.op("Unsqueeze", t, [axis + 1]), copies)
    dims = list(shape(t))
    dims[axis] = dims[axis] * repeats
    return reshape(tiled, dims)


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """The tensor broadcast to a shape."""
    return B.op("Expand", convert_to_tensor(x), shape_tensor(shape))


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Reversed along the axes, by default all."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "flip")
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = [normalized(a, rank) for a in axes]
    count = len(axes)
    first, last = [-1] * count, [np.iinfo(np.int64).min] * count
    return B.op("Slice", t, first, last, axes, [-1] * count)


def pad(
    x: Any, pad_width: Any, mode: str = "constant", constant_values: float | None = None
) -> Tensor:
    """Padded on both sides of each axis.

    Args:
        pad_width: one (before, after) pair per axis, one pair for all, or one number for all.
        mode: "constant", "reflect" or "edge".
        constant_values: for mode "constant"; 0 by default.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "pad")
    widths = np.broadcast_to(np.asarray(pad_width, dtype=np.int64), (rank, 2))
    if mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"pad: mode is 'constant', 'reflect' or 'edge', not {mode!r}")
    if constant_values is not None and mode != "constant":
        raise ValueError("pad: constant_values goes with mode='constant' only")
    fill = None if constant_values is None else B.scalar(constant_values, t.dtype)
    return B.op("Pad", t, [int(w) for w in widths.T.reshape(-1)], fill, mode=mode)
