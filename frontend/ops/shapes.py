"""Shapes: reading them and changing them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import broadcast_shapes, format_shape, is_static
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import Axis, may_equal, normalized, normalized_axes, refused
from onnxtape.ops.creation import shape_tensor, static_shape
from onnxtape.ops.promotion import INT64, operands
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

_PAD_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")


def shape(x: Any) -> tuple[Any, ...]:
    """The shape: ints, and int64 scalar tensors for what is known only at run time."""
    t = convert_to_tensor(x)
    B.known_rank(t, "shape")
    dims = B.shape(t)
    if is_static(dims):
        return dims
    return tuple(
        dim if isinstance(dim, int) else B.op("Squeeze", B.dim_tensor(t, i))
        for i, dim in enumerate(dims or ())
    )


def ndim(x: Any) -> int:
    """The number of dimensions."""
    return B.known_rank(convert_to_tensor(x), "ndim")


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
    wanted, given = static_shape(newshape), B.shape(t)
    if wanted is not None and is_static(given) and not _holds(wanted, given):
        raise refused(f"reshape: {format_shape(given)} has no shape {format_shape(wanted)}")
    return B.op("Reshape", t, shape_tensor(newshape), allowzero=1)


def _holds(wanted: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether a shape, in which one entry may be -1, has as many elements as another."""
    count, known = math.prod(given), math.prod(d for d in wanted if d != -1)
    if min(wanted, default=0) < -1 or wanted.count(-1) > 1:
        return False
    return count % known == 0 if -1 in wanted and known else count == known


def ravel(x: Any) -> Tensor:
    """All elements in one dimension."""
    return reshape(x, (-1,))


def flatten(x: Any) -> Tensor:
    """(batch, ...) to (batch, everything else)."""
    t = convert_to_tensor(x)
    if B.known_rank(t, "flatten") == 0:
        raise refused("flatten needs a batch dimension, which a 0-d tensor does not have")
    batch, *others = B.shape(t) or ()
    rest = static_shape(others)
    if rest is None or 0 in rest:
        return B.op("Flatten", t, axis=1)
    count = int(np.prod(rest, dtype=np.int64))
    if isinstance(batch, int):
        return B.op("Reshape", t, [batch, count], allowzero=1)
    return B.op("Reshape", t, [-1, count])


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order, by default reversed."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "transpose")
    order = normalized_axes(axes, rank, "transpose") if axes is not None else [*range(rank)][::-1]
    if len(order) != rank:
        raise refused(f"transpose: {tuple(order)} does not name all {rank} axes")
    return t if order == list(range(rank)) else B.op("Transpose", t, perm=order)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "swapaxes")
    order = list(range(rank))
    a, b = normalized(axis1, rank, "swapaxes"), normalized(axis2, rank, "swapaxes")
    order[a], order[b] = order[b], order[a]
    return transpose(t, order)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes moved to other places, the others in order."""
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "moveaxis")
    sources = normalized_axes(source, rank, "moveaxis")
    targets = normalized_axes(destination, rank, "moveaxis")
    if len(sources) != len(targets):
        raise refused(f"moveaxis: {len(sources)} axes cannot move to {len(targets)} places")
    order = [a for a in range(rank) if a not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transpose(t, order)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Tensor:
    """New axes of size 1, at these places of the result."""
    t = convert_to_tensor(x)
    count = len(axis) if isinstance(axis, Sequence) else 1
    rank = B.known_rank(t, "expand_dims") + count
    return B.op("Unsqueeze", t, normalized_axes(axis, rank, "expand_dims")) if count else t


def squeeze(x: Any, axis: Axis = None) -> Tensor:
    """Without these axes of size 1, or without all such axes."""
    t = convert_to_tensor(x)
    if axis is None:
        return B.op("Squeeze", t)
    axes = normalized_axes(axis, B.known_rank(t, "squeeze"), "squeeze")
    for a in axes:
        if B.dim(t, a) != 1 and isinstance(B.dim(t, a), int):
            raise refused(f"squeeze: axis {a} of {format_shape(B.shape(t))} is not of size 1")
    return B.op("Squeeze", t, axes)


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors joined along an existing axis."""
    if not len(xs):
        raise refused("concatenate needs at least one tensor")
    tensors = operands(*xs)
    axis = normalized(axis, B.known_rank(tensors[0], "concatenate"), "concatenate")
    shapes = [B.shape(t) for t in tensors]
    if not all(may_equal(shapes[0], shape, but=axis) for shape in shapes[1:]):
        listed = ", ".join(map(format_shape, shapes))
        raise refused(f"concatenate: {listed} differ in more than axis {axis}")
    return tensors[0] if len(tensors) == 1 else B.op("Concat", *tensors, axis=axis)


def stack(x: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    if not len(x):
        raise refused("stack needs at least one tensor")
    return concatenate([expand_dims(t, axis) for t in operands(*x)], axis)


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Equal parts (an int), or the parts between these ascending indices, as numpy.split."""
    t = convert_to_tensor(x)
    axis = normalized(axis, B.known_rank(t, "split"), "split")
    dim = B.dim(t, axis)
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count < 1 or (isinstance(dim, int) and dim % count):
            raise refused(f"split: axis {axis} of size {dim} has no {count} equal parts")
        if count == 1:
            return [t]
        return list(B.op_multi("Split", t, outputs=count, axis=axis, num_outputs=count))
    if not isinstance(dim, int):
        raise refused("split at indices needs an axis whose size is known")
    bounds = [0, *(slice(None, i).indices(dim)[1] for i in indices_or_sections), dim]
    sizes = [high - low for low, high in itertools.pairwise(bounds)]
    if min(sizes) < 0:
        raise refused(f"split: the indices {tuple(indices_or_sections)} do not ascend")
    return list(B.op_multi("Split", t, sizes, outputs=len(sizes), axis=axis))


def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The slices along an axis, without it."""
    t = convert_to_tensor(x)
    axis = normalized(axis, B.known_rank(t, "unstack"), "unstack")
    dim = B.dim(t, axis)
    count = dim if num is None else num
    if not isinstance(count, int):
        raise refused("unstack needs `num` where the size of the axis is not known")
    if isinstance(dim, int) and dim != count:
        raise refused(f"unstack: axis {axis} has size {dim}, not {count}")
    return [B.op("Squeeze", part, [axis]) for part in split(t, count, axis)] if count else []


def tile(x: Any, repeats: int | Sequence[int]) -> Tensor:
    """The tensor repeated `repeats` times along each axis."""
    t = convert_to_tensor(x)
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = B.known_rank(t, "tile")
    if len(counts) > rank:
        t = expand_dims(t, list(range(len(counts) - rank)))
    counts = [1] * (rank - len(counts)) + counts
    return B.op("Tile", t, counts)


def repeat(x: Any, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element repeated along an axis (the flattened tensor by default).

    Args:
        repeats: how often; or one number per element of the axis, whose size is then known.
    """
    t = ravel(x) if axis is None else convert_to_tensor(x)
    rank = B.known_rank(t, "repeat")
    axis = normalized(0 if axis is None else axis, rank, "repeat")
    if not isinstance(repeats, (int, np.integer)):
        places = np.repeat(np.arange(len(repeats)), repeats)
        if B.dim(t, axis) != len(repeats):
            raise refused(
                f"repeat: {len(repeats)} repeats do not fit axis {axis} of "
                f"{format_shape(B.shape(t))}"
            )
        return B.op("Gather", t, places, axis=axis)
    copies = [1] * (rank + 1)
    copies[axis + 1] = repeats
    tiled = B.op("Tile", B.op("Unsqueeze", t, [axis + 1]), copies)
    dims = list(shape(t))
    dims[axis] = dims[axis] * repeats
    return reshape(tiled, dims)


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """The tensor broadcast to a shape."""
    t = convert_to_tensor(x)
    wanted, given = static_shape(shape), B.shape(t)
    if wanted is not None and given is not None:
        # ONNX's Expand broadcasts both ways; the result must be of the shape asked for.
        try:
            fits = broadcast_shapes(given, wanted) == wanted
        except ValueError:
            fits = False
        if not fits:
            raise refused(
                f"broadcast_to: {format_shape(given)} does not broadcast to {format_shape(wanted)}"
            )
    return B.op("Expand", t, shape_tensor(shape))


def flip(x: Any, axis: Axis = None) -> Tensor:
    """Reversed along the axes, by default all."""
    t = convert_to_tensor(x)
    axes = normalized_axes(axis, B.known_rank(t, "flip"), "flip")
    if not axes:
        return t
    count = len(axes)
    first, last = [-1] * count, [np.iinfo(np.int64).min] * count
    return B.op("Slice", t, first, last, axes, [-1] * count)


def pad(
    x: Any, pad_width: Any, mode: str = "constant", constant_values: float | None = None
) -> Tensor:
    """Padded on both sides of each axis.

    Args:
        pad_width: one (before, after) pair per axis, one pair for all, or one number for all.
        mode: "constant"; "reflect" or "symmetric", mirrored at the last element without or with it;
            "edge", that element repeated; or "wrap", from the other side.
        constant_values: for mode "constant"; 0 by default.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "pad")
    if mode not in _PAD_MODES:
        raise ValueError(f"pad: mode is one of {', '.join(map(repr, _PAD_MODES))}, not {mode!r}")
    if constant_values is not None and mode != "constant":
        raise ValueError("pad: constant_values goes with mode='constant' only")
    given = np.asarray(pad_width, dtype=np.int64)
    try:
        widths = np.broadcast_to(given, (rank, 2))
    except ValueError:
        raise refused(
            f"pad: pad_width of shape {given.shape} does not give a pair for each of {rank} axes"
        ) from None
    if (given < 0).any():
        raise ValueError(f"pad: no width may be negative, as in {pad_width}")
    if mode == "symmetric":
        for axis, (before, after) in enumerate(widths.tolist()):
            t = _mirrored(t, axis, before, after) if before or after else t
        return t
    fill = None if constant_values is None else B.scalar(constant_values, t.dtype)
    return B.op("Pad", t, [int(w) for w in widths.T.reshape(-1)], fill, mode=mode)


def _mirrored(t: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Continued beyond both ends by its own mirror image, the ends included."""
    size = B.op("Squeeze", B.dim_tensor(t, axis))
    places = B.op("Range", B.scalar(-before, INT64), B.op("Add", size, after), B.scalar(1, INT64))
    period = B.op("Mul", size, 2)
    turned = B.op("Mod", places, period)
    mirrored = B.op("Min", turned, B.op("Sub", B.op("Sub", period, 1), turned))
    return B.op("Gather", t, mirrored, axis=axis)
