"""What the cells of recurrent layers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxtape import activations, constraints, initializers, ops, random, regularizers
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B
from onnxtape.layers.layer import Layer
from onnxtape.ops import nn
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

#: Activation functions that ONNX's recurrent operators know: name, alpha and beta.
_FUNCTIONS: dict[Callable[[Any], Any], tuple[str, float, float]] = {
    activations.linear: ("Affine", 1.0, 0.0),
    activations.tanh: ("Tanh", 0.0, 0.0),
    nn.relu: ("Relu", 0.0, 0.0),
    nn.sigmoid: ("Sigmoid", 0.0, 0.0),
    nn.hard_sigmoid: ("HardSigmoid", 1.0 / 6.0, 0.5),
    nn.softplus: ("Softplus", 0.0, 0.0),
    nn.softsign: ("Softsign", 0.0, 0.0),
}
_TAKES_NUMBERS = ("Affine", "HardSigmoid")

#: What can be said of each weight.
_SETTINGS: dict[str, Any] = {
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


class RecurrentCell(Layer):
    """A layer that takes a time step's inputs (batch, features) and its states.

    `call(inputs, states, training)` returns the output and the next states. `RNN` runs any layer
    of this kind over a sequence.

    Attributes:
        state_size: the size of each state.
        output_size: of the output.
    """

    state_size: Any
    output_size: int

    def get_initial_state(self, batch_size: Any) -> list[Tensor]:
        """States (batch, size) of zeros."""
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in self.state_size]

    def reset_dropout(self) -> None:
        """Draw new dropout masks from the next step on; a sequence's steps share theirs."""

    def draw_dropout(self, batch_size: Any) -> None:
        """Draw them now: what a loop's body draws, its next iteration has not."""


def initial_state(cell: Any, batch_size: Any) -> list[Any]:
    """Any cell's states of zeros for so many sequences."""
    if hasattr(cell, "get_initial_state"):
        made = cell.get_initial_state(batch_size=batch_size)
        return list(made) if isinstance(made, (list, tuple)) else [made]
    sizes = cell.state_size
    sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    return [ops.zeros((batch_size, size), cell.compute_dtype) for size in sizes]


class WeightedCell(RecurrentCell):
    """A cell with a kernel, a recurrent kernel and a bias, each with settings of its own."""

    bias_initializer: Any

    def _take_settings(self, given: Mapping[str, Any]) -> None:
        """Keep the initializers, regularizers and constraints among a cell's arguments."""
        for weight in ("kernel", "recurrent", "bias"):
            for what, module in _SETTINGS.items():
                name = f"{weight}_{what}"
                setattr(self, name, module.get(given[name]))

    def _weight(self, which: str, shape: tuple[int, ...]) -> Variable:
        initializer = (
            self._initial_bias if which == "bias" else getattr(self, f"{which}_initializer")
        )
        return self.add_weight(
            shape,
            initializer,
            name="recurrent_kernel" if which == "recurrent" else which,
            regularizer=getattr(self, f"{which}_regularizer"),
            constraint=getattr(self, f"{which}_constraint"),
        )

    def _initial_bias(self, shape: Sequence[int], dtype: Any = "float32") -> Any:
        return self.bias_initializer(shape, dtype=dtype)

    def _bias_with_forget_gates_at_one(self, units: int, dtype: Any) -> Any:
        """Of an LSTM's gates i, f, c, o."""
        first = self.bias_initializer((units,), dtype=dtype)
        rest = self.bias_initializer((2 * units,), dtype=dtype)
        return ops.concatenate([first, ops.ones((units,), dtype), rest])


class GatedCell(WeightedCell):
    """SimpleRNN's, GRU's and LSTM's cells: what they have in common."""

    #: The number of gates and their order in ONNX's operator, which is `operator`.
    gates: tuple[int, ...]
    operator: str

    def __init__(self, functions: Sequence[Any], given: Mapping[str, Any], **kwargs: Any) -> None:
        """See the subclasses.

        Args:
            functions: of the gates, then of the states, as ONNX's operator orders them.
            given: all arguments of the subclass by their names.
        """
        super().__init__(**kwargs)
        kind = type(self).__name__
        if given["units"] <= 0:
            raise ValueError(f"{kind} needs a positive number of units, not {given['units']}")
        for name in ("dropout", "recurrent_dropout"):
            if not 0 <= given[name] < 1:
                raise ValueError(f"{kind}: {name} lies in [0, 1), not at {given[name]}")
        self.units = int(given["units"])
        self.functions = [activations.get(f) for f in functions]
        self.use_bias: bool = given["use_bias"]
        self._take_settings(given)
        self.dropout: float = given["dropout"]
        self.recurrent_dropout: float = given["recurrent_dropout"]
        self.output_size = self.units
        self.state_size = [self.units]
        drops = self.dropout or self.recurrent_dropout
        self.seed_generator = random.SeedGenerator(given["seed"]) if drops else None
        self.kernel: Variable
        self.recurrent_kernel: Variable
        self.bias: Variable | None = None
        self._input_mask: Tensor | None = None
        self._recurrent_masks: list[Tensor] | None = None

    # Weights --------------------------------------------------------------------------------------

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not input_shape or input_shape[-1] is None:
            raise refused(
                f"{type(self).__name__} '{self.name}' needs inputs whose last dimension is known, "
                f"not {format_shape(input_shape)}"
            )
        count = len(self.gates) * self.units
        self.kernel = self._weight("kernel", (input_shape[-1], count))
        self.recurrent_kernel = self._weight("recurrent", (self.units, count))
        if self.use_bias:
            self.bias = self._weight("bias", self._bias_shape(count))
        self.built = True

    def _bias_shape(self, count: int) -> tuple[int, ...]:
        return (count,)

    # One step -------------------------------------------------------------------------------------

    def reset_dropout(self) -> None:
        self._input_mask = self._recurrent_masks = None

    def draw_dropout(self, batch_size: Any) -> None:
        dtype = self.compute_dtype
        self.dropped_inputs(ops.ones((batch_size, self.kernel.shape[0]), dtype), True)
        self._recurrent_products(ops.ones((batch_size, self.units), dtype), True)

    def dropped_inputs(self, inputs: Any, training: bool) -> Any:
        """The inputs of a step, behind the mask that all steps share."""
        if not training or not self.dropout:
            return inputs
        if self._input_mask is None:
            self._input_mask = self._mask(inputs, self.dropout)
        return ops.multiply(inputs, self._input_mask)

    def _mask(self, like: Any, rate: float) -> Tensor:
        return random.dropout(ops.ones_like(like), rate, seed=self.seed_generator)

    def _recurrent_products(self, h: Any, training: bool) -> list[Any]:
        """What each gate multiplies by its recurrent weights: h, behind a mask of its own."""
        if not training or not self.recurrent_dropout:
            return [h] * len(self.gates)
        if self._recurrent_masks is None:
            self._recurrent_masks = [self._mask(h, self.recurrent_dropout) for _ in self.gates]
        return [ops.multiply(h, mask) for mask in self._recurrent_masks]

    def _recurrent(self, hs: Sequence[Any], gates: slice) -> Tensor:
        """The products of some gates with their weights, side by side."""
        first, last, _ = gates.indices(len(self.gates))
        weights = self.recurrent_kernel.value
        if (first, last) != (0, len(self.gates)):
            weights = weights[:, first * self.units : last * self.units]
        if all(h is hs[0] for h in hs):
            return ops.matmul(hs[0], weights)
        parts = ops.split(weights, last - first, axis=1)
        return ops.concatenate(
            [ops.matmul(h, part) for h, part in zip(hs[gates], parts, strict=True)], axis=-1
        )

    # All steps at once ----------------------------------------------------------------------------

    def can_run_whole(self, training: bool) -> bool:
        """Whether ONNX's operator does what the cell does."""
        dropping = training and self.recurrent_dropout > 0
        return not dropping and all(f in _FUNCTIONS for f in self.functions)

    def run_whole(
        self, x: Tensor, initial: Sequence[Tensor] | None, reverse: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Apply ONNX's operator.

        Args:
            x: (time, batch, features).
            initial: states (batch, units), zeros by default.

        Returns:
            The outputs (time, batch, units) and the last states.
        """
        functions = [_FUNCTIONS[f] for f in self.functions]
        numbers = [f for f in functions if f[0] in _TAKES_NUMBERS]
        states = [B.op("Unsqueeze", x, [0]) for x in initial or ()]
        y, *last = B.op_multi(
            self.operator,
            x,
            self._ordered(B.op("Transpose", self.kernel.value, perm=[1, 0])),
            self._ordered(B.op("Transpose", self.recurrent_kernel.value, perm=[1, 0])),
            self._biases(),
            None,
            *states,
            outputs=1 + len(self.state_size),
            hidden_size=self.units,
            direction="reverse" if reverse else "forward",
            activations=[f[0] for f in functions],
            activation_alpha=[f[1] for f in numbers] or None,
            activation_beta=[f[2] for f in numbers] or None,
            **self._attributes(),
        )
        return B.op("Squeeze", y, [1]), [B.op("Squeeze", state, [0]) for state in last]

    def _attributes(self) -> dict[str, Any]:
        return {}

    def _ordered(self, weight: Tensor) -> Tensor:
        """Gates in ONNX's order along axis 0, behind an axis for the direction."""
        if self.gates != tuple(range(len(self.gates))):
            count = len(self.gates)
            parts = B.op_multi("Split", weight, outputs=count, axis=0, num_outputs=count)
            weight = B.op("Concat", *(parts[gate] for gate in self.gates), axis=0)
        return B.op("Unsqueeze", weight, [0])

    def _biases(self) -> Tensor | None:
        """The input's and the recurrent bias, (1, 2 * gates * units)."""
        if self.bias is None:
            return None
        own = self._ordered(self.bias.value)
        return B.op("Concat", own, B.full_like(own, 0.0), axis=1)
