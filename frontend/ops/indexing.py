"""Indexing, gathering and scattering."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from onnxtape.compiler.dims import format_shape, same_dim
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.promotion import BOOL, INT64
from onnxtape.ops.shapes import moveaxis, ravel
from onnxtape.tensor import SymbolicDim, Tensor

__all__ = ["get_item", "getitem", "scatter_update", "take", "take_along_axis"]

_END = np.iinfo(np.int64).max


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """The slices of x at `indices` along an axis (of the flat tensor by default)."""
    t = ravel(x) if axis is None else convert_to_tensor(x)
    axis = normalized(axis or 0, B.known_rank(t, "take"), "take")
    return B.op("Gather", t, convert_to_tensor(indices, INT64), axis=axis)


def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """One element per index along an axis; on the others, x and `indices` broadcast."""
    t, places = convert_to_tensor(x), convert_to_tensor(indices, INT64)
    if axis is None:
        return B.op("GatherElements", ravel(t), ravel(places), axis=0)
    rank = B.known_rank(t, "take_along_axis")
    if B.known_rank(places, "take_along_axis") != rank:
        raise refused(
            f"take_along_axis: indices {format_shape(B.shape(places))} and the tensor "
            f"{format_shape(B.shape(t))} have different ranks"
        )
    axis = normalized(axis, rank, "take_along_axis")
    if not all(same_dim(B.dim(t, a), B.dim(places, a)) for a in range(rank) if a != axis):
        dims_t, dims_places = _dims_but(t, axis), _dims_but(places, axis)
        t, places = B.op("Expand", t, dims_places), B.op("Expand", places, dims_t)
    return B.op("GatherElements", t, places, axis=axis)


def _dims_but(t: Tensor, axis: int) -> Tensor:
    """The shape, with 1 for the axis."""
    dims = [B.dim_tensor(t, a) for a in range(B.known_rank(t, "take_along_axis"))]
    dims[axis] = B.constant(np.asarray([1], np.int64))
    return B.op("Concat", *dims, axis=0) if len(dims) > 1 else dims[0]


def scatter_update(
    inputs: Any,
    indices: Any,
    updates: Any,
    reduction: Literal["add", "max", "min", "mul"] | None = None,
) -> Tensor:
    """`inputs` with `updates` at `indices` (..., k), each naming a place by its first k axes.

    Args:
        reduction: how an update meets what is there; None replaces it.
    """
    t = convert_to_tensor(inputs)
    return B.op(
        "ScatterND",
        t,
        convert_to_tensor(indices, INT64),
        convert_to_tensor(updates, t.dtype),
        reduction=reduction or "none",
    )


def getitem(x: Any, key: Any) -> Tensor:
    """x[key] as in NumPy, for ints, slices, None, `...`, boolean masks and integer tensors.

    Slices may be bounded by tensors. Of masks and integer tensors, one may index any axis; several
    integer tensors, and masks of rank 2 and more, index the first axes.

    Raises:
        IndexError: an index out of range, or too many of them.
        TypeError: something that is no index.
    """
    t = convert_to_tensor(x)
    rank = B.known_rank(t, "indexing")
    keys = [_as_index(k) for k in (key if isinstance(key, tuple) else (key,))]
    consumed = sum(map(_axes_taken, keys))
    if consumed > rank:
        raise IndexError(f"{consumed} axes are indexed of a tensor of rank {rank}")
    keys = _without_ellipsis(keys, rank - consumed)

    # Slices and numbers first, in the numbering of x; then tensors, then axes dropped and added.
    axis = 0
    starts: list[Any] = []
    ends: list[Any] = []
    axes: list[int] = []
    steps: list[int] = []
    arrays: list[tuple[int, Tensor]] = []
    for k in keys:
        if isinstance(k, slice) and k != slice(None):
            step = 1 if k.step is None else int(k.step)
            if step == 0:
                raise ValueError("slice step cannot be zero")
            starts.append((_END if step < 0 else 0) if k.start is None else k.start)
            ends.append((-_END if step < 0 else _END) if k.stop is None else k.stop)
            axes.append(axis)
            steps.append(step)
        elif isinstance(k, int):
            dim = B.dim(t, axis)
            if isinstance(dim, int) and not -dim <= k < dim:
                raise IndexError(f"index {k} is out of range for axis {axis} of size {dim}")
            starts.append(k)
            ends.append(_END if k == -1 else k + 1)
            axes.append(axis)
            steps.append(1)
        elif isinstance(k, Tensor):
            arrays.append((axis, k))
        axis += _axes_taken(k)
    if axes:
        t = B.op("Slice", t, _bounds(starts), _bounds(ends), axes, steps)
    return _finished(_gathered(t, arrays), keys)


get_item = getitem


def _as_index(k: Any) -> Any:
    """None, `...`, a slice, an int, or a tensor of booleans or integers."""
    if k is None or k is Ellipsis or isinstance(k, slice):
        return k
    if isinstance(k, (int, np.integer)) and not isinstance(k, bool):
        return int(k)
    if isinstance(k, (SymbolicDim, float, str)):
        raise TypeError(f"cannot index a tensor with {k!r}")
    if isinstance(k, list) and not k:
        k = np.zeros(0, np.int64)
    index = convert_to_tensor(k)
    if index.dtype.kind not in "iub":
        raise TypeError(f"a tensor is indexed with integers or booleans, not {index.dtype}")
    if index.dtype == BOOL and B.known_rank(index, "a boolean index") == 0:
        raise TypeError("a single boolean is no index; write x[None] for a new axis")
    return index


def _axes_taken(k: Any) -> int:
    """How many axes an index consumes."""
    if k is None or k is Ellipsis:
        return 0
    if isinstance(k, Tensor) and k.dtype == BOOL:
        return B.known_rank(k, "a boolean index")
    return 1


def _without_ellipsis(keys: list[Any], missing: int) -> list[Any]:
    places = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(places) > 1:
        raise IndexError("an index can only have one ellipsis (...)")
    place = places[0] if places else len(keys)
    return [*keys[:place], *[slice(None)] * missing, *keys[place + len(places) :]]


def _bounds(values: list[Any]) -> Any:
    """Slice bounds, some of which may be tensors, as an int64 vector."""
    if all(isinstance(v, (int, np.integer)) for v in values):
        return [int(v) for v in values]
    parts = [B.op("Reshape", convert_to_tensor(v, INT64), [1]) for v in values]
    return parts[0] if len(parts) == 1 else B.op("Concat", *parts, axis=0)


def _gathered(t: Tensor, arrays: list[tuple[int, Tensor]]) -> Tensor:
    """The elements at integer tensors and masks, whose axes come where the first of them was."""
    if not arrays:
        return t
    axis, index = arrays[0]
    if len(arrays) == 1 and index.dtype != BOOL:
        return B.op("Gather", t, B.cast(index, INT64), axis=axis)
    if len(arrays) == 1:
        _check_mask(t, axis, index)
        places = B.op("NonZero", index)
        if B.rank(index) == 1:
            return B.op("Gather", t, B.op("Reshape", places, [-1]), axis=axis)
        if axis == 0:
            return B.op("GatherND", t, B.op("Transpose", places, perm=[1, 0]))
    axes = [a for a, _ in arrays]
    if axes != list(range(len(axes))) or any(k.dtype == BOOL for _, k in arrays):
        raise IndexError(
            "several integer tensors, or a mask of rank 2 or more, index the first axes only; "
            "bring those to the front with ops.moveaxis"
        )
    numbers = [B.cast(k, INT64) for _, k in arrays]
    # Of all their shapes' common shape; the sum itself is not used.
    common = B.op("Shape", _summed(numbers))
    columns = [B.op("Unsqueeze", B.op("Expand", k, common), [-1]) for k in numbers]
    return B.op("GatherND", t, B.op("Concat", *columns, axis=-1))


def _summed(tensors: list[Tensor]) -> Tensor:
    total, *others = tensors
    for t in others:
        total = B.op("Add", total, t)
    return total


def _check_mask(t: Tensor, axis: int, mask: Tensor) -> None:
    for i in range(B.known_rank(mask, "a boolean index")):
        given, dim = B.dim(mask, i), B.dim(t, axis + i)
        if isinstance(given, int) and isinstance(dim, int) and given != dim:
            raise IndexError(
                f"a mask of shape {format_shape(B.shape(mask))} does not fit axis {axis + i} "
                f"of size {dim}"
            )


def _finished(t: Tensor, keys: list[Any]) -> Tensor:
    """`t`, sliced and gathered, with the numbered axes dropped and new ones added."""
    arrays = [i for i, k in enumerate(keys) if isinstance(k, Tensor)]
    axis = 0
    dropped: list[int] = []
    #: For each axis of the result: whether it is new, and whether an index tensor made it.
    new: list[bool] = []
    from_index: list[bool] = []
    for i, k in enumerate(keys):
        if k is None:
            new.append(True)
            from_index.append(False)
        elif isinstance(k, int):
            dropped.append(axis)
            axis += 1
        elif isinstance(k, slice):
            new.append(False)
            from_index.append(False)
            axis += 1
        elif i == arrays[0]:
            count = max(_index_rank(keys[j]) for j in arrays)
            new += [False] * count
            from_index += [True] * count
            axis += count
    if dropped:
        t = B.op("Squeeze", t, dropped)
    if any(new):
        t = B.op("Unsqueeze", t, [i for i, is_new in enumerate(new) if is_new])
    # As in NumPy: where other axes stand between indices, those of index tensors go to the front.
    if _are_apart(keys) and any(from_index) and not from_index[0]:
        sources = [i for i, made in enumerate(from_index) if made]
        t = moveaxis(t, sources, list(range(len(sources))))
    return t


def _index_rank(index: Tensor) -> int:
    """How many axes an index tensor gives the result."""
    return 1 if index.dtype == BOOL else B.known_rank(index, "indexing")


def _are_apart(keys: list[Any]) -> bool:
    """Whether slices or new axes stand between numbers and index tensors."""
    places = [i for i, k in enumerate(keys) if isinstance(k, (int, Tensor))]
    has_array = any(isinstance(k, Tensor) and _index_rank(k) for k in keys)
    return has_array and places[-1] - places[0] + 1 > len(places)
