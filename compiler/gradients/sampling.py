"""Gradients of reading images at computed places: grids and regions of interest.

All are expansions: the places and weights are written out, so both the image and the coordinates
have gradients. Rounded coordinates carry none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]

#: Indices along an axis, as floats, and their weights, of one shape.
Tap = tuple[Any, Any]


@expansion("GridSample")
def grid_sample(b: B, n: N) -> list[Any]:
    """The weighted sum of the pixels around each point.

    At whole coordinates, where a linear interpolation has a kink, the slope on the right counts;
    on the border of what is clamped or reflected, none: as torch.nn.functional.grid_sample.
    """
    x, grid = n.required(0), n.required(1)
    rank = b.known_rank(x, "GridSample's gradient") - 2
    dtype, align = b.dtype(x), bool(n.attribute("align_corners", 0))
    padding, mode = n.attribute("padding_mode", "zeros"), n.attribute("mode", "linear")
    points = b.op("Reshape", b.cast(grid, dtype), [0, -1, rank])
    taps = []
    for axis in range(rank):
        # The grid's last axis runs from the image's last axis to its first.
        place = b.op("Gather", points, [rank - 1 - axis], axis=2)
        size = _size(b, x, 2 + axis, dtype)
        span = b.op("Sub", size, 1.0) if align else size
        place = b.op("Mul", b.op("Add", place, 1.0), b.op("Mul", span, 0.5))
        place = place if align else b.op("Sub", place, 0.5)
        if mode == "linear" and padding != "zeros":
            index, weight = _taps(b, _folded(b, place, size, padding, align), mode)
            taps.append(_inside(b, index, weight, size, "border", align))
            continue
        index, weight = _taps(b, place, mode)
        taps.append(_inside(b, index, weight, size, padding, align))
    return [b.reshape_like(_weighted_pixels(b, x, taps), n.outputs[0])]


def _size(b: B, x: Any, axis: int, dtype: Any) -> Any:
    """A dimension as a scalar of the given dtype."""
    dim = b.dim(x, axis)
    if isinstance(dim, int):
        return b.scalar(dim, dtype)
    return b.cast(b.op("Squeeze", b.dim_tensor(x, axis)), dtype)


def _taps(b: B, place: Any, mode: str) -> Tap:
    """The pixels along one axis that a coordinate (batch, points, 1) reads."""
    dtype = b.dtype(place)
    if mode == "nearest":
        return b.op("Round", place), b.full_like(place, 1.0)
    first = b.op("Floor", place)
    t = b.op("Sub", place, first)
    rest = b.op("Sub", 1.0, t)
    if mode == "linear":
        steps, weights = [0, 1], [rest, t]
    else:
        # Keys' cubic convolution with a = -3/4, of the distances 1 + t, t, 1 - t, 2 - t.
        steps, weights = [-1, 0, 1, 2], [_far(b, t), _near(b, t), _near(b, rest), _far(b, rest)]
    return b.op("Add", first, np.asarray(steps, dtype)), b.op("Concat", *weights, axis=2)


def _near(b: B, t: Any, a: float = -0.75) -> Any:
    """(a + 2) t^3 - (a + 3) t^2 + 1."""
    inner = b.op("Sub", b.op("Mul", t, a + 2.0), a + 3.0)
    return b.op("Add", b.op("Mul", b.op("Mul", t, t), inner), 1.0)


def _far(b: B, t: Any, a: float = -0.75) -> Any:
    """a s^3 - 5 a s^2 + 8 a s - 4 a at s = 1 + t, which is a t (1 - t)^2."""
    rest = b.op("Sub", 1.0, t)
    return b.op("Mul", b.op("Mul", t, a), b.op("Mul", rest, rest))


def _folded(b: B, place: Any, size: Any, padding: str, align: bool) -> Any:
    """Coordinates brought into the image; those on its border or beyond carry no derivative."""
    last = b.op("Sub", size, 1.0)
    if padding == "reflection":
        low = 0.0 if align else -0.5
        # A single pixel has no length between centres; any other will do.
        span = b.op("Max", last, 1.0) if align else size
        away = b.op("Abs", b.op("Sub", place, low))
        turns = b.op("Floor", b.op("Div", away, span))
        rest = b.op("Sub", away, b.op("Mul", turns, span))
        odd = b.op("Equal", b.op("Mod", turns, 2.0, fmod=1), 1.0)
        place = b.op("Add", b.op("Where", odd, b.op("Sub", span, rest), rest), low)
    inside = b.op("And", b.op("Greater", place, 0.0), b.op("Less", place, last))
    zero = np.zeros((), b.dtype(place))
    border = b.op("Where", b.op("LessOrEqual", place, 0.0), zero, last)
    return b.op("Where", inside, place, border)


def _inside(b: B, index: Any, weight: Any, size: Any, padding: str, align: bool) -> Tap:
    """Indices that exist; weights are 0 where zeros lie beyond the border."""
    last = b.op("Sub", size, 1.0)
    if padding == "reflection":
        # A triangle wave between the first and the last pixel's centre, or their outer edges.
        low = 0.0 if align else -0.5
        length = b.op("Max", last, float(np.finfo(b.dtype(index)).tiny)) if align else size
        period = b.op("Mul", length, 2.0)
        moved = b.op("Sub", index, low)
        phase = b.op("Sub", moved, b.op("Mul", b.op("Floor", b.op("Div", moved, period)), period))
        wave = b.op("Sub", length, b.op("Abs", b.op("Sub", phase, length)))
        index = b.op("Round", b.op("Add", wave, low))
    kept = b.op("Clip", index, b.op("Sub", size, size), last)
    if padding == "zeros":
        weight = b.op("Mul", weight, b.cast(b.op("Equal", kept, index), b.dtype(index)))
    return kept, weight


def _weighted_pixels(b: B, x: Any, taps: Sequence[Tap]) -> Any:
    """The sum over all combinations of taps, as (batch, channels, points)."""
    rank = len(taps)
    pixels = b.op("Transpose", x, perm=[0, *range(2, rank + 2), 1])
    rows = b.op("Reshape", pixels, b.op("Concat", [-1], b.dim_tensor(x, 1), axis=0))
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    batch = b.op("Range", zero, b.op("Squeeze", b.dim_tensor(x, 0)), one)
    # (batch, points, combinations so far)
    place, weight = b.op("Unsqueeze", batch, [1, 2]), None
    for axis, (index, along) in enumerate(taps):
        whole = b.cast(index, np.dtype(np.int64))
        start = b.op("Mul", place, b.dim_tensor(x, 2 + axis))
        place = _combined(b, "Add", start, whole)
        weight = along if weight is None else _combined(b, "Mul", weight, along)
    parts = b.op("Mul", b.op("Gather", rows, place), b.op("Unsqueeze", weight, [3]))
    return b.op("Transpose", b.op("ReduceSum", parts, [2], keepdims=0), perm=[0, 2, 1])


def _combined(b: B, op_type: str, before: Any, along: Any) -> Any:
    """Every combination of the last axes of two values (batch, points, taps), in one axis."""
    pairs = b.op(op_type, b.op("Unsqueeze", before, [3]), b.op("Unsqueeze", along, [2]))
    return b.op("Reshape", pairs, b.op("Concat", b.op("Shape", along, end=2), [-1], axis=0))


@expansion("RoiAlign")
def roi_align(b: B, n: N) -> list[Any]:
    """Samples between pixels. Averages are products with one matrix of weights per axis."""
    images = b.op("Gather", n.required(0), n.required(2))
    along = [_RoiSamples(b, n, axis) for axis in (0, 1)]
    if n.attribute("mode", "avg") == "avg":
        down, across = (samples.matrix() for samples in along)
        by_rows = b.op("MatMul", b.op("Unsqueeze", down, [1]), images)
        turned = b.op("Unsqueeze", b.op("Transpose", across, perm=[0, 2, 1]), [1])
        return [b.op("MatMul", by_rows, turned)]
    return [_largest_samples(b, n, images, along)]


class _RoiSamples:
    """Where RoiAlign samples along one image axis: coordinates (rois, bins, samples).

    Args:
        axis: 0 for the height, 1 for the width.
    """

    def __init__(self, b: B, n: N, axis: int) -> None:
        x, rois = n.required(0), n.required(1)
        self.b, self.dtype = b, b.dtype(x)
        self.size, self.dim = _size(b, x, 2 + axis, self.dtype), b.dim_tensor(x, 2 + axis)
        half = n.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
        scale = n.attribute("spatial_scale", 1.0)
        bins = n.attribute(("output_height", "output_width")[axis], 1)

        def edge(column: int) -> Any:
            place = b.op("Mul", b.op("Gather", rois, b.constant(np.int64(column)), axis=1), scale)
            return b.op("Sub", place, 0.5) if half else place

        start, end = edge(1 - axis), edge(3 - axis)
        length = b.op("Sub", end, start)
        if not half:
            length = b.op("Max", length, 1.0)
        step = b.op("Mul", length, 1.0 / bins)
        ratio = n.attribute("sampling_ratio", 0)
        counts = b.full_like(length, float(ratio)) if ratio > 0 else b.op("Ceil", step)
        self.count = b.op("Unsqueeze", b.op("Max", counts, 1.0), [1, 2])
        limit = b.cast(b.op("ReduceMax", counts, keepdims=0), np.dtype(np.int64))
        zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
        numbers = b.cast(b.op("Range", zero, b.op("Max", limit, 1), one), self.dtype)
        start, step = (b.op("Unsqueeze", v, [1, 2]) for v in (start, step))
        within = b.op("Div", b.op("Add", numbers, 0.5), self.count)
        index = np.arange(bins, dtype=self.dtype)[:, None]
        place = b.op("Add", start, b.op("Mul", step, b.op("Add", within, index)))
        #: Samples that a region has fewer of than others.
        self.exists = b.op("Less", numbers, b.op("Unsqueeze", counts, [1, 2]))
        low = b.op("GreaterOrEqual", place, -1.0)
        near = b.op("And", low, b.op("LessOrEqual", place, self.size))
        self.near = b.cast(near, self.dtype)
        self.place = b.op("Clip", place, 0.0, b.op("Sub", self.size, 1.0))

    def matrix(self) -> Any:
        """The mean weight of each pixel in each bin: (rois, bins, pixels)."""
        b = self.b
        zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
        pixels = b.cast(b.op("Range", zero, b.op("Squeeze", self.dim), one), self.dtype)
        distance = b.op("Abs", b.op("Sub", b.op("Unsqueeze", self.place, [3]), pixels))
        hats = b.op("Relu", b.op("Sub", 1.0, distance))
        used = b.op("Mul", self.near, b.cast(self.exists, self.dtype))
        share = b.op("Unsqueeze", b.op("Div", used, self.count), [3])
        return b.op("ReduceSum", b.op("Mul", hats, share), [2], keepdims=0)

    def taps(self) -> list[Tap]:
        """The two pixels around each sample, and their weights, in the shape of the samples."""
        b = self.b
        low = b.op("Floor", self.place)
        high = b.op("Min", b.op("Add", low, 1.0), b.op("Sub", self.size, 1.0))
        t = b.op("Sub", self.place, low)
        return [
            (low, b.op("Mul", b.op("Sub", 1.0, t), self.near)),
            (high, b.op("Mul", t, self.near)),
        ]


def _largest_samples(b: B, n: N, images: Any, along: Sequence[_RoiSamples]) -> Any:
    """The largest of all weighted pixels in a bin, the first of them where several are equal."""
    int64 = np.dtype(np.int64)
    flat = b.op("Reshape", images, b.op("Concat", [0, 0, -1], axis=0))
    down, across = along
    parts = []
    for (row, above), (column, beside) in itertools.product(down.taps(), across.taps()):
        # (rois, bins down, samples down, bins across, samples across)
        row, above = (b.op("Unsqueeze", v, [3, 4]) for v in (row, above))
        column, beside = (b.op("Unsqueeze", v, [1, 2]) for v in (column, beside))
        place = b.op("Add", b.op("Mul", b.cast(row, int64), across.dim), b.cast(column, int64))
        parts.append((place, b.op("Mul", above, beside)))
    exists = b.op(
        "And",
        b.op("Unsqueeze", down.exists, [3, 4]),
        b.op("Unsqueeze", across.exists, [1, 2]),
    )
    order = [0, 1, 3, 2, 4, 5]
    heights, widths = n.attribute("output_height", 1), n.attribute("output_width", 1)

    def in_bins(values: Sequence[Any]) -> Any:
        """(rois, 1, bins, candidates of a bin)"""
        joined = b.op("Concat", *[b.op("Unsqueeze", v, [5]) for v in values], axis=5)
        moved = b.op("Transpose", joined, perm=order)
        return b.op("Reshape", moved, [0, 1, heights * widths, -1])

    places, weights = in_bins([p for p, _ in parts]), in_bins([w for _, w in parts])
    shown = b.op("Expand", exists, b.op("Shape", parts[0][0]))
    shown = in_bins([shown] * 4)
    channels = b.op("Concat", [1], b.dim_tensor(images, 1), [1, 1], axis=0)
    picked = b.op("Reshape", b.op("Expand", places, channels), [0, 0, -1])
    values = b.op("GatherElements", flat, picked, axis=2)
    apart = b.op("Reshape", values, b.op("Shape", b.op("Expand", places, channels)))
    candidates = b.op("Mul", apart, weights)
    lowest = np.asarray(-np.inf, b.dtype(images))
    best = b.op("ArgMax", b.op("Where", shown, candidates, lowest), axis=3)
    largest = b.op("GatherElements", candidates, best, axis=3)
    return b.reshape_like(largest, n.outputs[0])


@expansion("MaxRoiPool")
def max_roi_pool(b: B, n: N) -> list[Any]:
    """The first maximum of each bin; 0 for empty bins. Bins are of whole pixels."""
    x, rois = n.required(0), n.required(1)
    dtype, scale = b.dtype(x), n.attribute("spatial_scale", 1.0)
    bins = n.attribute("pooled_shape")

    def column(i: int) -> Any:
        return b.op("Gather", rois, b.constant(np.int64(i)), axis=1)

    def within(axis: int) -> Any:
        """Whether a pixel is in a bin: (rois, bins, pixels)."""
        size = b.op("Squeeze", b.dim_tensor(x, 2 + axis))
        zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
        start, end = (
            b.op("Floor", b.op("Add", b.op("Mul", column(i), scale), 0.5))
            for i in (2 - axis, 4 - axis)
        )
        length = b.op("Max", b.op("Add", b.op("Sub", end, start), 1.0), 1.0)
        step = b.op("Unsqueeze", b.op("Mul", length, 1.0 / bins[axis]), [1])
        first = b.op("Unsqueeze", start, [1])
        edges = [
            b.op("Unsqueeze", b.op("Add", b.op(rounding, b.op("Mul", step, numbers)), first), [2])
            for rounding, numbers in (
                ("Floor", np.arange(bins[axis], dtype=dtype)),
                ("Ceil", np.arange(1, bins[axis] + 1, dtype=dtype)),
            )
        ]
        pixels = b.cast(b.op("Range", zero, size, one), dtype)
        after = b.op("GreaterOrEqual", pixels, edges[0])
        return b.op("And", after, b.op("Less", pixels, edges[1]))

    images = b.op("Gather", x, b.cast(column(0), np.dtype(np.int64)))
    flat = b.op("Reshape", images, [0, 0, -1])
    rows = b.op("Unsqueeze", within(0), [2, 4])
    inside = b.op("And", rows, b.op("Unsqueeze", within(1), [1, 3]))
    # (rois, 1, bins, pixels)
    inside = b.op("Reshape", inside, [0, 1, bins[0] * bins[1], -1])
    lowest = np.asarray(-np.inf, dtype)
    shown = b.op("Where", inside, b.op("Unsqueeze", flat, [2]), lowest)
    best = b.op("ArgMax", shown, axis=3, keepdims=0)
    filled = b.op("ReduceMax", b.cast(inside, dtype), [3], keepdims=0)
    maxima = b.op("Mul", b.op("GatherElements", flat, best, axis=2), filled)
    return [b.reshape_like(maxima, n.outputs[0])]
