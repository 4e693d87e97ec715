"""Concat of many tensors, and ScatterND that reduces other numbers than float32 and float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

#: So many tensors ONNX Runtime's kernel takes by value; the addresses of more it copies to the
#: device in each run, which cannot be recorded.
_CONCAT_LIMIT = 32
_REDUCED = (np.dtype(np.float32), np.dtype(np.float16))


@lowering("Concat")
def concat(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """In groups, and groups of groups."""
    parts = list(n.inputs)
    if len(parts) <= _CONCAT_LIMIT:
        return None
    axis = n.attribute("axis")
    while len(parts) > 1:
        groups = [parts[i : i + _CONCAT_LIMIT] for i in range(0, len(parts), _CONCAT_LIMIT)]
        parts = [b.op("Concat", *g, axis=axis) if len(g) > 1 else g[0] for g in groups]
    return parts


@lowering("ScatterND")
def scatter_nd(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """Element by element: ScatterElements reduces numbers of all kinds.

    The kernel is there for all, and fails when it runs.
    """
    data, indices, updates = (n.required(i) for i in range(3))
    reduction = n.attribute("reduction", "none")
    if reduction == "none" or b.dtype(data) in _REDUCED:
        return None
    known = b.shape(indices)
    depth = known[-1] if known else None
    if not isinstance(depth, int):
        return None
    sizes = b.op("Shape", data, end=depth)
    width = b.op("ReduceProd", b.op("Shape", data, start=depth), keepdims=1)
    # Indices count from the end where they are negative.
    place = b.op("Mod", b.op("Add", indices, sizes), sizes)
    row = None
    for axis, column in enumerate(_columns(b, place, depth)):
        row = (
            column if row is None else b.op("Add", b.op("Mul", row, _entry(b, sizes, axis)), column)
        )
    assert row is not None
    row = b.op("Reshape", row, [-1, 1])
    within = b.op("Range", b.constant(np.int64(0)), b.op("Squeeze", width), b.constant(np.int64(1)))
    flat = b.op("Reshape", b.op("Add", b.op("Mul", row, width), within), [-1])
    whole, new = b.op("Reshape", data, [-1]), b.op("Reshape", updates, [-1])
    made = b.op("ScatterElements", whole, flat, new, axis=0, reduction=reduction)
    shape = b.shape(data)
    if is_static(shape) and 0 not in shape:
        return [b.op("Reshape", made, list(shape))]
    return [b.op("Reshape", made, b.op("Shape", data), allowzero=1)]


def _columns(b: Builder[Any], indices: Any, depth: int) -> list[Any]:
    if depth == 1:
        return [indices]
    return list(b.op_multi("Split", indices, outputs=depth, axis=-1, num_outputs=depth))


def _entry(b: Builder[Any], sizes: Any, axis: int) -> Any:
    return b.op("Slice", sizes, [axis], [axis + 1], [0])
