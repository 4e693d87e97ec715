"""Gradients of operators that move elements without changing them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import same_dim
from onnxtape.compiler.gradients.indexing import put_back
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

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
    if len(n.inputs) == 1:
        return [g]
    axis = n.attribute("axis")
    if axis < 0:
        axis += b.known_rank(g, "Concat's gradient")
    sizes = [b.dim(x, axis) for x in n.inputs]
    if all(isinstance(s, int) for s in sizes):
        split: Any = sizes
    else:
        split = b.op("Concat", *[b.dim_tensor(x, axis) for x in n.inputs], axis=0)
    return list(b.op_multi("Split", g, split, outputs=len(sizes), axis=axis))


@gradient("Split")
def split(b: B, n: N, *grads: Any) -> list[Any]:
    parts = [
        b.full_like(out, 0.0) if g is None else g for out, g in zip(n.outputs, grads, strict=True)
    ]
    return [b.op("Concat", *parts, axis=n.attribute("axis", 0)), None]


@gradient("Slice")
def slice_(b: B, n: N, g: Any) -> list[Any]:
    """Padded back where steps are 1 and places known, else put back element by element."""
    x = n.required(0)
    rank = b.known_rank(x, "Slice's gradient")
    starts, axes, steps = (
        None if (value := n.input(i)) is None else b.constant_value(value) for i in (1, 3, 4)
    )
    if starts is not None and n.input(3) is None:
        axes = np.arange(len(starts))
    unit_steps = n.input(4) is None or (steps is not None and bool((steps == 1).all()))
    if starts is not None and axes is not None and unit_steps:
        padded = _pad_back(b, n, g, starts, axes % rank)
        if padded is not None:
            return [padded]

    def pick(numbers: Any) -> Any:
        return b.op("Slice", numbers, *n.inputs[1:])

    return [put_back(b, x, g, pick, reduction="none")]


def _pad_back(b: B, n: N, g: Any, starts: Any, axes: Any) -> Any:
    """`g` with zeros for what was cut off, or None where sizes are not known.

    Over all axes: ONNX Runtime moves a Pad through a Transpose without minding its `axes`.
    """
    rank = b.known_rank(n.required(0), "Slice's gradient")
    before, after = [0] * rank, [0] * rank
    for start, axis in zip(starts.tolist(), axes.tolist(), strict=True):
        whole, part = b.dim(n.required(0), axis), b.dim(n.outputs[0], axis)
        if same_dim(whole, part):
            begin = end = 0
        elif isinstance(whole, int) and isinstance(part, int):
            begin = min(max(start + whole if start < 0 else start, 0), whole)
            end = whole - part - begin
        else:
            return None
        before[axis], after[axis] = begin, end
    return b.op("Pad", g, [*before, *after])


@gradient("Pad")
def pad(b: B, n: N, g: Any) -> list[Any]:
    """Cropped back: padded by the negative amounts. The other modes copy elements of x."""
    x, pads, axes, mode = n.required(0), n.required(1), n.input(3), n.attribute("mode", "constant")
    if mode != "constant":

        def pick(numbers: Any) -> Any:
            return b.op("Pad", numbers, pads, None, axes, mode=mode)

        return [put_back(b, x, g, pick, reduction="add")]
    cropped = b.op("Pad", g, b.op("Neg", pads), None, axes)

    def fill() -> Any:
        rest = b.op("ReduceSum", g, keepdims=0)
        inner = b.op("ReduceSum", cropped, keepdims=0)
        return b.reshape_like(b.op("Sub", rest, inner), n.required(2))

    return [b.reshape_like(cropped, x), None, fill]


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


@gradient("ReverseSequence")
def reverse_sequence(b: B, n: N, g: Any) -> list[Any]:
    """Reversed once more."""
    axes = {"batch_axis": n.attribute("batch_axis", 1), "time_axis": n.attribute("time_axis", 0)}
    return [b.op("ReverseSequence", g, n.required(1), **axes), None]
