"""Convolutions of each channel by itself, with or without mixing the channels afterwards."""

from __future__ import annotations

from typing import Any

from onnxtape import initializers
from onnxtape.layers.convolution import Convolution, Sizes, positive
from onnxtape.ops import convolution
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class _DepthwiseConv(Convolution):
    """Each channel convolved with kernels of its own.

    Args:
        depth_multiplier: the number of output channels for each input channel.
        kernel_size, strides, padding, data_format, dilation_rate, activation, bias_initializer,
            bias_regularizer, bias_constraint: as in `Conv2D`.
        depthwise_initializer, depthwise_regularizer, depthwise_constraint: of the kernel.

    Shapes: (batch, sizes..., channels) to (batch, new sizes..., channels * depth_multiplier);
    kernel (kernel_size..., channels, depth_multiplier), bias (channels * depth_multiplier,).

    Raises:
        ValueError, ShapeError: as `Conv2D`.
    """

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            bias_constraint,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier", type(self).__name__)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = depthwise_regularizer
        self.depthwise_constraint = depthwise_constraint
        self.kernel: Variable

    def _add_kernels(self, channels: int) -> int:
        self.kernel = self.add_weight(
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            name="kernel",
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )
        return channels * self.depth_multiplier

    def _convolve(self, x: Tensor) -> Tensor:
        return convolution.convolve_depthwise(
            x,
            self.kernel,
            self.bias,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            self._title,
        )


class DepthwiseConv1D(_DepthwiseConv):
    rank = 1


class DepthwiseConv2D(_DepthwiseConv):
    rank = 2


class _SeparableConv(Convolution):
    """Each channel convolved with kernels of its own, and the results mixed at every place.

    Args:
        filters: the number of output channels.
        depth_multiplier: the number of channels in between for each input channel.
        kernel_size, strides, padding, data_format, dilation_rate, activation, bias_initializer,
            bias_regularizer, bias_constraint: as in `Conv2D`.
        depthwise_initializer, pointwise_initializer, depthwise_regularizer, pointwise_regularizer,
            depthwise_constraint, pointwise_constraint: of the two kernels.

    Shapes: (batch, sizes..., channels) to (batch, new sizes..., filters); depthwise_kernel
    (kernel_size..., channels, depth_multiplier), pointwise_kernel (1, ..., channels *
    depth_multiplier, filters), bias (filters,).

    Raises:
        ValueError, ShapeError: as `Conv2D`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            bias_constraint,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.filters = positive(filters, "filters", type(self).__name__)
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier", type(self).__name__)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = depthwise_regularizer
        self.depthwise_constraint = depthwise_constraint
        self.pointwise_regularizer = pointwise_regularizer
        self.pointwise_constraint = pointwise_constraint
        self.depthwise_kernel: Variable
        self.pointwise_kernel: Variable

    def _add_kernels(self, channels: int) -> int:
        self.depthwise_kernel = self.add_weight(
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            name="depthwise_kernel",
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )
        self.pointwise_kernel = self.add_weight(
            (*(1,) * self.rank, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            name="pointwise_kernel",
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
        )
        return self.filters

    def _convolve(self, x: Tensor) -> Tensor:
        deep = convolution.convolve_depthwise(
            x,
            self.depthwise_kernel,
            None,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            self._title,
        )
        return convolution.convolve(
            deep, self.pointwise_kernel, self.bias, 1, "valid", self.data_format, 1, self._title
        )


class SeparableConv1D(_SeparableConv):
    rank = 1


class SeparableConv2D(_SeparableConv):
    rank = 2


# Keras's other names.
SeparableConvolution1D, SeparableConvolution2D = SeparableConv1D, SeparableConv2D
