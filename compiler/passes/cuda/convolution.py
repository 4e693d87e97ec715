"""Transposed convolutions that pad one side more than the other, and blocks that are added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

_END = 2**31 - 1


@lowering("ConvTranspose")
def conv_transpose(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """With the lesser padding on both sides; what is too much at the ends is cut off.

    ONNX Runtime leaves others to the CPU, and those of auto_pad, whose padding follows from the
    kernel: so that the output has stride times as many places as the input.
    """
    pads = _pads(b, n)
    if pads is None:
        return None
    rank = len(pads) // 2
    begins, ends = pads[:rank], pads[rank:]
    lesser = [min(pair) for pair in zip(begins, ends, strict=True)]
    if begins == ends and _auto_pad(n) == "NOTSET":
        return None
    attributes = {
        name: value for name, value in n.attributes.items() if name not in ("auto_pad", "pads")
    }
    attributes["pads"] = [*lesser, *lesser]
    inputs = list(n.inputs)
    (whole,) = b.emit("ConvTranspose", inputs, attributes)
    first = [begin - less for begin, less in zip(begins, lesser, strict=True)]
    last = [less - end or _END for end, less in zip(ends, lesser, strict=True)]
    if not any(first) and all(end == _END for end in last):
        return [whole]
    return [b.op("Slice", whole, first, last, list(range(2, rank + 2)))]


def _auto_pad(n: Record[Any]) -> str:
    return str(n.attribute("auto_pad", "NOTSET"))


def _pads(b: Builder[Any], n: Record[Any]) -> list[int] | None:
    """The padding before and after, axis by axis; None where it depends on the input's size."""
    if n.attribute("output_shape"):
        return None
    kernel = b.shape(n.required(1))
    if not is_static(kernel):
        return None
    sizes, rank = kernel[2:], len(kernel) - 2
    auto = _auto_pad(n)
    if auto == "NOTSET":
        return list(n.attribute("pads") or [0] * (2 * rank))
    if auto == "VALID":
        return [0] * (2 * rank)
    strides = n.attribute("strides") or [1] * rank
    dilations = n.attribute("dilations") or [1] * rank
    more = n.attribute("output_padding") or [0] * rank
    parameters = zip(sizes, strides, dilations, more, strict=True)
    totals = [(size - 1) * d + 1 + extra - s for size, s, d, extra in parameters]
    if any(total < 0 for total in totals):
        return None
    less = [total // 2 for total in totals]
    rest = [total - half for total, half in zip(totals, less, strict=True)]
    return [*less, *rest] if auto == "SAME_UPPER" else [*rest, *less]


@lowering("Col2Im")
def col2im(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """Number by number to their places. (Not by a ConvTranspose, which TF32 would round.)"""
    columns, *sizes = (n.required(i) for i in range(3))
    known = [b.constant_value(value) for value in sizes]
    if known[0] is None or known[1] is None:
        return None
    image, block = ([int(d) for d in value] for value in known if value is not None)
    rank, count = len(image), math.prod(image)
    strides, dilations = (n.attribute(k) or [1] * rank for k in ("strides", "dilations"))
    places = _block_places(image, block, strides, dilations, n.attribute("pads") or [0] * 2 * rank)
    rows = b.op("Reshape", columns, [-1, places.size])
    # One place more, for what falls on the edge.
    shape = b.op("Concat", b.op("Shape", rows, end=1), b.constant([count + 1]), axis=0)
    nothing = b.op("ConstantOfShape", shape, value=np.zeros(1, b.dtype(columns)))
    indices = b.op("Expand", b.constant(places.reshape(1, -1)), b.op("Shape", rows))
    made = b.op("ScatterElements", nothing, indices, rows, axis=1, reduction="add")
    made = b.op("Slice", made, [0], [count], [1])
    batch = b.op("Shape", columns, end=1)
    return [b.op("Reshape", made, b.op("Concat", batch, b.constant([-1, *image]), axis=0))]


def _block_places(
    image: Sequence[int],
    block: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> npt.NDArray[np.int64]:
    """Where in the image, its axes made one, each place of each block is: (block, blocks).

    The number of places in the image for what is outside of it.
    """
    rank = len(image)
    total = np.zeros([1] * 2 * rank, np.int64)
    inside = np.ones([1] * 2 * rank, bool)
    for axis, size in enumerate(image):
        before, after = pads[axis], pads[axis + rank]
        reach = (block[axis] - 1) * dilations[axis] + 1
        blocks = (size + before + after - reach) // strides[axis] + 1
        offset, start = np.arange(block[axis]) * dilations[axis], np.arange(blocks) * strides[axis]
        place = offset[:, None] + start - before
        spread = [1] * 2 * rank
        spread[axis], spread[axis + rank] = place.shape
        place = place.reshape(spread)
        total = total * size + place
        inside = inside & (place >= 0) & (place < size)
    return np.where(inside, total, math.prod(image))
