"""The products that convolutions and their gradients are made of.

Along one axis, place p of the *maps* (what Conv makes) meets place stride * p + dilation * k - pad
of the *image* (what Conv takes) at place k of the kernel. Of image, maps and kernel, two give the
third: the maps are a Conv, the other two are here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape, is_static
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel slides over an image.

    Attributes:
        pads: zeros before each spatial axis, then those after each; an int64 vector where they
            depend on sizes that are known only at run time.
    """

    strides: list[int]
    dilations: list[int]
    group: int
    pads: Any

    @classmethod
    def of(cls, b: B, n: N) -> Window:
        """The node's, but for its pads, which are the node's attribute or zeros."""
        rank = b.known_rank(n.required(0), f"{n.op_type}'s gradient") - 2
        return cls(
            list(n.attribute("strides") or [1] * rank),
            list(n.attribute("dilations") or [1] * rank),
            n.attribute("group", 1),
            list(n.attribute("pads") or [0] * 2 * rank),
        )

    @property
    def rank(self) -> int:
        return len(self.strides)

    @property
    def axes(self) -> list[int]:
        return list(range(2, self.rank + 2))

    @property
    def padless(self) -> Window:
        return replace(self, pads=[0] * 2 * self.rank)

    def extents(self, kernel: Sequence[int]) -> list[int]:
        """How far a kernel of these sizes reaches over the image."""
        return [(k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True)]

    def attributes(self) -> dict[str, Any]:
        """As Conv and ConvTranspose take them."""
        return {
            "strides": self.strides,
            "dilations": self.dilations,
            "group": self.group,
            "pads": self.pads,
        }


def padded(b: B, image: Any, window: Window) -> tuple[Any, Window]:
    """The image with pads that are known only at run time, and the window without them."""
    if isinstance(window.pads, list):
        return image, window
    none, rank = b.constant([0, 0]), window.rank
    before, after = (b.op("Slice", window.pads, [i], [i + rank], [0]) for i in (0, rank))
    pads = b.op("Concat", none, before, none, after, axis=0)
    return b.op("Pad", image, pads), window.padless


def spatial_sizes(b: B, value: Any) -> Shape:
    """The value's dimensions after batch and channels."""
    b.known_rank(value, "a convolution's gradient")
    return (b.shape(value) or ())[2:]


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

    Where all sizes but the batch are known, by products of the image's slices at these offsets with
    the maps: per image and then summed, or, where the kernel is large against image and maps, over
    all images at once, for which both are transposed first. Depthwise kernels take sums of plain
    products. Otherwise by a Conv over swapped axes, which sizes do not matter to.

    With stride 1, and maps that have at most half the image's channels, image and maps change
    places: slices of the maps take 24 ms instead of 717 for 64x128x28 to 1 with 7x7, 7.8 instead of
    18 for 20x48x32 to 16 with 3x3, and no 1.2 GB.

    Milliseconds on 2 cores (images x channels x size, kernel, stride): in the order per image /
    at once / Conv; the first is taken where twice the kernel's elements are fewer than those of an
    image and its maps.

        64x64x28 to 64, 3x3      35 / 39 / 175      64x128x28 to 128, 4x4, 2   90 / 77 / 77
        32x16x32 to 16, 3x3      3.2 / 3.2 / 38     64x32x13 to 64, 3x3        6.7 / 2.9 / 7.3
        64x1x28 to 32, 3x3       0.5 / 1.1 / 1.7    32x64x8 to 64, 3x3         3.2 / 1.9 / 4.7
        8x3x224 to 64, 7x7, 2    29 / 38 / 25       16x128x7 to 512, 3x3, 2    11 / 5.2 / 6.1

    Depthwise, 32x32x32, 3x3: products and sums 3.9, per image 6.1, Conv 11.
    """
    image, window = padded(b, image, window)
    whole, parts, shape = (b.shape(v) or (None, None) for v in (image, maps, w))
    whole, parts = whole[1:], parts[1:]
    if not (is_static(whole) and is_static(parts) and is_static(shape)):
        return _by_conv(b, image, maps, window, w)
    kernel, places = list(shape), list(parts[1:])
    few_maps = window.group == 1 and 2 * kernel[0] <= kernel[1]
    if few_maps and (rest := _turned_pads(window, kernel[2:])) is not None:
        # Few maps, many channels of the image: slices of the maps are the smaller ones.
        turned, exchanged = replace(window, pads=rest), [kernel[1], kernel[0], *kernel[2:]]
        found = _products(b, maps, image, turned, exchanged, list(whole[1:]))
        swapped = b.op("Transpose", found, perm=[1, 0, *window.axes])
        return _turned_round(b, swapped, window)
    return _products(b, image, maps, window, kernel, places)


def _products(
    b: B, image: Any, maps: Any, window: Window, kernel: list[int], places: list[int]
) -> Any:
    """By products of the image's slices with the maps; all sizes but the batch are known."""
    whole = [d for d in (b.shape(image) or ())[1:] if isinstance(d, int)]
    if any(window.pads):
        # For all axes: ONNX Runtime 1.32 fails where it moves Transposes past a Pad of some axes.
        before, after = window.pads[: window.rank], window.pads[window.rank :]
        image = b.op("Pad", image, [0, 0, *before, 0, 0, *after])
    if kernel[1] == 1 and kernel[0] == window.group:
        return _depthwise(b, image, maps, window, kernel, places)
    if window.group > 1 or 2 * math.prod(kernel) <= math.prod(whole) + kernel[0] * math.prod(
        places
    ):
        return _per_image(b, image, maps, window, kernel, places)
    return _at_once(b, image, maps, window, kernel, places)


def _slices(
    b: B, image: Any, window: Window, kernel: Sequence[int], places: Sequence[int]
) -> Iterator[Any]:
    """What each offset of the kernel sees of the padded image, its last axes being the spatial."""
    axes = list(range(-window.rank, 0))
    strides = None if all(s == 1 for s in window.strides) else window.strides
    if strides is None and math.prod(kernel) == 1 and spatial_sizes(b, image) == tuple(places):
        yield image
        return
    for offset in product(*map(range, kernel)):
        starts = [o * d for o, d in zip(offset, window.dilations, strict=True)]
        ends = [
            first + s * (count - 1) + 1
            for first, s, count in zip(starts, window.strides, places, strict=True)
        ]
        yield b.op("Slice", image, starts, ends, axes, strides)


def _depthwise(
    b: B, image: Any, maps: Any, window: Window, shape: list[int], places: list[int]
) -> Any:
    """One channel, one kernel: products and sums."""
    spatial = window.axes
    sums = [
        b.op("ReduceSum", b.op("ReduceSum", b.op("Mul", part, maps), spatial, keepdims=0), [0])
        for part in _slices(b, image, window, shape[2:], places)
    ]
    table = b.op("Concat", *sums, axis=0)  # (offsets, channels)
    return b.op("Reshape", b.op("Transpose", table, perm=[1, 0]), shape)


def _per_image(
    b: B, image: Any, maps: Any, window: Window, shape: list[int], places: list[int]
) -> Any:
    """A matrix product for each image and group, summed over images."""
    group, (outs, ins, *kernel) = window.group, shape
    outs //= group
    count, area = math.prod(kernel), math.prod(places)
    lead = [0] if group == 1 else [0, group]  # 0: the batch as it is
    if group > 1:
        image = b.op("Reshape", image, [*lead, ins, *spatial_sizes(b, image)])
    parts = list(_slices(b, image, window, kernel, places))
    seen = b.op("Concat", *parts, axis=len(lead)) if len(parts) > 1 else parts[0]
    seen = b.op("Reshape", seen, [*lead, count * ins, area])
    held = b.op("Reshape", maps, [*lead, outs, area])
    last = len(lead)
    held = b.op("Transpose", held, perm=[*range(last), last + 1, last])
    total = b.op("ReduceSum", b.op("MatMul", seen, held), [0], keepdims=0)
    if group == 1:
        return _kernel_of(b, total, shape)
    # (group, offsets * ins, outs) to (group, outs, ins, offsets).
    table = b.op("Reshape", total, [group, count, ins, outs])
    return b.op("Reshape", b.op("Transpose", table, perm=[0, 3, 2, 1]), shape)


def _at_once(
    b: B, image: Any, maps: Any, window: Window, shape: list[int], places: list[int]
) -> Any:
    """One matrix product over all images, with channels first; no groups."""
    outs, ins, *kernel = shape
    first = [1, 0, *window.axes]
    parts = list(_slices(b, b.op("Transpose", image, perm=first), window, kernel, places))
    seen = b.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
    seen = b.op("Reshape", seen, [math.prod(kernel) * ins, -1])
    held = b.op("Reshape", b.op("Transpose", maps, perm=first), [outs, -1])
    return _kernel_of(b, b.op("Gemm", seen, held, transB=1), shape)


def _kernel_of(b: B, table: Any, shape: list[int]) -> Any:
    """(offsets * ins, outs) as a kernel: channels-last layers keep theirs in just this order."""
    outs, ins, *kernel = shape
    rank = len(kernel)
    table = b.op("Reshape", table, [*kernel, ins, outs])
    return b.op("Transpose", table, perm=[rank + 1, rank, *range(rank)])


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
