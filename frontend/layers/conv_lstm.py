"""Recurrent layers whose products are convolutions (X. Shi et al., "Convolutional LSTM Network",
arXiv:1506.04214)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from onnxtape import activations, ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.layers.convolution import Sizes, positive
from onnxtape.layers.image_axes import wrong_rank
from onnxtape.layers.recurrent_base import WeightedCell
from onnxtape.layers.recurrent_layers import OfCell
from onnxtape.ops import convolution
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

_GATES = 4


class ConvLSTMCell(WeightedCell):
    """One step of `ConvLSTM1D`, `ConvLSTM2D` and `ConvLSTM3D`.

    i, f, o = recurrent_activation(x * W + h * R + b), by the gate's own weights, where * is a
    convolution; c' = f c + i activation(x * W + h * R + b), h' = o activation(c').

    Args:
        rank: how many spatial axes there are.
        others: as for the layers.

    Weights: kernel (*kernel_size, channels, 4 * filters), recurrent_kernel (*kernel_size, filters,
    4 * filters), bias (4 * filters,); gates in the order i, f, c, o.
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = locals()
        super().__init__(**kwargs)
        kind = f"ConvLSTM{rank}D"
        self.rank, self.filters = rank, positive(filters, "filters", kind)
        self.kernel_size = tuple(convolution.spread(kernel_size, rank, "kernel_size"))
        self.strides = tuple(convolution.spread(strides, rank, "strides"))
        self.dilation_rate = tuple(convolution.spread(dilation_rate, rank, "dilation_rate"))
        self.padding = convolution.checked_padding(padding, kind)
        self.data_format = convolution.checked_data_format(data_format)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{kind} takes strides or dilations, not both: strides={self.strides}, "
                f"dilation_rate={self.dilation_rate}"
            )
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{kind}: {name} lies in [0, 1), not at {rate}")
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.use_bias, self.unit_forget_bias = use_bias, unit_forget_bias
        self._take_settings(given)
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.seed_generator = random.SeedGenerator(seed) if dropout or recurrent_dropout else None
        self.state_size = [self.filters, self.filters]
        self.output_size = self.filters
        self.bias: Variable | None = None
        self._masks: dict[str, list[Tensor]] = {}

    # Weights --------------------------------------------------------------------------------------

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != self.rank + 2:
            raise wrong_rank(self, self.rank, self.data_format, input_shape)
        spatial = self._spatial(input_shape)
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        if channels is None or None in spatial:
            raise refused(
                f"ConvLSTM{self.rank}D needs inputs of known sizes but for batch and time, not "
                f"{format_shape(input_shape)} in each step"
            )
        gates = _GATES * self.filters
        self.kernel = self._weight("kernel", (*self.kernel_size, channels, gates))
        self.recurrent_kernel = self._weight("recurrent", (*self.kernel_size, self.filters, gates))
        if self.use_bias:
            self.bias = self._weight("bias", (gates,))
        self._input_sizes = (*spatial, channels)
        self._state_sizes = [
            self._result(*sizes)
            for sizes in zip(
                spatial, self.kernel_size, self.strides, self.dilation_rate, strict=True
            )
        ]
        self.built = True

    def _initial_bias(self, shape: Sequence[int], dtype: Any = "float32") -> Any:
        if not self.unit_forget_bias:
            return super()._initial_bias(shape, dtype)
        return self._bias_with_forget_gates_at_one(self.filters, dtype)

    def _spatial(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(shape[1:-1] if self.data_format == "channels_last" else shape[2:])

    def _result(self, size: int, window: int, stride: int, dilation: int) -> int:
        """How long an axis is behind the input's convolution."""
        reach = 0 if self.padding == "same" else (window - 1) * dilation
        return -(-(size - reach) // stride)

    # One step -------------------------------------------------------------------------------------

    def get_initial_state(self, batch_size: Any) -> list[Tensor]:
        shape = self._shape(batch_size, (*self._state_sizes, self.filters))
        return [ops.zeros(shape, self.compute_dtype) for _ in self.state_size]

    def _shape(self, batch_size: Any, sizes: Sequence[int]) -> tuple[Any, ...]:
        *spatial, channels = sizes
        if self.data_format == "channels_last":
            return (batch_size, *spatial, channels)
        return (batch_size, channels, *spatial)

    def reset_dropout(self) -> None:
        self._masks = {}

    def draw_dropout(self, batch_size: Any) -> None:
        states = self.get_initial_state(batch_size)
        inputs = self._shape(batch_size, self._input_sizes)
        self._behind_masks("inputs", ops.zeros(inputs, self.compute_dtype), self.dropout)
        self._behind_masks("states", states[0], self.recurrent_dropout)

    def _behind_masks(self, what: str, x: Any, rate: float) -> list[Any]:
        """What each gate takes: x, behind a mask of its own, which all steps share."""
        if not rate:
            return [x]
        if what not in self._masks:
            ones = ops.ones_like(x)
            self._masks[what] = [
                random.dropout(ones, rate, seed=self.seed_generator) for _ in range(_GATES)
            ]
        return [ops.multiply(x, mask) for mask in self._masks[what]]

    def _convolved(self, xs: Sequence[Any], kernel: Any, **options: Any) -> Tensor:
        """All gates' convolutions, side by side: of one input, or of one each."""
        kernels = [kernel] if len(xs) == 1 else ops.split(kernel, _GATES, axis=-1)
        made = [
            ops.conv(x, part, data_format=self.data_format, **options)
            for x, part in zip(xs, kernels, strict=True)
        ]
        return made[0] if len(made) == 1 else ops.concatenate(made, axis=self._channels)

    @property
    def _channels(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def call(
        self, inputs: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        h, c = states
        z = self._convolved(
            self._behind_masks("inputs", inputs, self.dropout if training else 0.0),
            self.kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )
        recurrent = self._behind_masks("states", h, self.recurrent_dropout if training else 0.0)
        z = z + self._convolved(recurrent, self.recurrent_kernel, padding="same")
        if self.bias is not None:
            shape = self._shape(1, (*[1] * self.rank, _GATES * self.filters))
            z = z + ops.reshape(self.bias, shape)
        i, f, new, o = ops.split(z, _GATES, axis=self._channels)
        gate, activation = self.recurrent_activation, self.activation
        c = gate(f) * c + gate(i) * activation(new)
        h = gate(o) * activation(c)
        return h, [h, c]


class _ConvLSTM(OfCell):
    """The layers' common part."""

    cell_type = ConvLSTMCell
    rank: ClassVar[int]

    def __init__(self, given: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__({**given, "rank": self.rank, "unroll": False}, **kwargs)
        cell = self.cell
        self.filters, self.kernel_size, self.strides = cell.filters, cell.kernel_size, cell.strides
        self.padding, self.data_format = cell.padding, cell.data_format
        self.dilation_rate = cell.dilation_rate


class ConvLSTM1D(_ConvLSTM):
    """A convolutional LSTM over sequences of rows.

    Args:
        filters: how many channels outputs and states have.
        kernel_size: of the windows of both convolutions, that of the inputs and that of the state.
        strides, padding, dilation_rate: of the inputs' convolution. The state's has padding "same".
        data_format: "channels_last" or "channels_first".
        others: as for `LSTM`.

    Shapes: (batch, time, length, channels) to (batch, time, new length, filters);
    without `return_sequences` without the axis of time. Weights: see `ConvLSTMCell`.
    """

    rank = 1

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals(), **kwargs)


class ConvLSTM2D(_ConvLSTM):
    """A convolutional LSTM over sequences of images.

    Args:
        filters: how many channels outputs and states have.
        kernel_size: of the windows of both convolutions, that of the inputs and that of the state.
        strides, padding, dilation_rate: of the inputs' convolution. The state's has padding "same".
        data_format: "channels_last" or "channels_first".
        others: as for `LSTM`.

    Shapes: (batch, time, rows, columns, channels) to (batch, time, ..., filters);
    without `return_sequences` without the axis of time. Weights: see `ConvLSTMCell`.
    """

    rank = 2

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals(), **kwargs)


class ConvLSTM3D(_ConvLSTM):
    """A convolutional LSTM over sequences of volumes.

    Args:
        filters: how many channels outputs and states have.
        kernel_size: of the windows of both convolutions, that of the inputs and that of the state.
        strides, padding, dilation_rate: of the inputs' convolution. The state's has padding "same".
        data_format: "channels_last" or "channels_first".
        others: as for `LSTM`.

    Shapes: (batch, time, three sizes, channels) to (batch, time, ..., filters);
    without `return_sequences` without the axis of time. Weights: see `ConvLSTMCell`.
    """

    rank = 3

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals(), **kwargs)
