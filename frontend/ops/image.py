"""Operations on images: `ot.ops.image`, after `keras.ops.image`.

Images are (height, width, channels), or (batch, height, width, channels); with
data_format="channels_first" (channels, height, width), or with a batch before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import Dim, format_shape
from onnxtape.compiler.dtypes import DType, is_floating
from onnxtape.compiler.gradients.separable import repeated_planes
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import refused
from onnxtape.ops.colors import (
    crop_images,
    hsv_to_rgb,
    pad_images,
    rgb_to_grayscale,
    rgb_to_hsv,
)
from onnxtape.ops.convolution import checked_data_format
from onnxtape.ops.creation import shape_tensor, static_shape
from onnxtape.ops.patches import extract_patches, extract_patches_3d
from onnxtape.ops.promotion import operands
from onnxtape.tensor import Tensor

__all__ = [
    "crop_images",
    "extract_patches",
    "extract_patches_3d",
    "hsv_to_rgb",
    "pad_images",
    "resize",
    "rgb_to_grayscale",
    "rgb_to_hsv",
]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def resize(
    images: Any,
    size: Sequence[Any],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Tensor:
    """Images of another size, with the numbers of Keras on TensorFlow.

    Pixels are squares whose centres lie at half coordinates. Bicubic weights are those of R. Keys
    (Cubic convolution interpolation for digital image processing, 1981) with a = -0.5, exactly:
    TensorFlow takes them from a table without `antialias`, which is off by up to 0.001.

    Args:
        images: one image or a batch; integers are rounded, and kept within their dtype's range.
        size: (height, width).
        interpolation: "nearest", "bilinear" or "bicubic".
        antialias: average over all pixels that a new one covers, where images become smaller.
        crop_to_aspect_ratio: crop first, around the centre, to the proportions of `size`.
        pad_to_aspect_ratio: pad first, on both sides, to the proportions of `size`.
        fill_mode: "constant", what is padded with being `fill_value`.

    Raises:
        ValueError: a size that is not two numbers, an unknown interpolation, fill mode or data
            format, or both aspect-ratio options at once.
        ShapeError: images of another rank, or of unknown size where the aspect ratio counts.
    """
    if interpolation not in INTERPOLATIONS:
        names = ", ".join(map(repr, INTERPOLATIONS))
        raise ValueError(f"resize: interpolation is one of {names}, not {interpolation!r}")
    if len(size) != 2:
        raise ValueError(f"resize: size is (height, width), not {tuple(size)}")
    if fill_mode != "constant":
        raise ValueError(f"resize: fill_mode is 'constant', not {fill_mode!r}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("resize: take crop_to_aspect_ratio or pad_to_aspect_ratio, not both")
    last = checked_data_format(data_format) == "channels_last"
    given = convert_to_tensor(images)
    nearest = interpolation == "nearest"
    (x,) = (given,) if nearest else operands(given, floating=True)
    rank = B.known_rank(x, "resize")
    if rank not in (3, 4):
        raise refused(
            "resize takes an image (rank 3) or a batch of images (rank 4), not "
            f"{format_shape(B.shape(x))}"
        )
    x = B.op("Unsqueeze", x, [0]) if rank == 3 else x
    x = B.op("Transpose", x, perm=[0, 3, 1, 2]) if last else x
    if crop_to_aspect_ratio:
        x = _cropped(x, _known(size))
    elif pad_to_aspect_ratio:
        x = _padded(x, _known(size), fill_value)
    y = _resized(x, shape_tensor(size), interpolation, antialias)
    y = B.op("Transpose", y, perm=[0, 2, 3, 1]) if last else y
    y = B.op("Squeeze", y, [0]) if rank == 3 else y
    return y if is_floating(given.dtype) or nearest else _whole(y, given.dtype)


def _whole(x: Tensor, dtype: DType) -> Tensor:
    """Rounded to integers; those beyond the dtype's range become its ends."""
    x = B.op("Round", x)
    if dtype.itemsize <= 2:
        x = B.op("Clip", x, float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    return B.cast(x, dtype)


def _resized(x: Tensor, sizes: Tensor, interpolation: str, antialias: bool) -> Tensor:
    """(batch, channels, height, width) to these sizes."""
    nearest = interpolation == "nearest"
    antialias = antialias and not nearest
    joined = _planes(x)
    y = B.op(
        "Resize",
        joined,
        None,
        None,
        B.op("Concat", B.dim_tensor(joined, 0), [1], sizes, axis=0),
        mode={"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}[interpolation],
        coordinate_transformation_mode="half_pixel",
        nearest_mode="round_prefer_ceil" if nearest else None,
        cubic_coeff_a=-0.5 if interpolation == "bicubic" else None,
        antialias=1 if antialias else None,
        exclude_outside=1 if antialias or interpolation == "bicubic" else None,
    )
    return _images(y, x, sizes)


def _planes(x: Tensor) -> Tensor:
    """(batch, channels, sizes...) as (batch * channels, 1, sizes...), in a dtype to be resized.

    ONNX Runtime's optimizer moves Transposes through a Resize, forgetting what `axes` it has, that
    some modes want channels first, and that others are fastest there. It does not through a
    Reshape.
    """
    sizes = [B.dim_tensor(x, axis) for axis in range(2, B.known_rank(x, "resize"))]
    exact = x if is_floating(x.dtype) else B.cast(x, np.dtype(np.int32))
    return B.op("Reshape", exact, B.op("Concat", [-1, 1], *sizes, axis=0))


def _images(planes: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    """What `_planes` made of `x`, in other sizes now, with x's batch, channels and dtype."""
    shape = B.op("Concat", B.dim_tensor(x, 0), B.dim_tensor(x, 1), sizes, axis=0)
    return B.cast(B.op("Reshape", planes, shape, allowzero=1), x.dtype)


def repeat_pixels(x: Tensor, factors: Sequence[int], data_format: str) -> Tensor:
    """Each element of (batch, sizes..., channels) repeated along every size.

    By Resize, which is faster by far than copies.
    """
    rank = len(factors)
    last = data_format == "channels_last"
    x = B.op("Transpose", x, perm=[0, rank + 1, *range(1, rank + 1)]) if last else x
    y = repeated_planes(B, _planes(x), factors)
    sizes = [B.op("Mul", B.dim_tensor(x, 2 + i), f) for i, f in enumerate(factors)]
    y = _images(y, x, B.op("Concat", *sizes, axis=0))
    return B.op("Transpose", y, perm=[0, *range(2, rank + 2), 1]) if last else y


def _known(size: Sequence[Any]) -> tuple[int, ...]:
    known = static_shape(size)
    if known is None:
        raise refused("resize needs sizes that are known where the aspect ratio counts")
    return known


def _image_sizes(x: Tensor) -> tuple[int, int]:
    dims: tuple[Dim, ...] = (B.shape(x) or ())[2:]
    height, width = dims
    if not isinstance(height, int) or not isinstance(width, int):
        raise refused(
            "resize needs images whose size is known where the aspect ratio counts, not "
            f"{format_shape(B.shape(x))}"
        )
    return height, width


def _proportional(x: Tensor, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The image's height and width, and those that go with its width and height in `size`."""
    height, width = _image_sizes(x)
    # In single precision, as Keras.
    wanted_height = int(np.float32(width * size[0]) / np.float32(size[1]))
    wanted_width = int(np.float32(height * size[1]) / np.float32(size[0]))
    return height, width, wanted_height, wanted_width


def _cropped(x: Tensor, size: tuple[int, ...]) -> Tensor:
    height, width, wanted_height, wanted_width = _proportional(x, size)
    rows, columns = max(min(height, wanted_height), 1), max(min(width, wanted_width), 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    return B.op("Slice", x, [top, left], [top + rows, left + columns], [2, 3])


def _padded(x: Tensor, size: tuple[int, ...], fill_value: float) -> Tensor:
    height, width, wanted_height, wanted_width = _proportional(x, size)
    above, beside = max(wanted_height - height, 0) // 2, max(wanted_width - width, 0) // 2
    # Not by `axes`, which ONNX Runtime's optimizer forgets where it moves Transposes.
    pads = [0, 0, above, beside, 0, 0, above, beside]
    return B.op("Pad", x, pads, B.scalar(fill_value, x.dtype))
