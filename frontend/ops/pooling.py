"""Pooling with Keras's layouts: channels last.

ONNX has channels first. What changes layouts are Transposes by themselves, so that a compiled step
can join those of neighbouring layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape.compiler.dims import Dim, format_shape
from onnxtape.engine import B
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format, checked_padding, spread
from onnxtape.ops.promotion import operands
from onnxtape.tensor import Tensor

__all__ = ["average_pool", "max_pool"]


def max_pool(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The largest element of each window; of equal ones the first gets the gradient.

    Args:
        inputs: (batch, sizes..., channels) with one to three sizes; with
            data_format="channels_first" (batch, channels, sizes...).
        pool_size: the window's sizes, one number for all dimensions or one for each.
        strides: how far windows are apart; by default the window's sizes.
        padding: "valid" for whole windows only; "same" for as many as inputs (divided by the
            strides and rounded up), the larger half of what windows stick out by at the end.

    Raises:
        ShapeError: the inputs' rank does not fit, or the window is larger than they are.
        ValueError: sizes or strides below 1, an unknown padding or data format.
    """
    return _pool("MaxPool", inputs, pool_size, strides, padding, data_format, "max_pool")


def average_pool(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The mean of each window, of those of its elements that exist.

    Args:
        inputs, pool_size, strides, padding, data_format: as in `max_pool`.

    Raises:
        ShapeError, ValueError: as in `max_pool`.
    """
    return _pool("AveragePool", inputs, pool_size, strides, padding, data_format, "average_pool")


def _pool(
    op_type: str,
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: str,
    data_format: str | None,
    what: str,
) -> Tensor:
    (x,) = operands(inputs, floating=True)
    last = checked_data_format(data_format) == "channels_last"
    shape = B.shape(x)
    rank = B.known_rank(x, what) - 2
    if shape is None or not 1 <= rank <= 3:
        raise refused(
            f"{what} takes inputs of rank 3 (one spatial dimension) to 5, not {format_shape(shape)}"
        )
    window = spread(pool_size, rank, "pool_size")
    steps = window if strides is None else spread(strides, rank, "strides")
    sizes = shape[1:-1] if last else shape[2:]
    same = checked_padding(padding, what) == "same"
    for size, w in zip(sizes, window, strict=True):
        if isinstance(size, int) and size < w and not same:
            raise refused(
                f"{what}: a window of {format_shape(window)} is larger than the inputs "
                f'{format_shape(shape)}; make it smaller, or take padding="same"'
            )
    pads = _same_pads(sizes, window, steps) if same else None
    if same and pads is None and any(s > w for w, s in zip(window, steps, strict=True)):
        raise refused(
            f'{what}: padding="same" with strides larger than the window needs inputs whose size '
            f"is known, not {format_shape(shape)}"
        )
    if last:
        x = B.op("Transpose", x, perm=[0, rank + 1, *range(1, rank + 1)])
    y = B.op(
        op_type,
        x,
        kernel_shape=window,
        strides=steps,
        pads=pads,
        auto_pad="SAME_UPPER" if same and pads is None else None,
    )
    return B.op("Transpose", y, perm=[0, *range(2, rank + 2), 1]) if last else y


def _same_pads(
    sizes: Sequence[Dim], window: Sequence[int], strides: Sequence[int]
) -> list[int] | None:
    """What windows stick out by before and after each axis; None where sizes are not known."""
    totals = []
    for size, w, stride in zip(sizes, window, strides, strict=True):
        if not isinstance(size, int):
            return None
        totals.append(max((-(-size // stride) - 1) * stride + w - size, 0))
    return [*(t // 2 for t in totals), *(t - t // 2 for t in totals)]
