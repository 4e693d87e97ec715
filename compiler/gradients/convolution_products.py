"""The products that convolutions and their gradients are made of.

Along one axis, place p of the *maps* (what Conv makes) meets place stride * p + dilation * k - pad
of the *image* (what Conv takes) at place k of the kernel. Of image, maps and kernel, two give the
third: the maps are a Conv, the other two are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape, is_static
from onnxtape.compiler.gradients.kernel_products import by_products
from onnxtape.compiler.gradients.windows import Window, padded, spatial_sizes
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]


# By the image ---------------------------------------------------------------------------------


def image_gradient(b: B, maps: Any, w: Any, window: Window, image: Any) -> Any:
    """What the maps bring to each place of the image: a ConvTranspose of the image's size.

    With stride 1 it is a Conv with the kernel turned round, measured twice as fast: 44 ms instead
    of 83 on 64x64x28x28 with 64 kernels of 3x3, 1.0 instead of 2.2 on 32 depthwise ones.
    """
    if isinstance(window.pads, list):
        turned = _turned(b, maps, w, window)
        if turned is not None:
            return turned
        rest = _remainders(window, *(spatial_sizes(b, value) for value in (image, maps, w)))
        if rest is not None:
            more = rest if any(rest) else None
            return b.op("ConvTranspose", maps, w, output_padding=more, **window.attributes())
    # As large as the image can be, then cut to its size.
    most = [s - 1 for s in window.strides]
    before = None if isinstance(window.pads, list) else window.pads
    attributes = (window if before is None else window.padless).attributes()
    large = b.op("ConvTranspose", maps, w, output_padding=most, **attributes)
    sizes = b.op("Shape", image, start=2)
    if before is None:
        return b.op("Slice", large, [0] * window.rank, sizes, window.axes)
    starts = b.op("Slice", before, [0], [window.rank], [0])
    return b.op("Slice", large, starts, b.op("Add", starts, sizes), window.axes)


def _remainders(window: Window, image: Shape, maps: Shape, kernel: Shape) -> list[int] | None:
    """The places at each axis's end that no kernel reached, as strides left no room.

    None where they are not known.
    """
    if all(s == 1 for s in window.strides):
        return [0] * window.rank
    if not (is_static(image) and is_static(maps) and is_static(kernel)):
        return None
    before, after = window.pads[: window.rank], window.pads[window.rank :]
    reached = [
        s * (n - 1) + extent
        for s, n, extent in zip(window.strides, maps, window.extents(kernel), strict=True)
    ]
    return [a + n + z - r for a, n, z, r in zip(before, image, after, reached, strict=True)]


def _turned(b: B, maps: Any, w: Any, window: Window) -> Any:
    """The gradient by a Conv, or None where there is none of this kind."""
    shape, group = b.shape(w), window.group
    if shape is None or not is_static(shape):
        return None
    pads = _turned_pads(window, shape[2:])
    if pads is None:
        return None
    count = len(shape)
    if math.prod(shape[2:]) > 1:
        w = _turned_round(b, w, window)
    # From (group * outs, ins, ...) to (group * ins, outs, ...).
    outs, ins = shape[0] // group, shape[1]
    if group == 1:
        w = b.op("Transpose", w, perm=[1, 0, *range(2, count)])
    elif outs > 1 or ins > 1:
        w = b.op("Reshape", w, [group, outs, ins, *shape[2:]])
        w = b.op("Transpose", w, perm=[0, 2, 1, *range(3, count + 1)])
        w = b.op("Reshape", w, [group * ins, outs, *shape[2:]])
    return b.op("Conv", maps, w, **{**window.attributes(), "pads": pads})


def _turned_pads(window: Window, kernel: Sequence[int]) -> list[int] | None:
    """The pads with which the kernel turned round leads from the maps to the image.

    None where it does not: with strides, or with more zeros than the kernel reaches over.
    """
    if any(s != 1 for s in window.strides):
        return None
    rest = [e - 1 for e in window.extents(kernel)] * 2
    pads = [r - p for r, p in zip(rest, window.pads, strict=True)]
    return None if min(pads) < 0 else pads


def _turned_round(b: B, w: Any, window: Window) -> Any:
    """The kernel with its spatial axes reversed."""
    back = [-1] * window.rank
    return b.op("Slice", w, back, [-(2**31)] * window.rank, window.axes, back)


# By the kernel --------------------------------------------------------------------------------


def kernel_gradient(b: B, image: Any, maps: Any, window: Window, w: Any) -> Any:
    """The correlation of image and maps at every offset that the kernel has.

    Where all sizes but the batch are known, by matrix products: see `kernel_products`. Otherwise by
    a Conv over swapped axes, which sizes do not matter to.
    """
    image, window = padded(b, image, window)
    shapes = [b.shape(v) or (None, None) for v in (image, maps, w)]
    if all(is_static(shape) for shape in (shapes[0][1:], shapes[1][1:], shapes[2])):
        kernel = [int(d) for d in shapes[2] if d is not None]
        found = by_products(b, image, maps, window, kernel)
        if found is not None:
            attributes = {**window.attributes(), "group": [window.group]}
            b.note("KernelGradient", [image, maps], found, {**attributes, "kernel": kernel})
            return found
    return _by_conv(b, image, maps, window, w)


def _by_conv(b: B, image: Any, maps: Any, window: Window, w: Any) -> Any:
    """A Conv of the image with the maps, batch and channels exchanged, whatever the sizes.

    Strides and dilations exchange their parts too. Where strides left some of the image unseen the
    result is larger than the kernel, and cut.
    """
    group, last = window.group, window.axes
    if group == 1:
        seen = b.op("Transpose", image, perm=[1, 0, *last])
    else:
        # Images of the batch as channels, the same ones for each group.
        sizes, batch = b.op("Shape", image, start=2), b.dim_tensor(image, 0)
        ins = b.dim_tensor(w, 1)
        parts = b.op("Concat", batch, b.constant([group]), ins, sizes, axis=0)
        split = b.op("Reshape", image, parts, allowzero=1)
        swapped = b.op("Transpose", split, perm=[2, 1, 0, *(a + 1 for a in last)])
        shape = b.op("Concat", ins, b.op("Mul", batch, group), sizes, axis=0)
        seen = b.op("Reshape", swapped, shape, allowzero=1)
    held = b.op("Transpose", maps, perm=[1, 0, *last])
    exchanged = {"strides": window.dilations, "dilations": window.strides}
    table = b.op("Conv", seen, held, **{**window.attributes(), **exchanged})
    if any(s != 1 for s in window.strides):
        table = b.op("Slice", table, [0] * window.rank, b.op("Shape", w, start=2), last)
    return b.op("Transpose", table, perm=[1, 0, *last])
