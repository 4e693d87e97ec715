"""Colours and borders of images; public as `ot.ops.image`, whose layouts these take."""

from __future__ import annotations

from typing import Any

import ml_dtypes

from onnxtape.compiler.dims import format_shape
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import DtypeError
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format
from onnxtape.ops.promotion import operands
from onnxtape.ops.shapes import pad
from onnxtape.tensor import Tensor

__all__ = ["crop_images", "hsv_to_rgb", "pad_images", "rgb_to_grayscale", "rgb_to_hsv"]


def _checked(images: Any, data_format: str | None, what: str) -> tuple[Tensor, int, int]:
    """The images, their axis of channels and that of height, both counted from the end."""
    t = convert_to_tensor(images)
    last = checked_data_format(data_format) == "channels_last"
    if B.known_rank(t, what) not in (3, 4):
        raise refused(
            f"{what} takes an image (rank 3) or a batch of images (rank 4), not "
            f"{format_shape(B.shape(t))}"
        )
    return t, (-1 if last else -3), (-3 if last else -2)


def _channels(t: Tensor, axis: int, what: str) -> tuple[Tensor, Tensor, Tensor]:
    if B.dim(t, B.known_rank(t, what) + axis) != 3:
        raise refused(f"{what} takes 3 channels, not {format_shape(B.shape(t))}")
    red, green, blue = B.op_multi("Split", t, outputs=3, axis=axis, num_outputs=3)
    return red, green, blue


def rgb_to_grayscale(images: Any, data_format: str | None = None) -> Tensor:
    """One channel, 0.2989 red + 0.587 green + 0.114 blue, in the images' dtype.

    Images of one channel stay as they are.

    Raises:
        ShapeError: images of another rank, or with other than 1 or 3 channels.
    """
    given, axis, _ = _checked(images, data_format, "rgb_to_grayscale")
    if B.dim(given, B.known_rank(given, "rgb_to_grayscale") + axis) == 1:
        return given
    (t,) = operands(given, floating=True)
    red, green, blue = _channels(t, axis, "rgb_to_grayscale")
    gray = B.op("Add", B.op("Mul", red, 0.2989), B.op("Mul", green, 0.587))
    return B.cast(B.op("Add", gray, B.op("Mul", blue, 0.114)), given.dtype)


def _require_floats(t: Tensor, what: str) -> None:
    if not is_float(t.dtype):
        raise DtypeError(f"{what} takes floating-point images in [0, 1], not {t.dtype}")


def rgb_to_hsv(images: Any, data_format: str | None = None) -> Tensor:
    """Hue, saturation and value, all in [0, 1], of red, green and blue in [0, 1].

    Raises:
        DtypeError: images of integers.
        ShapeError: images of another rank, or without 3 channels.
    """
    t, axis, _ = _checked(images, data_format, "rgb_to_hsv")
    _require_floats(t, "rgb_to_hsv")
    zero, one = B.scalar(0.0, t.dtype), B.scalar(1.0, t.dtype)
    info = ml_dtypes.finfo(t.dtype)  # type: ignore[no-untyped-call]
    faint = B.op("Less", B.op("Abs", t), float(info.eps))
    red, green, blue = _channels(B.op("Where", faint, zero, t), axis, "rgb_to_hsv")
    value = B.op("Max", red, green, blue)
    span = B.op("Sub", value, B.op("Min", red, green, blue))
    lit, coloured = B.op("Greater", value, 0.0), B.op("Greater", span, 0.0)
    share = B.op("Div", span, B.op("Where", lit, value, one))
    saturation = B.op("Where", lit, share, zero)
    scale = B.op("Mul", B.op("Where", coloured, span, one), 6.0)

    def sector(first: Tensor, second: Tensor, start: float) -> Tensor:
        return B.op("Add", B.op("Div", B.op("Sub", first, second), scale), start)

    hue = B.op(
        "Where",
        B.op("Equal", value, green),
        sector(blue, red, 1.0 / 3.0),
        sector(red, green, 2.0 / 3.0),
    )
    hue = B.op("Where", B.op("Equal", value, red), sector(green, blue, 0.0), hue)
    hue = B.op("Where", coloured, hue, zero)
    hue = B.op("Where", B.op("Less", hue, 0.0), B.op("Add", hue, 1.0), hue)
    return B.op("Concat", hue, saturation, value, axis=axis)


def hsv_to_rgb(images: Any, data_format: str | None = None) -> Tensor:
    """Red, green and blue, of hue, saturation and value: the inverse of `rgb_to_hsv`."""
    t, axis, _ = _checked(images, data_format, "hsv_to_rgb")
    _require_floats(t, "hsv_to_rgb")
    hue, saturation, value = _channels(t, axis, "hsv_to_rgb")
    turn = B.op("Mul", B.op("Sub", hue, B.op("Floor", hue)), 6.0)
    gray = B.op("Sub", 1.0, saturation)

    def channel(peak: float, sign: float, start: float) -> Tensor:
        away = B.op("Abs", B.op("Sub", turn, peak))
        part = B.op("Clip", B.op("Add", B.op("Mul", away, sign), start), 0.0, 1.0)
        return B.op("Mul", value, B.op("Add", gray, B.op("Mul", saturation, part)))

    rgb = channel(3.0, 1.0, -1.0), channel(2.0, -1.0, 2.0), channel(4.0, -1.0, 2.0)
    return B.op("Concat", *rgb, axis=axis)


def _borders(
    before: int | None, after: int | None, target: int | None, size: Any, sign: int, what: str
) -> tuple[int, int]:
    """How much goes on or off at both ends of an axis; two of three numbers tell.

    Args:
        sign: 1 where the target is larger than the size, -1 where it is smaller.
    """
    if (before, after, target).count(None) != 1:
        raise ValueError(
            f"{what} takes exactly two of both borders and the target, for height and for width"
        )
    if before is None or after is None:
        if not isinstance(size, int):
            raise refused(f"{what} needs images of known size where a target is given")
        assert target is not None
        rest = sign * (target - size) - (before or 0) - (after or 0)
        before, after = (rest, after) if before is None else (before, rest)
    assert before is not None
    assert after is not None
    if min(before, after) < 0:
        raise ValueError(f"{what}: no border may be negative, but they are {before} and {after}")
    return before, after


def crop_images(
    images: Any,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """Images without borders.

    Args: two of top, bottom and target height, two of left, right and target width, in pixels.

    Raises:
        ValueError: more or fewer of them, or negative borders.
        ShapeError: images of another rank.
    """
    t, _, first = _checked(images, data_format, "crop_images")
    rank = B.known_rank(t, "crop_images")
    starts, ends = [], []
    for axis, (before, after, target) in enumerate(
        (
            (top_cropping, bottom_cropping, target_height),
            (left_cropping, right_cropping, target_width),
        ),
        rank + first,
    ):
        cut = _borders(before, after, target, B.dim(t, axis), -1, "crop_images")
        starts.append(cut[0])
        ends.append(-cut[1] if cut[1] else 2**31 - 1)
    return B.op("Slice", t, starts, ends, [rank + first, rank + first + 1])


def pad_images(
    images: Any,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """Images with borders of zeros. As `crop_images`."""
    t, _, first = _checked(images, data_format, "pad_images")
    rank = B.known_rank(t, "pad_images")
    widths = [(0, 0)] * rank
    for axis, (before, after, target) in enumerate(
        (
            (top_padding, bottom_padding, target_height),
            (left_padding, right_padding, target_width),
        ),
        rank + first,
    ):
        widths[axis] = _borders(before, after, target, B.dim(t, axis), 1, "pad_images")
    return pad(t, widths)
