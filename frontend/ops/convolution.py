"""Convolutions with Keras's layouts: channels last, kernels as (sizes..., inputs, outputs).

ONNX has channels first. What changes layouts are Transposes by themselves, so that a compiled step
can join those of neighbouring layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnxtape.compiler.dims import Dim, format_shape
from onnxtape.engine import B
from onnxtape.ops.axes import refused
from onnxtape.ops.promotion import operands
from onnxtape.tensor import Tensor

__all__ = ["conv", "conv_transpose", "depthwise_conv", "separable_conv"]


def conv(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Tensor:
    """Convolution (cross-correlation) over one to three spatial dimensions.

    Args:
        inputs: (batch, sizes..., channels); with data_format="channels_first" (batch, channels,
            sizes...). Where the kernel has fewer input channels, these are split into groups.
        kernel: (sizes..., input channels, output channels).
        padding: "valid" for none, or "same" for zeros that make the output as large as the input
            (divided by the strides and rounded up), the larger half of them at the end.

    Raises:
        ShapeError: channels or ranks do not fit, or the kernel is larger than the inputs.
    """
    return convolve(inputs, kernel, None, strides, padding, data_format, dilation_rate)


def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    output_padding: int | Sequence[int] | None = None,
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Tensor:
    """The transpose of a convolution, which makes images larger by the strides.

    Args:
        inputs: as `conv` takes them.
        kernel: (sizes..., output channels, input channels).
        padding: for a kernel that reaches over k, "valid" makes (size - 1) * stride + max(k,
            stride) of a size, "same" size * stride.
        output_padding: with "valid", added to (size - 1) * stride + k; with "same", to
            (size - 1) * stride + k % 2; in either case less than the stride.

    Raises:
        ShapeError: channels or ranks do not fit.
    """
    return convolve_transposed(
        inputs, kernel, None, strides, padding, output_padding, data_format, dilation_rate
    )


def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Tensor:
    """A convolution of each channel with kernels of its own.

    Args:
        inputs, strides, padding, data_format, dilation_rate: as in `conv`.
        kernel: (sizes..., channels, multiplier).

    Returns:
        channels * multiplier output channels, those of one input channel next to each other.

    Raises:
        ShapeError: as in `conv`.
    """
    return convolve_depthwise(inputs, kernel, None, strides, padding, data_format, dilation_rate)


def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
) -> Tensor:
    """A depthwise convolution, and one over 1 x 1 that mixes the channels.

    Args:
        inputs, strides, padding, data_format, dilation_rate: as in `conv`.
        depthwise_kernel: (sizes..., channels, multiplier).
        pointwise_kernel: (1, ..., channels * multiplier, output channels).

    Raises:
        ShapeError: as in `conv`.
    """
    deep = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(deep, pointwise_kernel, 1, "valid", data_format)


# With a bias, as layers have them -------------------------------------------------------------


def convolve(
    inputs: Any,
    kernel: Any,
    bias: Any,
    strides: int | Sequence[int],
    padding: str,
    data_format: str | None,
    dilation_rate: int | Sequence[int],
    what: str = "conv",
) -> Tensor:
    """`conv`, with a bias of shape (output channels,) or None. `what` is for messages."""
    x, w, c = _tensors(inputs, kernel, bias)
    layout = _Layout(x, w, data_format, what)
    channels, taken = layout.channels, B.dim(w, layout.rank)
    group = 1
    if isinstance(channels, int) and isinstance(taken, int):
        if taken == 0 or channels % taken:
            raise refused(
                f"{what}: a kernel of shape {format_shape(B.shape(w))} takes {taken} input "
                f"channels (or groups of so many), but the inputs "
                f"{format_shape(B.shape(x))} have {channels}"
            )
        group = channels // taken
    w = B.op("Transpose", w, perm=layout.kernel_first)
    return _conv(layout, x, w, c, group, strides, padding, dilation_rate, what)


def convolve_depthwise(
    inputs: Any,
    kernel: Any,
    bias: Any,
    strides: int | Sequence[int],
    padding: str,
    data_format: str | None,
    dilation_rate: int | Sequence[int],
    what: str = "depthwise_conv",
) -> Tensor:
    """`depthwise_conv`, with a bias or None."""
    x, w, c = _tensors(inputs, kernel, bias)
    layout = _Layout(x, w, data_format, what)
    channels, multiplier = (B.dim(w, layout.rank + i) for i in range(2))
    if not isinstance(channels, int) or not isinstance(multiplier, int):
        raise refused(f"{what} needs a kernel whose shape is known")
    if isinstance(layout.channels, int) and layout.channels != channels:
        raise refused(
            f"{what}: a kernel of shape {format_shape(B.shape(w))} takes {channels} input "
            f"channels, but the inputs {format_shape(B.shape(x))} have {layout.channels}"
        )
    rank = layout.rank
    w = B.op("Transpose", w, perm=[rank, rank + 1, *range(rank)])
    w = B.op("Reshape", w, [channels * multiplier, 1, *layout.kernel_sizes])
    return _conv(layout, x, w, c, channels, strides, padding, dilation_rate, what)


def convolve_transposed(
    inputs: Any,
    kernel: Any,
    bias: Any,
    strides: int | Sequence[int],
    padding: str,
    output_padding: int | Sequence[int] | None,
    data_format: str | None,
    dilation_rate: int | Sequence[int],
    what: str = "conv_transpose",
) -> Tensor:
    """`conv_transpose`, with a bias or None."""
    x, w, c = _tensors(inputs, kernel, bias)
    layout = _Layout(x, w, data_format, what)
    taken = B.dim(w, layout.rank + 1)
    if isinstance(layout.channels, int) and isinstance(taken, int) and layout.channels != taken:
        raise refused(
            f"{what}: a kernel of shape {format_shape(B.shape(w))} takes {taken} input "
            f"channels, but the inputs {format_shape(B.shape(x))} have {layout.channels}"
        )
    rank = layout.rank
    steps, dilations = (
        spread(strides, rank, "strides"),
        spread(dilation_rate, rank, "dilation_rate"),
    )
    added = checked_output_padding(output_padding, steps, what)
    before, after, rest = [], [], []
    for i, (k, s, d) in enumerate(zip(layout.kernel_sizes, steps, dilations, strict=True)):
        reach = (k - 1) * d + 1
        # What the output falls short of (size - 1) * stride + reach by.
        if checked_padding(padding, what) == "same":
            cut = reach - s if added is None else reach - reach % 2 - added[i]
        else:
            cut = -max(s - reach, 0) if added is None else -added[i]
        before.append(max(cut, 0) // 2)
        after.append(max(cut, 0) - max(cut, 0) // 2)
        rest.append(max(-cut, 0))
    y = B.op(
        "ConvTranspose",
        layout.channels_first(x),
        B.op("Transpose", w, perm=layout.kernel_first),
        c,
        strides=steps,
        dilations=dilations,
        pads=[*before, *after],
        output_padding=rest if any(rest) else None,
    )
    return layout.back(y)


def _conv(
    layout: _Layout,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    group: int,
    strides: int | Sequence[int],
    padding: str,
    dilation_rate: int | Sequence[int],
    what: str,
) -> Tensor:
    rank = layout.rank
    steps, dilations = (
        spread(strides, rank, "strides"),
        spread(dilation_rate, rank, "dilation_rate"),
    )
    reach = [(k - 1) * d + 1 for k, d in zip(layout.kernel_sizes, dilations, strict=True)]
    attributes: dict[str, Any] = {"strides": steps, "dilations": dilations, "group": group}
    if checked_padding(padding, what) == "valid":
        for size, length in zip(layout.sizes, reach, strict=True):
            if isinstance(size, int) and size < length:
                raise refused(
                    f"{what}: a kernel of {format_shape(layout.kernel_sizes)} that reaches over "
                    f"{format_shape(reach)} is larger than the inputs {format_shape(B.shape(x))}; "
                    'make it smaller, or take padding="same"'
                )
    elif (pads := _same_pads(layout.sizes, reach, steps)) is not None:
        attributes["pads"] = pads
    elif max(dilations) > 1:
        raise refused(
            f'{what}: padding="same" with strides and dilations needs inputs whose size is known, '
            f"not {format_shape(B.shape(x))}"
        )
    else:
        attributes["auto_pad"] = "SAME_UPPER"
    y = B.op("Conv", layout.channels_first(x), w, bias, **attributes)
    return layout.back(y)


def _same_pads(sizes: Sequence[Dim], reach: list[int], strides: list[int]) -> list[int] | None:
    """Zeros before and after each axis, where sizes do not decide them or are known."""
    totals = []
    for size, length, stride in zip(sizes, reach, strides, strict=True):
        if stride == 1:
            totals.append(length - 1)
        elif isinstance(size, int):
            totals.append(max((math.ceil(size / stride) - 1) * stride + length - size, 0))
        else:
            return None
    return [*(t // 2 for t in totals), *(t - t // 2 for t in totals)]


# Arguments ------------------------------------------------------------------------------------


class _Layout:
    """Where the inputs' channels are, and the sizes of inputs and kernel."""

    def __init__(self, x: Tensor, w: Tensor, data_format: str | None, what: str) -> None:
        self.last = checked_data_format(data_format) == "channels_last"
        self.rank = B.known_rank(x, what) - 2
        shapes = B.shape(x) or (), B.shape(w) or ()
        if not 1 <= self.rank <= 3 or len(shapes[1]) != self.rank + 2:
            raise refused(
                f"{what} takes inputs and kernels of one rank, from 3 (one spatial dimension) to "
                f"5, not {format_shape(shapes[0])} and {format_shape(shapes[1])}"
            )
        self.sizes = shapes[0][1:-1] if self.last else shapes[0][2:]
        self.channels = shapes[0][-1 if self.last else 1]
        kernel = shapes[1][: self.rank]
        self.kernel_sizes = [k for k in kernel if isinstance(k, int)]
        if len(self.kernel_sizes) < self.rank:
            raise refused(f"{what} needs a kernel whose size is known, not {format_shape(kernel)}")
        # From (sizes..., a, b) to (b, a, sizes...).
        self.kernel_first = [self.rank + 1, self.rank, *range(self.rank)]

    def channels_first(self, x: Tensor) -> Tensor:
        if not self.last:
            return x
        return B.op("Transpose", x, perm=[0, self.rank + 1, *range(1, self.rank + 1)])

    def back(self, y: Tensor) -> Tensor:
        return B.op("Transpose", y, perm=[0, *range(2, self.rank + 2), 1]) if self.last else y


def _tensors(inputs: Any, kernel: Any, bias: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    if bias is None:
        x, w = operands(inputs, kernel, floating=True)
        return x, w, None
    x, w, c = operands(inputs, kernel, bias, floating=True)
    return x, w, c


def spread(value: int | Sequence[int], rank: int, name: str, least: int = 1) -> list[int]:
    """One whole number for all spatial dimensions, or one for each, as a list.

    Raises:
        ValueError: a wrong count, or a number below `least`.
    """
    numbers = [value] * rank if isinstance(value, int) else [int(v) for v in value]
    if len(numbers) != rank:
        raise ValueError(f"{name} takes one number or {rank}, not {value!r}")
    if min(numbers) < least:
        raise ValueError(f"{name} takes numbers from {least} on, not {value!r}")
    return numbers


def checked_output_padding(
    value: int | Sequence[int] | None, strides: Sequence[int], what: str
) -> tuple[int, ...] | None:
    """One number for each spatial dimension, or None; ValueError if one reaches the stride."""
    if value is None:
        return None
    added = tuple(spread(value, len(strides), "output_padding", 0))
    if any(a >= s for a, s in zip(added, strides, strict=True)):
        raise ValueError(
            f"{what}: output_padding must be less than the strides, but {added} is not less than "
            f"{tuple(strides)}"
        )
    return added


def checked_padding(padding: str, what: str, *more: str) -> str:
    """The padding in lower case; ValueError if it is none of "valid", "same" and `more`."""
    known = ("valid", "same", *more)
    if not isinstance(padding, str) or padding.lower() not in known:
        names = " or ".join(map(repr, known))
        raise ValueError(f"{what}: padding is {names}, not {padding!r}")
    return padding.lower()


def checked_data_format(data_format: str | None) -> str:
    """The data format, "channels_last" by default; ValueError if there is none such."""
    if data_format not in (None, "channels_last", "channels_first"):
        raise ValueError(f"data_format is 'channels_last' or 'channels_first', not {data_format!r}")
    return data_format or "channels_last"
