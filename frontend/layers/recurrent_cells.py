"""What recurrent layers do in one time step, with Keras 3's arguments, weights and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape import ops
from onnxtape.engine import B
from onnxtape.layers.recurrent_base import GatedCell, RecurrentCell, initial_state
from onnxtape.tensor import Tensor


class SimpleRNNCell(GatedCell):
    """activation(inputs @ kernel + bias + h @ recurrent_kernel).

    Weights: kernel (features, units), recurrent_kernel (units, units), bias (units,).
    """

    gates = (0,)
    operator = "RNN"

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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
        super().__init__([activation], locals(), **kwargs)

    def call(
        self, inputs: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        z = ops.matmul(self.dropped_inputs(inputs, training), self.kernel)
        z = z if self.bias is None else z + self.bias
        hs = self._recurrent_products(states[0], training)
        h = self.functions[0](z + self._recurrent(hs, slice(None)))
        return h, [h]


class GRUCell(GatedCell):
    """Cho et al.'s gated recurrent unit (arXiv:1406.1078), `reset_after` as cuDNN has it.

    Weights, with gates z, r, h: kernel (features, 3 * units), recurrent_kernel (units, 3 * units),
    bias (2, 3 * units), the input's and the recurrent one, or (3 * units,) without `reset_after`.
    """

    gates = (0, 1, 2)
    operator = "GRU"

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__([recurrent_activation, activation], locals(), **kwargs)
        self.reset_after = reset_after

    def _bias_shape(self, count: int) -> tuple[int, ...]:
        return (2, count) if self.reset_after else (count,)

    def _attributes(self) -> dict[str, Any]:
        return {"linear_before_reset": int(self.reset_after)}

    def _biases(self) -> Tensor | None:
        if self.bias is None or not self.reset_after:
            return super()._biases()
        return B.op("Reshape", self.bias.value, [1, 6 * self.units])

    def call(
        self, inputs: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        gate, activation = self.functions
        zx = ops.matmul(self.dropped_inputs(inputs, training), self.kernel)
        h, recurrent_bias = states[0], None
        if self.bias is not None:
            bias = self.bias.value
            if self.reset_after:
                bias, recurrent_bias = ops.unstack(bias)
            zx = zx + bias
        hs = self._recurrent_products(h, training)
        x_z, x_r, x_h = ops.split(zx, 3, axis=-1)
        if self.reset_after:
            inner = self._recurrent(hs, slice(None))
            inner = inner if recurrent_bias is None else inner + recurrent_bias
            h_z, h_r, h_h = ops.split(inner, 3, axis=-1)
            z, r = gate(x_z + h_z), gate(x_r + h_r)
            new = activation(x_h + r * h_h)
        else:
            h_z, h_r = ops.split(self._recurrent(hs, slice(0, 2)), 2, axis=-1)
            z, r = gate(x_z + h_z), gate(x_r + h_r)
            reset = ops.multiply(r, hs[2])
            new = activation(x_h + self._recurrent([reset] * 3, slice(2, 3)))
        following = z * h + (1.0 - z) * new
        return following, [following]


class LSTMCell(GatedCell):
    """Hochreiter and Schmidhuber's long short-term memory.

    Weights, with gates i, f, c, o: kernel (features, 4 * units), recurrent_kernel
    (units, 4 * units), bias (4 * units,), whose forget gates start at one (`unit_forget_bias`).
    """

    gates = (0, 3, 1, 2)
    operator = "LSTM"

    def __init__(
        self,
        units: int,
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
        super().__init__([recurrent_activation, activation, activation], locals(), **kwargs)
        self.unit_forget_bias = unit_forget_bias
        self.state_size = [self.units, self.units]

    def _initial_bias(self, shape: Sequence[int], dtype: Any = "float32") -> Any:
        if not self.unit_forget_bias:
            return super()._initial_bias(shape, dtype)
        return self._bias_with_forget_gates_at_one(self.units, dtype)

    def call(
        self, inputs: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        gate, activation, _ = self.functions
        h, c = states
        z = ops.matmul(self.dropped_inputs(inputs, training), self.kernel)
        z = z + self._recurrent(self._recurrent_products(h, training), slice(None))
        z = z if self.bias is None else z + self.bias
        i, f, new, o = ops.split(z, 4, axis=-1)
        c = gate(f) * c + gate(i) * activation(new)
        h = gate(o) * activation(c)
        return h, [h, c]


class StackedRNNCells(RecurrentCell):
    """Cells on top of each other, as one cell; its states are a list for each cell."""

    def __init__(self, cells: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not cells:
            raise ValueError("StackedRNNCells needs at least one cell")
        self.cells = list(cells)
        self.state_size = [cell.state_size for cell in self.cells]
        self.output_size = getattr(self.cells[-1], "output_size", self.cells[-1].state_size)

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        return [initial_state(cell, batch_size) for cell in self.cells]

    def reset_dropout(self) -> None:
        for cell in self.cells:
            if isinstance(cell, RecurrentCell):
                cell.reset_dropout()

    def draw_dropout(self, batch_size: Any) -> None:
        for cell in self.cells:
            if isinstance(cell, RecurrentCell):
                cell.draw_dropout(batch_size)

    def call(
        self, inputs: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Any, list[Any]]:
        following = []
        for cell, own in zip(self.cells, states, strict=True):
            options = {"training": training} if cell.takes_training else {}
            inputs, after = cell(inputs, own, **options)
            following.append(list(after) if isinstance(after, (list, tuple)) else [after])
        return inputs, following
