"""What the cells of recurrent layers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from onnxtape import activations, initializers, ops, random
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


class Remade:
    """What can be made again from the arguments it was made with."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made.__dict__["_made_with"] = (args, kwargs)
        return made

    def remade(self, **changes: Any) -> Self:
        """One with the same arguments but for `changes`, and weights of its own."""
        args, kwargs = self.__dict__["_made_with"]

        def again(x: Any) -> Any:
            if isinstance(x, (list, tuple)):
                return type(x)(map(again, x))
            return x.remade() if isinstance(x, Remade) else x

        kept = {key: again(x) for key, x in kwargs.items() if key != "name"}
        return type(self)(*map(again, args), **{**kept, **changes})


class RecurrentCell(Remade, Layer):
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


class GatedCell(RecurrentCell):
    """SimpleRNN's, GRU's and LSTM's cells: what they have in common."""

    #: The number of gates and their order in ONNX's operator, which is `operator`.
    gates: tuple[int, ...]
    operator: str

    def __init__(
        self,
        units: int,
        functions: Sequence[Any],
        use_bias: bool,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        recurrent_regularizer: Any,
        bias_regularizer: Any,
        dropout: float,
        recurrent_dropout: float,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kind = type(self).__name__
        if units <= 0:
            raise ValueError(f"{kind} needs a positive number of units, not {units}")
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{kind}: {name} lies in [0, 1), not at {rate}")
        self.units = int(units)
        self.functions = [activations.get(f) for f in functions]
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = kernel_regularizer
        self.recurrent_regularizer = recurrent_regularizer
        self.bias_regularizer = bias_regularizer
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.output_size = self.units
        self.state_size = [self.units]
        self.seed_generator = random.SeedGenerator(seed) if dropout or recurrent_dropout else None
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
        self.kernel = self.add_weight(
            (input_shape[-1], count),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
        )
        self.recurrent_kernel = self.add_weight(
            (self.units, count),
            self.recurrent_initializer,
            name="recurrent_kernel",
            regularizer=self.recurrent_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                self._bias_shape(count),
                self._initial_bias,
                name="bias",
                regularizer=self.bias_regularizer,
            )
        self.built = True

    def _bias_shape(self, count: int) -> tuple[int, ...]:
        return (count,)

    def _initial_bias(self, shape: Sequence[int], dtype: Any = "float32") -> Any:
        return self.bias_initializer(shape, dtype=dtype)

    # One step -------------------------------------------------------------------------------------

    def reset_dropout(self) -> None:
        self._input_mask = self._recurrent_masks = None

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
