"""Concat of many tensors, and ScatterND that reduces long rows, or numbers without a kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape, is_static
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

#: So many tensors ONNX Runtime's kernel takes by value; the addresses of more it copies to the
#: device in each run, which cannot be recorded.
_CONCAT_LIMIT = 32
#: So many numbers in a row are worth the indices that ScatterElements wants for each: a warp of
#: threads then reads and writes side by side.
_LONG = 32
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
    """By rows, with ScatterElements, which reduces numbers of all kinds.

    The kernel of ScatterND is there for all, and fails when it runs. For the numbers that it adds
    it has a thread for each row, that goes through it alone: 8,192 in all for the gradient of as
    many tokens' vectors, where ScatterElements has one for each of 6 million numbers.
    """
    data, indices, updates = (n.required(i) for i in range(3))
    reduction = n.attribute("reduction", "none")
    known, shape = b.shape(indices), b.shape(data)
    depth = known[-1] if known else None
    if reduction == "none" or not isinstance(depth, int):
        return None
    if b.dtype(data) in _REDUCED and not _has_long_rows(shape, depth):
        return None
    sizes = b.op("Shape", data, end=depth)
    # Indices count from the end where they are negative.
    place = b.op("Mod", b.op("Add", indices, sizes), sizes)
    row = None
    for axis, column in enumerate(_columns(b, place, depth)):
        row = (
            column if row is None else b.op("Add", b.op("Mul", row, _entry(b, sizes, axis)), column)
        )
    assert row is not None
    width = b.op("ReduceProd", b.op("Shape", data, start=depth), keepdims=1)
    rows = b.op("Concat", b.op("ReduceProd", sizes, keepdims=1), width, axis=0)
    count = b.op("ReduceProd", b.op("Shape", indices, end=-1), keepdims=1)
    new = b.op("Concat", count, width, axis=0)
    places = b.op("Reshape", row, b.op("Concat", count, b.constant([1]), axis=0), allowzero=1)
    made = b.op(
        "ScatterElements",
        b.op("Reshape", data, rows, allowzero=1),
        b.op("Expand", places, new),
        b.op("Reshape", updates, new, allowzero=1),
        axis=0,
        reduction=reduction,
    )
    if is_static(shape) and 0 not in shape:
        return [b.op("Reshape", made, list(shape))]
    return [b.op("Reshape", made, b.op("Shape", data), allowzero=1)]


def _has_long_rows(shape: Shape | None, depth: int) -> bool:
    rest = None if shape is None else shape[depth:]
    return rest is not None and is_static(rest) and math.prod(rest) >= _LONG


def _columns(b: Builder[Any], indices: Any, depth: int) -> list[Any]:
    if depth == 1:
        return [indices]
    return list(b.op_multi("Split", indices, outputs=depth, axis=-1, num_outputs=depth))


def _entry(b: Builder[Any], sizes: Any, axis: int) -> Any:
    return b.op("Slice", sizes, [axis], [axis + 1], [0])
