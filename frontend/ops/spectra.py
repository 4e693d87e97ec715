"""Fourier transforms. A complex tensor is a pair (real part, imaginary part), as in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arranging import extract_sequences
from onnxtape.ops.axes import may_equal, refused
from onnxtape.ops.promotion import INT64, operands
from onnxtape.ops.shapes import moveaxis, pad, reshape, shape
from onnxtape.tensor import Tensor

__all__ = ["fft", "fft2", "ifft2", "irfft", "istft", "rfft", "stft"]

Pair = tuple[Tensor, Tensor]


def fft(x: Sequence[Any]) -> Pair:
    """The discrete Fourier transform along the last axis of a pair."""
    return _pair(_transformed(_joined(x, "fft"), 1))


def fft2(x: Sequence[Any]) -> Pair:
    """The discrete Fourier transform along the last two axes of a pair."""
    return _pair(_transformed(_transformed(_joined(x, "fft2", 2), 1), 2))


def ifft2(x: Sequence[Any]) -> Pair:
    """The inverse of `fft2`."""
    first = _transformed(_joined(x, "ifft2", 2), 1, inverse=1)
    return _pair(_transformed(first, 2, inverse=1))


def rfft(x: Any, fft_length: int | None = None) -> Pair:
    """The transform of real numbers along the last axis: the pair of its first half.

    Args:
        fft_length: cut or padded with zeros to this size before.

    Returns:
        A pair (..., fft_length // 2 + 1).
    """
    (t,) = operands(x, floating=True)
    if B.known_rank(t, "rfft") < 1:
        raise refused("rfft takes a tensor of rank 1 or more")
    return _pair(_transformed(B.op("Unsqueeze", t, [-1]), 1, fft_length, onesided=1))


def irfft(x: Sequence[Any], fft_length: int | None = None) -> Tensor:
    """The inverse of `rfft`: real numbers (..., fft_length).

    Args:
        fft_length: by default the even one, 2 (size - 1).
    """
    whole = _joined(x, "irfft")
    if fft_length is not None:
        whole = _sized(whole, fft_length // 2 + 1)
    return B.op("Squeeze", _transformed(whole, 1, fft_length, inverse=1, onesided=1), [-1])


def _sized(whole: Tensor, bins: int) -> Tensor:
    """The first bins, with zeros after the last where there are too few."""
    axis = B.known_rank(whole, "irfft") - 2
    size = B.dim(whole, axis)
    if size == bins:
        return whole
    whole = B.op("Slice", whole, [0], [bins], [axis])
    missing = B.op("Sub", B.constant(np.asarray([bins])), B.dim_tensor(whole, axis))
    return B.op("Pad", whole, B.op("Concat", [0], missing, axis=0), None, [axis])


def _joined(x: Sequence[Any], what: str, axes: int = 1) -> Tensor:
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(f"{what} takes a pair (real part, imaginary part)")
    real, imaginary = operands(*x, floating=True)
    rank = B.known_rank(real, what)
    if rank < axes or not may_equal(B.shape(real), B.shape(imaginary)):
        raise refused(
            f"{what} takes two tensors of one shape with {axes} axes or more, not "
            f"{format_shape(B.shape(real))} and {format_shape(B.shape(imaginary))}"
        )
    return B.op("Concat", *(B.op("Unsqueeze", t, [-1]) for t in (real, imaginary)), axis=-1)


def _pair(whole: Tensor) -> Pair:
    real, imaginary = B.op_multi("Split", whole, outputs=2, axis=-1, num_outputs=2)
    return B.op("Squeeze", real, [-1]), B.op("Squeeze", imaginary, [-1])


def _transformed(
    t: Tensor, axis: int, length: int | None = None, inverse: int = 0, onesided: int = 0
) -> Tensor:
    """Along an axis, counted from the end without that of the parts.

    DFT wants a batch, so a vector is one of a batch.
    """
    rank = B.known_rank(t, "fft")
    batched = B.op("Unsqueeze", t, [0]) if rank == 2 else t
    place = B.known_rank(batched, "fft") - 1 - axis
    size = None if length is None else B.scalar(length, INT64)
    found = B.op("DFT", batched, size, B.scalar(place, INT64), inverse=inverse, onesided=onesided)
    return B.op("Squeeze", found, [0]) if rank == 2 else found


# Short-time transforms --------------------------------------------------------------------------


def _window(window: Any, sequence_length: int, fft_length: int, dtype: np.dtype[Any]) -> Tensor:
    """The window, in the middle of zeros to the length of the transform."""
    if window is None:
        made = np.ones(sequence_length)
    elif isinstance(window, str):
        kinds = {"hann": 0.5, "hamming": 0.54}
        if window not in kinds:
            raise ValueError(f"window is 'hann', 'hamming', a vector or None, not {window!r}")
        mean, turn = kinds[window], 2 * np.pi * np.arange(sequence_length) / sequence_length
        made = mean - (1 - mean) * np.cos(turn)
    else:
        tensor = convert_to_tensor(window, dtype)
        if B.shape(tensor) != (sequence_length,):
            raise refused(
                f"a window has the shape ({sequence_length},), not {format_shape(B.shape(tensor))}"
            )
        return pad(tensor, _beside(fft_length - sequence_length))
    return B.constant(np.pad(made, _beside(fft_length - sequence_length)).astype(dtype))


def _beside(missing: int) -> tuple[int, int]:
    return missing // 2, missing - missing // 2


def _check_lengths(sequence_length: int, sequence_stride: int, fft_length: int) -> None:
    if not 0 < sequence_length <= fft_length or sequence_stride < 1:
        raise ValueError(
            "a short-time transform needs 0 < sequence_length <= fft_length and a positive "
            f"sequence_stride, not {sequence_length}, {fft_length} and {sequence_stride}"
        )


def stft(
    x: Any,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    window: Any = "hann",
    center: bool = True,
) -> Pair:
    """The short-time Fourier transform along the last axis.

    Args:
        sequence_length: of the window.
        sequence_stride: from one frame to the next.
        fft_length: of each frame; the window stands in its middle.
        window: "hann", "hamming" (periodic), a vector, or None for ones.
        center: whether the signal is continued by its mirror image, so that frame i is centred on
            sample i * sequence_stride.

    Returns:
        A pair (..., frames, fft_length // 2 + 1).
    """
    _check_lengths(sequence_length, sequence_stride, fft_length)
    (t,) = operands(x, floating=True)
    weights = _window(window, sequence_length, fft_length, t.dtype)
    if center:
        rank = B.known_rank(t, "stft")
        t = pad(t, [(0, 0)] * (rank - 1) + [(fft_length // 2,) * 2], "reflect")
    frames = extract_sequences(t, fft_length, sequence_stride)
    return rfft(B.op("Mul", frames, weights))


def istft(
    x: Sequence[Any],
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    length: int | None = None,
    window: Any = "hann",
    center: bool = True,
) -> Tensor:
    """The signal (..., samples) with a short-time Fourier transform (`stft`).

    Frames are windowed again, added where they overlap, and divided by the sum of the squared
    windows there (D. Griffin and J. Lim, 1984).

    Args:
        x: a pair (..., frames, fft_length // 2 + 1).
        length: of the signal; by default all that the frames cover.
        others: as for `stft`.
    """
    _check_lengths(sequence_length, sequence_stride, fft_length)
    frames = irfft(x, fft_length)
    weights = _window(window, sequence_length, fft_length, frames.dtype)
    count = B.dim(frames, B.known_rank(frames, "istft") - 2)
    if not isinstance(count, int):
        raise refused("istft needs a number of frames that is known")
    total = _overlapping(B.op("Mul", frames, weights), count, sequence_stride, fft_length)
    squares = B.op("Unsqueeze", B.op("Mul", weights, weights), [0])
    repeated = B.op("Expand", squares, [count, fft_length])
    norm = _overlapping(repeated, count, sequence_stride, fft_length)
    # Where no window reaches, there is nothing to divide.
    signal = B.op("Div", total, B.op("Where", B.op("Less", norm, 1e-11), 1.0, norm))
    covered = fft_length + sequence_stride * (count - 1)
    start = fft_length // 2 if center else 0
    end = covered - start if length is None else start + length
    signal = B.op("Slice", signal, [start], [end], [-1])
    missing = max(end - covered, 0)
    return signal if not missing else B.op("Pad", signal, [0, missing], None, [-1])


def _overlapping(frames: Tensor, count: int, stride: int, size: int) -> Tensor:
    """Frames (..., count, size), each `stride` after the one before, added up along one axis."""
    places = (np.arange(count)[:, None] * stride + np.arange(size)).reshape(-1, 1)
    *outer, _, _ = shape(frames)
    flat = moveaxis(reshape(frames, [*outer, count * size]), -1, 0)
    covered = size + stride * (count - 1)
    rest = B.op("Shape", flat, start=1)
    start = B.op("Expand", B.scalar(0.0, frames.dtype), B.op("Concat", [covered], rest, axis=0))
    return moveaxis(B.op("ScatterND", start, places, flat, reduction="add"), 0, -1)
