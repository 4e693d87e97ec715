"""The gradient by a convolution's kernel, as matrix products over all places.

The element of the gradient at offset k is a sum over the places p of the maps,

    sum over p of image[stride * p + dilation * k - pad] * maps[p],

a matrix product of image and maps if one of them is *unfolded*: repeated for each offset, moved by
it. Along an axis without strides either of the two can be the one that moves. Unfolding the image
along some axes and the maps along the others copies less than unfolding the image along all: three
times the image and three times the maps instead of nine times the image for 3 x 3 kernels.

ONNX has no operator that unfolds. A Conv with kernels of a single 1 does, pads and strides
included: ONNX Runtime's runs on all cores, where Slice, Pad and Concat take one (on two cores, 2.8
ms instead of 7.2 for all nine offsets of 32x16x32x32). An infinite element makes its neighbours in
the unfolded image NaN, as it makes all of the gradient infinite or NaN anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.gradients.windows import Window

B = Builder[Any]

#: What writing an element of something unfolded costs, in multiplications of a matrix product.
_WRITING = 20
#: So many elements of an image that a depthwise kernel slides over without strides are unfolded:
#: a megabyte, where the image itself may have a ninth of that.
_MOST_UNFOLDED = 1 << 18


def by_products(b: B, image: Any, maps: Any, window: Window, kernel: list[int]) -> Any | None:
    """The gradient; all sizes but the batch are known. None where a Conv would see other places.

    Args:
        kernel: (maps' channels, image's channels by group, sizes...).
    """
    sizes, places = _sizes(b, image), _sizes(b, maps)
    seen = [
        (n + before + after - extent) // s + 1
        for n, before, after, extent, s in zip(
            sizes,
            window.pads[: window.rank],
            window.pads[window.rank :],
            window.extents(kernel[2:]),
            window.strides,
            strict=True,
        )
    ]
    if seen != places:
        return None
    if kernel[1] == 1 and kernel[0] == window.group:
        return _depthwise(b, image, maps, _Plan(window, kernel, sizes, places, ()))
    plan = _plan(window, kernel, sizes, places)
    if window.group == 1 and plan.at_once:
        return _at_once(b, image, maps, plan)
    return _per_image(b, image, maps, plan)


def _sizes(b: B, value: Any) -> list[int]:
    return [d for d in (b.shape(value) or ())[2:] if isinstance(d, int)]


# Which of the two moves ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """Along which axes the maps move; along the others, the image does.

    Attributes:
        moving: the spatial axes, counted from 0, along which the maps do.
    """

    window: Window
    kernel: list[int]
    sizes: list[int]
    places: list[int]
    moving: tuple[int, ...]

    @property
    def area(self) -> int:
        """How many places of a channel the products are sums over."""
        return math.prod(
            self.sizes[a] if a in self.moving else self.places[a] for a in self.window.axes_from_0
        )

    def offsets(self, *, maps: bool) -> list[int]:
        """How many offsets the maps (or the image) are unfolded to, by axis."""
        return [
            size if (axis in self.moving) == maps else 1
            for axis, size in enumerate(self.kernel[2:])
        ]

    @property
    def is_crossed(self) -> bool:
        """Whether image and maps both move, each along other axes: along one at most each."""
        return len(self.moving) == 1 and self.window.rank == 2

    @property
    def cost(self) -> float:
        """For each image, in multiplications of a matrix product."""
        outs, ins = self.kernel[:2]
        group = self.window.group
        total = outs * ins * math.prod(self.kernel[2:]) * self.area
        once = self.at_once and group == 1
        for channels, maps in ((ins * group, False), (outs, True)):
            count = math.prod(self.offsets(maps=maps))
            # What is transposed when it is unfolded already is written twice.
            times = 1 + (not self.is_crossed if once else maps)
            if count > 1 or (not maps and max(self.window.strides) > 1):
                total += channels * count * self.area * (_WRITING * times + count)
        return total

    @property
    def at_once(self) -> bool:
        """Whether one product over all images takes less than products that are summed.

        Those write a kernel for each image. For the one, channels have to come first: before
        unfolding where each axis has one that moves along it, otherwise (more) after it.
        """
        outs, ins = self.kernel[:2]
        written = 2 * math.prod(self.kernel)
        if self.is_crossed:
            return written > ins * math.prod(self.sizes) + outs * math.prod(self.places)
        unfolded = (
            channels * math.prod(self.offsets(maps=maps)) * self.area
            for channels, maps in ((ins, False), (outs, True))
        )
        return written > 2 * sum(unfolded)


def _plan(window: Window, kernel: list[int], sizes: list[int], places: list[int]) -> _Plan:
    """The cheapest. Maps move where there are no strides, and no more pads than kernels reach."""
    free = [
        axis
        for axis in window.axes_from_0
        if kernel[2 + axis] > 1
        and window.strides[axis] == 1
        and max(window.pads[axis], window.pads[axis + window.rank])
        < window.extents(kernel[2:])[axis]
    ]
    choices = chain.from_iterable(combinations(free, n) for n in range(len(free) + 1))
    plans = (_Plan(window, kernel, sizes, places, moving) for moving in choices)
    return min(plans, key=lambda plan: plan.cost)


# Unfolding -----------------------------------------------------------------------------------


def _unfolded(b: B, value: Any, plan: _Plan, *, maps: bool) -> Any:
    """(n, channels, sizes...) as (n, channels * offsets, sizes...), itself where nothing moves."""
    window, offsets = plan.window, plan.offsets(maps=maps)
    count, reach = math.prod(offsets), window.extents(plan.kernel[2:])
    strides, pads = [1] * window.rank, [0] * 2 * window.rank
    for axis in window.axes_from_0:
        if (axis in plan.moving) != maps:
            continue
        for end in (axis, axis + window.rank):
            pads[end] = reach[axis] - 1 - window.pads[end] if maps else window.pads[end]
        strides[axis] = window.strides[axis]
    if count == 1 and max(strides) == 1 and not any(pads):
        return value
    # Channels as groups: with constant kernels and one group, ONNX Runtime would change layouts.
    channels = plan.kernel[0] if maps else plan.kernel[1] * window.group
    ones = np.eye(count)[:: -1 if maps else 1].reshape(count, 1, *offsets)
    return b.op(
        "Conv",
        value,
        np.tile(ones, (channels, *[1] * (window.rank + 1))).astype(b.dtype(value)),
        group=channels,
        strides=strides,
        pads=pads,
        dilations=window.dilations,
    )


def _kernel_of(b: B, table: Any, plan: _Plan) -> Any:
    """(group * ins * offsets of the image, outs * offsets of the maps) as a kernel."""
    (outs, ins, *sizes), group, rank = plan.kernel, plan.window.group, plan.window.rank
    by_image, by_maps = (plan.offsets(maps=maps) for maps in (False, True))
    table = b.op("Reshape", table, [group, ins, *by_image, outs // group, *by_maps])
    # Of each offset's two axes the one that is not 1.
    axes = [3 + rank + axis if axis in plan.moving else 2 + axis for axis in range(rank)]
    ones = [2 + axis if axis in plan.moving else 3 + rank + axis for axis in range(rank)]
    if group > 1:
        table = b.op("Transpose", table, perm=[0, 2 + rank, 1, *axes, *ones])
        return b.op("Reshape", table, [outs, ins, *sizes])
    # By way of the order in which channels-last layers keep their kernels, which then is all.
    table = b.op("Transpose", table, perm=[0, *axes, 1, 2 + rank, *ones])
    table = b.op("Reshape", table, [*sizes, ins, outs])
    return b.op("Transpose", table, perm=[rank + 1, rank, *range(rank)])


def _per_image(b: B, image: Any, maps: Any, plan: _Plan) -> Any:
    """A matrix product for each image and group, summed over images."""
    group, (outs, ins, *_) = plan.window.group, plan.kernel
    by_image, by_maps = (math.prod(plan.offsets(maps=maps)) for maps in (False, True))
    lead = [-1] if group == 1 else [-1, group]
    seen = b.op(
        "Reshape", _unfolded(b, image, plan, maps=False), [*lead, ins * by_image, plan.area]
    )
    held = _unfolded(b, maps, plan, maps=True)
    held = b.op("Reshape", held, [*lead, outs // group, by_maps, plan.area])
    # ONNX Runtime would make a Transpose right before the product a part of it, which then is
    # slower: 5.8 ms instead of 4.0 for 32x16x32x32 and 3 x 3.
    last = len(lead)
    held = b.op("Transpose", held, perm=[*range(last), last + 2, last, last + 1])
    held = b.op("Reshape", held, [*lead, plan.area, outs // group * by_maps])
    total = b.op("ReduceSum", b.op("MatMul", seen, held), [0], keepdims=0)
    return _kernel_of(b, total, plan)


def _at_once(b: B, image: Any, maps: Any, plan: _Plan) -> Any:
    """One matrix product over all images."""
    batch = b.dim(image, 0)
    # A batch of no images is fine for a Conv, one image of no size is not.
    beside = plan.is_crossed and isinstance(batch, int) and batch > 0
    values = []
    for value, channels, is_maps in ((image, plan.kernel[1], False), (maps, plan.kernel[0], True)):
        rows = channels * math.prod(plan.offsets(maps=is_maps))
        if beside:
            value = _joined(b, value, plan, maps=is_maps)
        else:
            value = _unfolded(b, value, plan, maps=is_maps)
            value = b.op("Reshape", value, [-1, rows, plan.area])
            value = b.op("Transpose", value, perm=[1, 0, 2])
        values.append(b.op("Reshape", value, [rows, -1]))
    return _kernel_of(b, b.op("Gemm", *values, transB=1), plan)


def _joined(b: B, value: Any, plan: _Plan, *, maps: bool) -> Any:
    """The images side by side along the axis along which this value does not move, unfolded.

    Places are in the order (first axis, image, second axis) for both.
    """
    moving = plan.moving[0] if maps else 1 - plan.moving[0]
    channels, *sizes = (b.shape(value) or ())[1:]
    value = b.op("Transpose", value, perm=[1, 2, 0, 3])
    shape = [1, channels, sizes[0], -1] if moving == 0 else [1, channels, -1, sizes[1]]
    return _unfolded(b, b.op("Reshape", value, shape), plan, maps=maps)


# Depthwise -----------------------------------------------------------------------------------


def _depthwise(b: B, image: Any, maps: Any, plan: _Plan) -> Any:
    """One channel, one kernel: the image unfolded, or, where that is much, products and sums.

    32x96x56x56 with 3x3 and strides takes 31 ms, 111 by sums; 16x64x16x16 without 2.8, 3.7 by sums.
    """
    unfolded = plan.kernel[0] * math.prod(plan.kernel[2:]) * plan.area
    if max(plan.window.strides) > 1 or unfolded <= _MOST_UNFOLDED:
        return _per_image(b, image, maps, plan)
    sums = [
        b.op(
            "ReduceSum",
            b.op("ReduceSum", b.op("Mul", part, maps), plan.window.axes, keepdims=0),
            [0],
        )
        for part in _slices(b, image, plan)
    ]
    table = b.op("Concat", *sums, axis=0)
    return b.op("Reshape", b.op("Transpose", table, perm=[1, 0]), plan.kernel)


def _slices(b: B, image: Any, plan: _Plan) -> Iterator[Any]:
    """What each offset of the kernel, without strides, sees of the image."""
    window = plan.window
    if any(window.pads):
        # For all axes: ONNX Runtime 1.32 fails where it moves Transposes past a Pad of some axes.
        before, after = window.pads[: window.rank], window.pads[window.rank :]
        image = b.op("Pad", image, [0, 0, *before, 0, 0, *after])
    for offset in product(*map(range, plan.kernel[2:])):
        starts = [o * d for o, d in zip(offset, window.dilations, strict=True)]
        ends = [first + count for first, count in zip(starts, plan.places, strict=True)]
        yield b.op("Slice", image, starts, ends, window.axes)
