"""DeformConv written with simpler operators, which gives its gradients."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal

B = Builder[Any]
N = Record[Any]


@expansion("DeformConv")
def deform_conv(b: B, n: N) -> list[Any]:
    """Bilinear samples of the image at displaced places, then a matrix product (arXiv:1811.11168).

    At whole places, where the samples have a kink, the derivative by the offset is the one towards
    larger places.
    """
    x, w, offset = (n.required(i) for i in range(3))
    if b.known_rank(x, "DeformConv's gradient") != 4:
        raise Refusal("only images of two spatial dimensions are covered")
    kernel = n.attribute("kernel_shape") or (b.shape(w) or (None,) * 4)[2:]
    if not all(isinstance(k, int) for k in kernel):
        raise Refusal("its gradient needs a kernel whose size is known")
    parts, group = n.attribute("offset_group", 1), n.attribute("group", 1)
    count = math.prod(map(int, kernel))

    moved = b.op("Reshape", offset, [0, parts, count, 2, -1])
    rows, columns = (
        b.op("Add", b.op("Squeeze", part, [3]), _grid(b, n, kernel, axis))
        for axis, part in enumerate(b.op_multi("Split", moved, outputs=2, axis=3, num_outputs=2))
    )
    samples = _samples(b, x, _flat(b, rows, parts), _flat(b, columns, parts), parts)
    mask = n.input(4)
    if mask is not None:
        samples = b.op("Mul", samples, _flat(b, mask, parts))
    # (batch, group, ins * offsets, places), the kernels as (group, outs, ins * offsets).
    rows_of_kernel = b.op("Mul", b.dim_tensor(w, 1), count)
    seen = b.op("Reshape", samples, _dims(b, 0, group, rows_of_kernel, -1))
    kernels = b.op("Reshape", w, _dims(b, group, -1, rows_of_kernel))
    maps = b.op("MatMul", kernels, seen)
    y = b.reshape_like(maps, n.outputs[0])
    bias = n.input(3)
    return [y if bias is None else b.op("Add", y, b.op("Reshape", bias, [-1, 1, 1]))]


def _dims(b: B, *parts: Any) -> Any:
    """A shape for Reshape out of numbers and vectors."""
    vectors = [b.constant([d]) if isinstance(d, int) else d for d in parts]
    return b.op("Concat", *vectors, axis=0)


def _flat(b: B, places: Any, parts: int) -> Any:
    """(batch, parts, 1, offsets * places)"""
    return b.op("Reshape", places, [0, parts, 1, -1])


def _grid(b: B, n: N, kernel: Any, axis: int) -> Any:
    """Where each offset of the kernel meets the image without displacement, along one axis.

    Shape (offsets, places).
    """
    strides, dilations = n.attribute("strides") or [1, 1], n.attribute("dilations") or [1, 1]
    pads, dtype = n.attribute("pads") or [0] * 4, b.dtype(n.required(2))
    offsets = np.indices(kernel)[axis].reshape(-1, 1, 1) * dilations[axis] - pads[axis]
    size = b.op("Squeeze", b.dim_tensor(n.required(2), axis + 2))
    starts = b.op("Mul", b.op("Range", b.constant(0), size, b.constant(1)), strides[axis])
    line = b.op("Unsqueeze", b.cast(starts, dtype), [1 - axis])
    whole = b.op("Expand", line, b.op("Shape", n.required(2), start=2))
    return b.op("Reshape", b.op("Add", whole, offsets.astype(dtype)), [int(np.prod(kernel)), -1])


def _samples(b: B, x: Any, rows: Any, columns: Any, parts: int) -> Any:
    """The image at these places, zero outside: (batch, parts, channels, places)."""
    # A border of zeros, into which all places outside are moved.
    framed = b.op("Pad", x, [0, 0, 1, 1, 0, 0, 1, 1])
    sizes, width = b.op("Shape", framed, start=2), b.dim_tensor(framed, 3)
    pixels = b.op("Reshape", framed, _dims(b, 0, parts, -1, sizes))
    pixels = b.op("Reshape", pixels, [0, 0, 0, -1])
    channels = b.dim_tensor(pixels, 2)
    one = b.constant([1])
    copies = b.op("Concat", one, one, channels, one, axis=0)

    corners = []
    for places, axis in ((rows, 2), (columns, 3)):
        before = b.op("Floor", places)
        share = b.op("Sub", places, before)
        last = b.cast(b.op("Squeeze", b.dim_tensor(framed, axis)), b.dtype(places))
        last = b.op("Sub", last, 1.0)
        corners.append(
            [
                (
                    b.cast(
                        b.op("Clip", b.op("Add", before, step + 1.0), 0.0, last), np.dtype(np.int64)
                    ),
                    share if step else b.op("Sub", 1.0, share),
                )
                for step in (0, 1)
            ]
        )
    total = []
    for (row, high), (column, wide) in product(*corners):
        place = b.op("Expand", b.op("Add", b.op("Mul", row, width), column), copies)
        pixel = b.op("GatherElements", pixels, place, axis=3)
        total.append(b.op("Mul", pixel, b.op("Mul", high, wide)))
    return b.op("Sum", *total)
