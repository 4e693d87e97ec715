"""Blocks of images: cut out, put together, moved between depth and space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import may_equal, refused
from onnxtape.ops.promotion import operands
from onnxtape.ops.shapes import pad, reshape, shape, transpose
from onnxtape.tensor import Tensor

__all__ = ["depth_to_space", "fold", "psnr", "space_to_depth", "unfold"]


def depth_to_space(x: Any, block_size: int, data_format: str = "channels_last") -> Tensor:
    """Channels as pixels: (batch, height, width, channels) to larger images of fewer channels.

    Each pixel becomes a square of block_size pixels a side.

    Raises:
        ShapeError: x is no batch of images, or has not a multiple of block_size^2 channels.
    """
    t, last = _images(x, data_format, "depth_to_space")
    n, a, b, c = shape(t)
    channels, height, width = (c, a, b) if last else (a, b, c)
    if isinstance(channels, int) and channels % block_size**2:
        raise refused(
            f"depth_to_space: {channels} channels are no multiple of {block_size} * {block_size}"
        )
    depth = channels // block_size**2
    if last:
        parts = reshape(t, [n, height, width, block_size, block_size, depth])
        moved = transpose(parts, (0, 1, 3, 2, 4, 5))
        return reshape(moved, [n, height * block_size, width * block_size, depth])
    parts = reshape(t, [n, depth, block_size, block_size, height, width])
    moved = transpose(parts, (0, 1, 4, 2, 5, 3))
    return reshape(moved, [n, depth, height * block_size, width * block_size])


def space_to_depth(x: Any, block_size: int, data_format: str = "channels_last") -> Tensor:
    """The inverse of `depth_to_space`: squares of pixels as channels.

    Raises:
        ShapeError: x is no batch of images, or its sizes are no multiples of block_size.
    """
    t, last = _images(x, data_format, "space_to_depth")
    n, a, b, c = shape(t)
    depth, height, width = (c, a, b) if last else (a, b, c)
    if any(isinstance(size, int) and size % block_size for size in (height, width)):
        raise refused(
            f"space_to_depth: images of {height} by {width} have no blocks of {block_size}"
        )
    rows, columns = height // block_size, width // block_size
    if last:
        parts = reshape(t, [n, rows, block_size, columns, block_size, depth])
        moved = transpose(parts, (0, 1, 3, 2, 4, 5))
        return reshape(moved, [n, rows, columns, depth * block_size**2])
    parts = reshape(t, [n, depth, rows, block_size, columns, block_size])
    moved = transpose(parts, (0, 1, 3, 5, 2, 4))
    return reshape(moved, [n, depth * block_size**2, rows, columns])


def _images(x: Any, data_format: str, what: str) -> tuple[Tensor, bool]:
    t = convert_to_tensor(x)
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            f"{what}: data_format is 'channels_last' or 'channels_first', not {data_format!r}"
        )
    if B.known_rank(t, what) != 4:
        raise refused(f"{what} takes a batch of images, not {format_shape(B.shape(t))}")
    return t, data_format == "channels_last"


Pair = int | tuple[int, int]


def _pair(value: Pair) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


def unfold(
    x: Any, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
) -> Tensor:
    """The blocks under a sliding window (im2col).

    Args:
        x: (batch, channels, height, width).
        kernel_size, dilation, padding, stride: one number, or one for either axis.

    Returns:
        (batch, channels * kernel height * kernel width, blocks).

    Raises:
        ShapeError: x is of another rank, or of unknown height or width.
    """
    t, _ = _images(x, "channels_first", "unfold")
    borders, kernel = _pair(padding), _pair(kernel_size)
    if any(borders):
        t = pad(t, [(0, 0), (0, 0), *((b, b) for b in borders)])
    counts = []
    for axis, size, step, gap in zip((2, 4), kernel, _pair(stride), _pair(dilation), strict=True):
        dim = B.dim(t, axis)
        if not isinstance(dim, int):
            raise refused(f"unfold needs images of known size, not {format_shape(B.shape(t))}")
        counts.append((dim - gap * (size - 1) - 1) // step + 1)
        places = np.arange(size)[:, None] * gap + np.arange(counts[-1]) * step
        # An axis becomes two: the place in the window, and the window.
        t = B.op("Gather", t, places, axis=axis)
    n, channels, *_ = shape(t)
    moved = transpose(t, (0, 1, 2, 4, 3, 5))
    return reshape(moved, [n, channels * math.prod(kernel), math.prod(counts)])


def fold(
    x: Any,
    output_size: Pair,
    kernel_size: Pair,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
) -> Tensor:
    """Blocks put back to where `unfold` found them, added where they overlap (col2im).

    Args:
        x: (batch, channels * kernel height * kernel width, blocks).
        output_size: (height, width) of the images.
        others: as for `unfold`.

    Returns:
        (batch, channels, height, width).
    """
    (t,) = operands(x)
    if B.known_rank(t, "fold") != 3:
        raise refused(f"fold takes a tensor of rank 3, not {format_shape(B.shape(t))}")
    size, kernel = _pair(output_size), _pair(kernel_size)
    found = B.op(
        "Col2Im",
        t,
        size,
        kernel,
        dilations=_pair(dilation),
        pads=_pair(padding) * 2,
        strides=_pair(stride),
    )
    depth = B.dim(t, 1)
    channels = depth // math.prod(kernel) if isinstance(depth, int) else None
    return B.refine_shape(found, (B.dim(t, 0), channels, *size))


def psnr(x1: Any, x2: Any, max_val: float) -> Tensor:
    """The peak signal-to-noise ratio of all elements, in decibels.

    20 log10(max_val) - 10 log10(mean((x1 - x2)^2)): infinite for equal tensors.

    Args:
        max_val: the largest value that an element can have.
    """
    x, y = operands(x1, x2, floating=True)
    if not may_equal(B.shape(x), B.shape(y)):
        raise refused(
            f"psnr takes tensors of one shape, not {format_shape(B.shape(x))} and "
            f"{format_shape(B.shape(y))}"
        )
    apart = B.op("Sub", x, y)
    noise = B.op("ReduceMean", B.op("Mul", apart, apart), keepdims=0)
    decibels = B.op("Mul", B.op("Log", noise), 10.0 / math.log(10.0))
    return B.op("Sub", 20.0 * math.log10(max_val), decibels)
