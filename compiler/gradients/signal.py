"""Gradients of discrete Fourier transforms.

They are linear: the gradient is the transposed transform, which is the one in the other direction
with another factor. Complex numbers are pairs along the last axis; real ones have size 1 there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.gradients.places import along, parted
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

B = Builder[Any]
N = Record[Any]


@gradient("DFT")
def dft(b: B, n: N, g: Any) -> list[Any]:
    """What the transform padded is cut off, and the other way around."""
    x, axis = n.required(0), n.input(2)
    rank = b.known_rank(x, "DFT's gradient")
    known = np.asarray(-2) if axis is None else b.constant_value(axis)
    if known is not None:
        return [_dft_back(b, n, g, x, int(known.item()) % rank), None, None]
    flat, flat_g = (
        b.op("Reshape", value, parted(b, value, axis, tail=1), allowzero=1) for value in (x, g)
    )
    return [b.reshape_like(_dft_back(b, n, flat_g, flat, 1), x), None, None]


def _dft_back(b: B, n: N, g: Any, x: Any, axis: int) -> Any:
    """By x, which was transformed along `axis`, counted from the front."""
    inverse, onesided = n.attribute("inverse", 0), n.attribute("onesided", 0)
    rank, length = b.known_rank(x, "DFT's gradient"), n.input(1)
    if inverse and onesided:
        size = b.dim_tensor(g, axis)
        # Every bin stands for two, but for the first and, if there is one, the middle.
        spectrum = b.op("DFT", g, length, b.constant(np.int64(axis)), onesided=1)
        bins = b.positions(spectrum, axis)
        dtype = b.dtype(g)
        first = b.cast(b.op("Equal", bins, 0), dtype)
        middle = b.cast(b.op("Equal", b.op("Mul", bins, 2), size), dtype)
        counts = b.op("Sub", 2.0, b.op("Add", first, middle))
        weights = b.op("Div", counts, b.cast(size, dtype))
        back = b.op("Mul", spectrum, along(b, weights, axis, rank))
        return _fitted(b, back, x, axis)
    if length is None:
        length = b.op("Squeeze", b.dim_tensor(x, axis), [0])
    # A one-sided spectrum is padded with zeros to the full length by the transform.
    back = b.op("DFT", g, length, b.constant(np.int64(axis)), inverse=1 - inverse)
    back = b.op("Div" if inverse else "Mul", back, b.cast(length, b.dtype(g)))
    back = b.op("Slice", back, [0], b.dim_tensor(x, rank - 1), [-1])
    return _fitted(b, back, x, axis)


def _fitted(b: B, value: Any, x: Any, axis: int) -> Any:
    """`value`, cut or padded with zeros at the end of an axis to x's length."""
    lack = b.op("Sub", b.dim_tensor(x, axis), b.dim_tensor(value, axis))
    if b.dim(x, axis) is not None and b.dim(x, axis) == b.dim(value, axis):
        return value
    return b.op("Pad", value, b.op("Concat", b.constant([0]), lack, axis=0), None, [axis])


@expansion("STFT")
def stft(b: B, n: N) -> list[Any]:
    """Frames gathered from the signal, times the window, transformed."""
    signal, window = n.required(0), n.input(2)
    frames = b.op("Gather", signal, _frame_positions(b, n), axis=1)
    if window is not None:
        frames = b.op("Mul", frames, b.op("Unsqueeze", window, [1]))
    axis = b.constant(np.int64(2))
    return [b.op("DFT", frames, None, axis, onesided=n.attribute("onesided", 1))]


def _frame_positions(b: B, n: N) -> Any:
    """Which samples each frame holds: int64 of shape (frames, frame length)."""
    signal, window, length = n.required(0), n.input(2), n.input(3)
    int64 = np.dtype(np.int64)
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    if length is None:
        length = b.dim_tensor(signal, 1) if window is None else b.dim_tensor(window, 0)
    length = b.op("Reshape", b.cast(length, int64), [])
    step = b.op("Reshape", b.cast(n.required(1), int64), [])
    last = b.op("Sub", b.op("Squeeze", b.dim_tensor(signal, 1), [0]), length)
    starts = b.op("Range", zero, b.op("Add", last, one), step)
    return b.op("Add", b.op("Unsqueeze", starts, [1]), b.op("Range", zero, length, one))
