"""Gradients of operators that move elements without changing them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


@gradient("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(b: B, n: N, g: Any) -> list[Any]:
    return [b.reshape_like(g, n.required(0)), None]


@gradient("Transpose")
def transpose(b: B, n: N, g: Any) -> list[Any]:
    perm = n.attribute("perm")
    if perm is None:
        return [b.op("Transpose", g)]
    return [b.op("Transpose", g, perm=[int(i) for i in np.argsort(perm)])]


@gradient("Expand", broadcasts=True)
def expand(b: B, n: N, g: Any) -> list[Any]:
    return [g, None]


@gradient("Concat")
def concat(b: B, n: N, g: Any) -> list[Any]:
    axis = n.attribute("axis")
    if axis < 0:
        axis += b.known_rank(g, "Concat's gradient")
    sizes = [b.dim(x, axis) for x in n.inputs]
    if all(isinstance(s, int) for s in sizes):
        split: Any = sizes
    else:
        split = b.op("Concat", *[b.dim_tensor(x, axis) for x in n.inputs], axis=0)
    if len(sizes) == 1:
        return [g]
    return list(b.op_multi("Split", g, split, outputs=len(sizes), axis=axis))


@gradient("Split")
def split(b: B, n: N, *grads: Any) -> list[Any]:
    parts = [
        b.full_like(out, 0.0) if g is None else g for out, g in zip(n.outputs, grads, strict=True)
    ]
    return [b.op("Concat", *parts, axis=n.attribute("axis", 0)), None]


@gradient("Slice")
def slice_(b: B, n: N, g: Any) -> list[Any]:
    """Padded back where the steps are 1 and the starts known, else scattered by flat index."""
    x = n.required(0)
    rank = b.known_rank(x, "Slice's gradient")
    constants = [None if v is None else b.constant_value(v) for v in n.inputs[1:]]
    starts = constants[0]
    axes = constants[2] if n.input(3) is not None else np.arange(rank)
    steps = constants[3] if n.input(4) is not None else np.ones(1)
    known = starts is not None and axes is not None and steps is not None
    if known and (steps == 1).all() and (starts >= 0).all():  # type: ignore[operator,union-attr]
        padded = _pad_back(b, x, g, starts, np.asarray(axes) % rank)  # type: ignore[arg-type]
        if padded is not None:
            return [padded]
    flat = b.op("Range", *(b.constant(np.int64(0)), b.op("Size", x), b.constant(np.int64(1))))
    places = b.op("Slice", b.reshape_like(flat, x), *n.inputs[1:])
    zeros = b.op("Reshape", b.full_like(x, 0.0), [-1])
    flat_places = b.op("Reshape", places, [-1])
    flat_grad = b.op("Reshape", g, [-1])
    return [b.reshape_like(b.op("ScatterElements", zeros, flat_places, flat_grad, axis=0), x)]


def _pad_back(b: B, x: Any, g: Any, starts: Any, axes: Any) -> Any:
    before, after = [], []
    for start, axis in zip(starts, axes, strict=True):
        whole, part = b.dim(x, int(axis)), b.dim(g, int(axis))
        if not (isinstance(whole, int) and isinstance(part, int)):
            return None
        before.append(min(int(start), whole))
        after.append(whole - part - before[-1])
    return b.op("Pad", g, [*before, *after], None, [int(a) for a in axes])


@gradient("Pad")
def pad(b: B, n: N, g: Any) -> list[Any]:
    """Cropped back: padding by the negative amounts (constant mode)."""
    mode = n.attribute("mode", "constant")
    if mode != "constant":
        raise Refusal(f"mode '{mode}' has no rule yet; only 'constant' has")
    x, pads, axes = n.required(0), n.required(1), n.input(3)
    cropped = b.op("Pad", g, b.op("Neg", pads), None, axes)

    def fill() -> Any:
        rest = b.op("ReduceSum", g, keepdims=0)
        inner = b.op("ReduceSum", cropped, keepdims=0)
        return b.reshape_like(b.op("Sub", rest, inner), n.required(2))

    return [b.reshape_like(cropped, x), None, fill if n.input(2) is not None else None, None]


@gradient("Tile")
def tile(b: B, n: N, g: Any) -> list[Any]:
    """Summed over the copies: g as (r0, d0, r1, d1, ...), reduced over the r axes."""
    x, repeats = n.required(0), n.required(1)
    rank = b.known_rank(x, "Tile's gradient")
    if rank == 0:
        return [g, None]
    pairs = b.op(
        "Concat",
        b.op("Unsqueeze", repeats, [1]),
        b.op("Unsqueeze", b.shape_tensor(x), [1]),
        axis=1,
    )
    copies = b.op("Reshape", g, b.op("Reshape", pairs, [-1]), allowzero=1)
    summed = b.op("ReduceSum", copies, list(range(0, 2 * rank, 2)), keepdims=0)
    return [b.reshape_like(summed, x), None]


@gradient("Trilu")
def trilu(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Trilu", g, n.input(1), upper=n.attribute("upper", 1)), None]
