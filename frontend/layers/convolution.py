"""Convolutions and transposed convolutions, and what all convolution layers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from onnxtape import activations, initializers, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.image_axes import wrong_rank
from onnxtape.layers.layer import Layer
from onnxtape.ops import convolution
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

#: One number for all spatial dimensions, or one for each.
Sizes = int | Sequence[int]


def positive(number: int, name: str, kind: str) -> int:
    """The number; ValueError, which names the layer's kind, if it is not positive."""
    if number <= 0:
        raise ValueError(f"{kind} needs a positive number of {name}, not {number}")
    return int(number)


class Convolution(Layer):
    """What all convolution layers share: the window, the layout, the bias and the activation.

    A subclass creates its kernels in `_add_kernels` and applies them in `_convolve`.
    """

    #: How many spatial dimensions there are.
    rank: ClassVar[int]
    #: What `padding` may be besides "valid" and "same".
    _more_paddings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes,
        padding: str,
        data_format: str | None,
        dilation_rate: Sizes,
        activation: Any,
        use_bias: bool,
        bias_initializer: Any,
        bias_regularizer: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kind = type(self).__name__
        self.kernel_size = tuple(convolution.spread(kernel_size, self.rank, "kernel_size"))
        self.strides = tuple(convolution.spread(strides, self.rank, "strides"))
        self.dilation_rate = tuple(convolution.spread(dilation_rate, self.rank, "dilation_rate"))
        self.padding = convolution.checked_padding(padding, kind, *self._more_paddings)
        self.data_format = convolution.checked_data_format(data_format)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{kind} takes strides or dilations, not both: strides={self.strides}, "
                f"dilation_rate={self.dilation_rate}"
            )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = bias_regularizer
        self.bias_constraint = bias_constraint
        self.bias: Variable | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != self.rank + 2:
            raise wrong_rank(self, self.rank, self.data_format, input_shape)
        channels = input_shape[self._channel_axis]
        if channels is None:
            raise refused(
                f"{type(self).__name__} '{self.name}' needs inputs whose number of channels is "
                f"known, not {format_shape(input_shape)}"
            )
        outputs = self._add_kernels(channels)
        if self.use_bias:
            self.bias = self.add_weight(
                (outputs,),
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    @property
    def _channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} '{self.name}'"

    def _add_kernels(self, channels: int) -> int:
        """Create the kernels for this many input channels; returns the number of outputs."""
        raise NotImplementedError

    def _convolve(self, x: Tensor) -> Tensor:
        """The kernels and the bias applied."""
        raise NotImplementedError

    def call(self, inputs: Any) -> Tensor:
        # Integers too: a layer computes in its own dtype.
        result: Tensor = self.activation(
            self._convolve(convert_to_tensor(inputs, self.compute_dtype))
        )
        return result


class _Conv(Convolution):
    """A convolution, over one, two or three spatial dimensions as the name says.

    Args:
        filters: the number of output channels.
        kernel_size: the kernels' sizes, one number for all dimensions or one for each.
        strides: how far the kernels move from one output to the next.
        padding: "valid" for none, "same" for zeros that keep sizes (but for strides); of Conv1D
            also "causal", for zeros before the first input alone.
        data_format: "channels_last", which is the default, or "channels_first".
        dilation_rate: how far the kernels' places are apart.
        groups: input and output channels are split into so many groups, each connected only
            within itself.
        activation: a name or function.
        kernel_initializer, bias_initializer: see `ot.initializers`.
        kernel_regularizer, bias_regularizer: names, or functions of the weight that are added to
            the losses.
        kernel_constraint, bias_constraint: names, or functions of the weight that give its value
            after an update.

    Shapes: (batch, sizes..., channels) to (batch, new sizes..., filters); kernel
    (kernel_size..., channels / groups, filters), bias (filters,).

    Raises:
        ValueError: filters that do not split into groups, strides together with dilations, or
            sizes below 1.
        ShapeError: (when built) inputs of another rank, or channels that do not split into groups.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
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
        self.groups = positive(groups, "groups", type(self).__name__)
        if self.filters % self.groups:
            raise ValueError(
                f"{type(self).__name__}: {self.filters} filters do not split into "
                f"{self.groups} groups"
            )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = kernel_regularizer
        self.kernel_constraint = kernel_constraint
        self.kernel: Variable

    def _add_kernels(self, channels: int) -> int:
        if channels % self.groups:
            raise refused(
                f"{self._title}: {channels} input channels do not split into {self.groups} groups"
            )
        self.kernel = self.add_weight(
            (*self.kernel_size, channels // self.groups, self.filters),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        return self.filters

    def _convolve(self, x: Tensor) -> Tensor:
        # The number of channels that the kernel takes does not tell a wrong input from groups.
        _check_channels(x, self._channel_axis, self.kernel.shape[-2] * self.groups, self._title)
        padding = self.padding
        if padding == "causal":
            before = self.dilation_rate[0] * (self.kernel_size[0] - 1)
            widths = [(0, 0), (0, 0), (0, 0)]
            widths[1 if self.data_format == "channels_last" else 2] = (before, 0)
            x, padding = ops.pad(x, widths), "valid"
        return convolution.convolve(
            x,
            self.kernel,
            self.bias,
            self.strides,
            padding,
            self.data_format,
            self.dilation_rate,
            self._title,
        )


class Conv1D(_Conv):
    rank = 1
    _more_paddings = ("causal",)


class Conv2D(_Conv):
    rank = 2


class Conv3D(_Conv):
    rank = 3


class _ConvTranspose(Convolution):
    """A transposed convolution, over one, two or three spatial dimensions as the name says.

    It makes images larger by the strides: what a convolution's gradient does.

    Args:
        filters: the number of output channels.
        kernel_size, strides, data_format, dilation_rate, activation, kernel_initializer,
            bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
            bias_constraint: as in `Conv2D`.
        padding: for a kernel that reaches over k, "valid" makes (size - 1) * stride + max(k,
            stride) of a size, "same" size * stride.
        output_padding: with "valid", added to (size - 1) * stride + k; with "same", to
            (size - 1) * stride + k % 2; in either case less than the stride.

    Shapes: (batch, sizes..., channels) to (batch, new sizes..., filters); kernel
    (kernel_size..., filters, channels), bias (filters,).

    Raises:
        ValueError, ShapeError: as `Conv2D`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        output_padding: Sizes | None = None,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
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
        self.output_padding = convolution.checked_output_padding(
            output_padding, self.strides, type(self).__name__
        )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = kernel_regularizer
        self.kernel_constraint = kernel_constraint
        self.kernel: Variable

    def _add_kernels(self, channels: int) -> int:
        self.kernel = self.add_weight(
            (*self.kernel_size, self.filters, channels),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        return self.filters

    def _convolve(self, x: Tensor) -> Tensor:
        return convolution.convolve_transposed(
            x,
            self.kernel,
            self.bias,
            self.strides,
            self.padding,
            self.output_padding,
            self.data_format,
            self.dilation_rate,
            self._title,
        )


class Conv1DTranspose(_ConvTranspose):
    rank = 1


class Conv2DTranspose(_ConvTranspose):
    rank = 2


class Conv3DTranspose(_ConvTranspose):
    rank = 3


def _check_channels(x: Tensor, axis: int, expected: int, title: str) -> None:
    found = B.dim(x, axis)
    if isinstance(found, int) and found != expected:
        raise refused(
            f"{title} was built for inputs of {expected} channels, but got "
            f"{format_shape(B.shape(x))}"
        )


# Keras's other names.
Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D
Convolution1DTranspose = Conv1DTranspose
Convolution2DTranspose = Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
