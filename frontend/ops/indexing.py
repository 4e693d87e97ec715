"""Indexing, gathering and scattering."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import operands
from onnxtape.ops.shapes import ravel
from onnxtape.tensor import SymbolicDim, Tensor

__all__ = ["getitem", "scatter_update", "take", "take_along_axis"]

_INT64 = np.dtype(np.int64)
_END = np.iinfo(np.int64).max


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """The slices of x at `indices` along an axis (of the flat tensor by default)."""
    t = ravel(x) if axis is None else convert_to_tensor(x)
    return B.op("Gather", t, convert_to_tensor(indices, _INT64), axis=axis or 0)


def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """One element per index along an axis, as numpy.take_along_axis."""
    t, places = convert_to_tensor(x), convert_to_tensor(indices, _INT64)
    if axis is None:
        return B.op("GatherElements", ravel(t), ravel(places), axis=0)
    return B.op("GatherElements", t, places, axis=axis)


def scatter_update(inputs: Any, indices: Any, updates: Any) -> Tensor:
    """`inputs` with `updates` at `indices` (..., k), each naming a place by its first k axes."""
    t, new = operands(inputs, updates)
    return B.op("ScatterND", t, convert_to_tensor(indices, _INT64), new)


def getitem(x: Any, key: Any) -> Tensor:
    """x[key], for ints, slices, None, `...`, integer tensors, and one boolean mask."""
    t = convert_to_tensor(x)
    keys = list(key) if isinstance(key, tuple) else [key]
    rank = B.known_rank(t, "indexing")
    consumed = [k for k in keys if k is not None and k is not Ellipsis]
    if len(consumed) > rank:
        raise IndexError(f"{len(consumed)} indices for a tensor of rank {rank}")
    keys = _without_ellipsis(keys, rank - len(consumed))

    axis = 0
    starts: list[Any] = []
    ends: list[Any] = []
    axes: list[int] = []
    steps: list[int] = []
    drop: list[int] = []
    gathers: list[tuple[int, Any]] = []
    for k in keys:
        if k is None:
            continue
        if isinstance(k, slice):
            if k != slice(None):
                step = 1 if k.step is None else int(k.step)
                starts.append((_END if step < 0 else 0) if k.start is None else k.start)
                ends.append((-_END if step < 0 else _END) if k.stop is None else k.stop)
                axes.append(axis)
                steps.append(step)
        elif isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            dim = B.dim(t, axis)
            if isinstance(dim, int) and not -dim <= k < dim:
                raise IndexError(f"index {k} is out of range for axis {axis} of size {dim}")
            starts.append(int(k))
            ends.append(_END if k == -1 else int(k) + 1)
            axes.append(axis)
            steps.append(1)
            drop.append(axis)
        elif isinstance(k, (SymbolicDim, float, str)):
            raise TypeError(f"cannot index a tensor with {k!r}")
        else:
            gathers.append((axis, convert_to_tensor(k)))
        axis += 1
    if axes:
        t = B.op("Slice", t, _bounds(starts), _bounds(ends), axes, steps)
    t = _gathered(t, gathers)
    return _reshaped(t, keys, drop)


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
    parts = [B.op("Reshape", convert_to_tensor(v, _INT64), [1]) for v in values]
    return parts[0] if len(parts) == 1 else B.op("Concat", *parts, axis=0)


def _gathered(t: Tensor, gathers: list[tuple[int, Tensor]]) -> Tensor:
    if not gathers:
        return t
    if len(gathers) > 1:
        axes = [axis for axis, _ in gathers]
        if axes != list(range(len(axes))) or any(k.dtype == np.bool_ for _, k in gathers):
            raise IndexError(
                "several integer tensors index only leading, adjacent axes; transpose first"
            )
        places = [B.cast(k, _INT64) for _, k in gathers]
        like = B.op("Sum", *[B.cast(p, np.dtype(np.float32)) for p in places])
        places = [B.op("Unsqueeze", B.expand_like(p, like), [-1]) for p in places]
        return B.op("GatherND", t, B.op("Concat", *places, axis=-1))
    axis, index = gathers[0]
    if index.dtype == np.bool_:
        if B.known_rank(index, "a boolean index") != 1:
            raise IndexError("a boolean index has rank 1; use ops.where for masks of higher rank")
        return B.op("Compress", t, index, axis=axis)
    return B.op("Gather", t, B.cast(index, _INT64), axis=axis)


def _reshaped(t: Tensor, keys: list[Any], drop: list[int]) -> Tensor:
    """Integer-indexed axes dropped, None-indexed ones added, in the result's numbering."""
    # A gathered axis turns into as many as its index has; only one such index is possible here
    # unless they lead, so axes before it keep their number.
    extra = 0
    moved: list[int] = []
    axis = 0
    inserts: list[int] = []
    out = 0
    for k in keys:
        if k is None:
            inserts.append(out)
            out += 1
            continue
        if axis in drop:
            moved.append(axis + extra)
        elif isinstance(k, slice):
            out += 1
        else:
            rank = B.known_rank(convert_to_tensor(k), "indexing")
            extra += rank - 1
            out += rank
        axis += 1
    if moved:
        t = B.op("Squeeze", t, moved)
    return B.op("Unsqueeze", t, inserts) if inserts else t
