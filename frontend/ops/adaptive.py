"""Pooling to a given size, whatever the size was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format
from onnxtape.ops.promotion import operands
from onnxtape.tensor import Tensor

__all__ = ["adaptive_average_pool", "adaptive_max_pool"]


def adaptive_average_pool(
    inputs: Any, output_size: int | Sequence[int], data_format: str | None = None
) -> Tensor:
    """The means of as many windows as asked for, which cover the whole.

    Window i of n reaches from floor(i size / n) up to, not including, ceil((i + 1) size / n).

    Args:
        inputs: (batch, sizes..., channels) with one to three sizes, which are known; with
            data_format="channels_first" (batch, channels, sizes...).
        output_size: one number for all dimensions or one for each.

    Raises:
        ShapeError: the inputs' rank does not fit, or a size is not known.
        ValueError: an output size below 1, an unknown data format.
    """
    return _pooled(inputs, output_size, data_format, "adaptive_average_pool")


def adaptive_max_pool(
    inputs: Any, output_size: int | Sequence[int], data_format: str | None = None
) -> Tensor:
    """The largest elements of such windows; of equal ones each gets its share of the gradient.

    Args, raises: as `adaptive_average_pool`.
    """
    return _pooled(inputs, output_size, data_format, "adaptive_max_pool")


def _pooled(
    inputs: Any, output_size: int | Sequence[int], data_format: str | None, what: str
) -> Tensor:
    (x,) = operands(inputs, floating=True)
    first = 1 if checked_data_format(data_format) == "channels_last" else 2
    rank = B.known_rank(x, what)
    count = rank - 2
    sizes = [output_size] * count if isinstance(output_size, int) else list(output_size)
    if not 1 <= count <= 3 or len(sizes) != count:
        raise refused(
            f"{what} takes a batch with one to three sizes and as many output sizes, not "
            f"{format_shape(B.shape(x))} and {output_size}"
        )
    if min(sizes) < 1:
        raise ValueError(f"{what}: output sizes are positive, not {tuple(sizes)}")
    for axis, wanted in enumerate(sizes, first):
        size = B.dim(x, axis)
        if not isinstance(size, int) or size < 1:
            raise refused(f"{what} needs sizes that are known, not {format_shape(B.shape(x))}")
        starts = np.arange(wanted) * size // wanted
        ends = -(-np.arange(1, wanted + 1) * size // wanted)
        average = what == "adaptive_average_pool"
        # Axis by axis: the mean of means and the largest of the largest are those of the window.
        x = (_means if average else _largest)(x, axis, starts, ends)
    return x


def _means(x: Tensor, axis: int, starts: Any, ends: Any) -> Tensor:
    """By a product with a matrix of weights, which is fast."""
    places = np.arange(B.dim(x, axis) or 0)[:, None]
    weights = ((places >= starts) & (places < ends)) / (ends - starts)
    last = B.known_rank(x, "pool") - 1
    order = [a for a in range(last + 1) if a != axis]
    moved = B.op("Transpose", x, perm=[*order, axis]) if axis != last else x
    product = B.op("MatMul", moved, weights.astype(x.dtype))
    back = [*range(axis), last, *range(axis, last)]
    return B.op("Transpose", product, perm=back) if axis != last else product


def _largest(x: Tensor, axis: int, starts: Any, ends: Any) -> Tensor:
    # Shorter windows have their last element more than once.
    places = starts[:, None] + np.arange((ends - starts).max())
    windows = B.op("Gather", x, np.minimum(places, ends[:, None] - 1), axis=axis)
    return B.op("ReduceMax", windows, [axis + 1], keepdims=0)
