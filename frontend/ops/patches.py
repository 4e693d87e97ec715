"""Patches of images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format
from onnxtape.ops.indexing import take
from onnxtape.ops.shapes import expand_dims, moveaxis, pad, reshape, squeeze, transpose
from onnxtape.tensor import Tensor

__all__ = ["extract_patches", "extract_patches_3d"]


def extract_patches(
    images: Any,
    size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Patches of images, one after the other: their pixels, and of each its channels.

    Args:
        images: (height, width, channels) or (batch, height, width, channels); volumes have a depth
            in front of the height. Sizes are known.
        size: of a patch: one number for both axes, or one for each; three for volumes.
        strides: from patch to patch; by default `size`.
        dilation_rate: from pixel to pixel of a patch.
        padding: "valid", or "same", with zeros.
        data_format: "channels_last", which is the default, or "channels_first".

    Returns:
        (batch, rows, columns, patch height * patch width * channels), the batch if there was one;
        with "channels_first" the last of them second.

    Raises:
        ShapeError: another rank, or sizes that are not known.
        ValueError: another number of sizes, or another word.
    """
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    return _extracted(
        "extract_patches", images, sizes, strides, dilation_rate, padding, data_format
    )


def extract_patches_3d(
    volumes: Any,
    size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Patches of volumes; see `extract_patches`."""
    sizes = (size,) * 3 if isinstance(size, int) else tuple(size)
    return _extracted(
        "extract_patches_3d", volumes, sizes, strides, dilation_rate, padding, data_format
    )


def _extracted(
    name: str,
    images: Any,
    sizes: tuple[int, ...],
    strides: Any,
    dilation: Any,
    padding: str,
    data_format: str | None,
) -> Tensor:
    x, rank = convert_to_tensor(images), len(sizes)
    if rank not in (2, 3) or padding not in ("valid", "same"):
        raise ValueError(
            f"{name} takes a size of 2 or 3 numbers and padding 'valid' or 'same', not {sizes} "
            f"and {padding!r}"
        )
    first = checked_data_format(data_format) == "channels_first"
    alone = B.known_rank(x, name) == rank + 1
    x = expand_dims(x, 0) if alone else x
    if B.known_rank(x, name) != rank + 2:
        raise refused(f"{name}: images of rank {rank + 1} or {rank + 2}, not {B.shape(x)}")
    x = moveaxis(x, 1, -1) if first else x
    steps, gaps = (_one_each(given, rank) for given in (strides or sizes, dilation))
    for i in range(rank):
        x = _windows(name, x, 1 + 2 * i, sizes[i], steps[i], gaps[i], padding)
    # (batch, rows, patch rows, columns, patch columns, channels)
    inside = [2 + 2 * i for i in range(rank)]
    outside = [1 + 2 * i for i in range(rank)]
    channels = B.dim(x, -1)
    if not isinstance(channels, int):
        raise refused(f"{name} needs to know the channels of {format_shape(B.shape(x))}")
    counts = [B.dim(x, axis) for axis in outside]
    x = transpose(x, (0, *outside, *inside, 2 * rank + 1))
    patches = reshape(x, (-1, *counts, math.prod(sizes) * channels))
    patches = moveaxis(patches, -1, 1) if first else patches
    return squeeze(patches, 0) if alone else patches


def _windows(
    name: str, x: Tensor, axis: int, size: int, step: int, gap: int, padding: str
) -> Tensor:
    """An axis as two: windows, and the places in each."""
    length = B.dim(x, axis)
    if not isinstance(length, int):
        raise refused(f"{name} needs images whose sizes are known, not {format_shape(B.shape(x))}")
    reach = (size - 1) * gap + 1
    if padding == "same":
        count = math.ceil(length / step)
        more = max((count - 1) * step + reach - length, 0)
        if more:
            widths = [(0, 0)] * B.known_rank(x, name)
            widths[axis] = (more // 2, more - more // 2)
            x = pad(x, widths)
    else:
        count = max((length - reach) // step + 1, 0)
    if count == 0:
        raise refused(f"{name}: no patch of {size} fits into {length}")
    places = np.arange(count)[:, None] * step + np.arange(size) * gap
    return take(x, places, axis=axis)


def _one_each(given: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (given,) * rank if isinstance(given, int) else tuple(given)
