"""Gradients of discrete Fourier transforms.

They are linear: the gradient is the transposed transform, which is the one in the other direction
with another factor. Complex numbers are pairs along the last axis; real ones have size 1 there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.gradients.places import along, positions
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


@gradient("DFT")
def dft(b: B, n: N, g: Any) -> list[Any]:
    """What the transform padded is cut off, and the other way around."""
    x = n.required(0)
    axis = _axis(b, n)
    inverse, onesided = n.attribute("inverse", 0), n.attribute("onesided", 0)
    length = n.input(1)
    if inverse and onesided:
        size = b.dim_tensor(g, axis)
        # Every bin stands for two, but for the first and, if there is one, the middle.
        spectrum = b.op("DFT", g, length, b.constant(np.int64(axis)), onesided=1)
        bins = positions(b, spectrum, axis)
        dtype = b.dtype(g)
        first = b.cast(b.op("Equal", bins, 0), dtype)
        middle = b.cast(b.op("Equal", b.op("Mul", bins, 2), size), dtype)
        counts = b.op("Sub", 2.0, b.op("Add", first, middle))
        weights = b.op("Div", counts, b.cast(size, dtype))
        rank = b.known_rank(x, "DFT's gradient")
        back = b.op("Mul", spectrum, along(b, weights, axis, rank))
        return [_fitted(b, back, x, axis), None, None]
    if length is None:
        length = b.op("Squeeze", b.dim_tensor(x, axis), [0])
    # A one-sided spectrum is padded with zeros to the full length by the transform.
    back = b.op("DFT", g, length, b.constant(np.int64(axis)), inverse=1 - inverse)
    back = b.op("Div" if inverse else "Mul", back, b.cast(length, b.dtype(g)))
    parts = b.dim_tensor(x, b.known_rank(x, "DFT's gradient") - 1)
    back = b.op("Slice", back, [0], parts, [-1])
    return [_fitted(b, back, x, axis), None, None]


def _axis(b: B, n: N) -> int:
    """The axis of the transform, counted from the front."""
    axis = n.input(2)
    known = np.asarray(-2) if axis is None else b.constant_value(axis)
    if known is None:
        raise Refusal("its axis is known only at run time")
    return int(known.item()) % b.known_rank(n.required(0), "DFT's gradient")


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
