"""EinsumDense: a dense layer over any axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from onnxtape import activations, initializers, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

_EQUATION = re.compile(r"(\.\.\.)?([a-zA-Z]+)(\.\.\.)?,([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]+)(\.\.\.)?")


class EinsumDense(Layer):
    """activation(einsum(equation, inputs, kernel) + bias).

    Args:
        equation: of the inputs, the kernel and the outputs, such as "abc,cd->abd"; "..." in front
            or behind, of inputs and outputs, stands for further axes.
        output_shape: the outputs' sizes without the batch, and without the axes of "..."; None
            where an input's size tells.
        bias_axes: the outputs' letters that the bias has; without them there is none.
        activation, kernel_initializer, ...: see `Dense`.

    Raises:
        ValueError: an equation of another form, or letters that fit nothing.
        ShapeError: (when built) inputs that do not fit the equation.
    """

    def __init__(
        self,
        equation: str,
        output_shape: int | Sequence[int | None],
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        parts = _EQUATION.fullmatch(equation.replace(" ", ""))
        dots = parts and (parts[1] == parts[5], parts[3] == parts[7], not (parts[1] and parts[3]))
        if parts is None or dots != (True, True, True):
            raise ValueError(
                "EinsumDense's equation is of the form 'ab,bc->ac', '...ab,bc->...ac' or "
                f"'ab...,bc->ac...', not {equation!r}"
            )
        self._letters = parts[2], parts[4], parts[6]
        self._dots_first = parts[1] is not None
        self._has_dots = bool(parts[1] or parts[3])
        given, weight, made = self._letters
        for letter in made:
            if letter not in given + weight:
                raise ValueError(f"EinsumDense: the output's '{letter}' is in no operand")
        for letter in weight:
            if letter not in given + made:
                raise ValueError(f"EinsumDense: the kernel's '{letter}' is nowhere else")
        if wrong := [letter for letter in bias_axes or "" if letter not in made]:
            raise ValueError(f"EinsumDense: the bias's '{wrong[0]}' is not among the outputs'")
        self.equation = equation
        self.output_shape_without_batch = (
            (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        )
        self.bias_axes = bias_axes
        self.activation = activations.get(activation)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer, self.bias_regularizer = kernel_regularizer, bias_regularizer
        self.kernel_constraint, self.bias_constraint = kernel_constraint, bias_constraint
        self.kernel: Variable
        self.bias: Variable | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        given, weight, made = self._letters
        further = len(input_shape) - len(given)
        sizes_of_inputs = self._named(input_shape, given, further)
        whole = self._whole_output(input_shape, further)
        sizes_of_outputs = self._named(whole, made, further)
        for letter, size in sizes_of_outputs.items():
            other = sizes_of_inputs.get(letter)
            if size is not None and other is not None and size != other:
                raise refused(
                    f"EinsumDense '{self.name}': '{letter}' is {other} in the inputs "
                    f"{format_shape(input_shape)}, and {size} in output_shape"
                )
        sizes = sizes_of_inputs | {k: v for k, v in sizes_of_outputs.items() if v is not None}
        if unknown := [letter for letter in weight if sizes[letter] is None]:
            raise refused(
                f"EinsumDense '{self.name}' needs inputs whose '{unknown[0]}' is known, not "
                f"{format_shape(input_shape)}"
            )
        self.kernel = self.add_weight(
            [sizes[letter] or 0 for letter in weight],
            self._initializer(weight, made),
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.bias_axes is not None:
            first = min(made.find(letter) for letter in self.bias_axes)
            shape = [sizes[c] if c in self.bias_axes else 1 for c in made[first:]]
            self.bias = self.add_weight(
                [size or 0 for size in shape] + [1] * (0 if self._dots_first else further),
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def _whole_output(self, inputs: Sequence[int | None], further: int) -> list[int | None]:
        """The outputs' shape with the batch and the axes of "..."."""
        known = list(self.output_shape_without_batch)
        if self._dots_first:
            whole = [*inputs[: max(further, 1)], *known]
        else:
            whole = [inputs[0], *known, *inputs[len(inputs) - further :]]
        if further < 0 or bool(further) > self._has_dots or len(whole) != self._rank(further):
            raise refused(
                f"EinsumDense '{self.name}': inputs {format_shape(tuple(inputs))} and output_shape "
                f"{self.output_shape_without_batch} do not fit '{self.equation}'"
            )
        return whole

    def _rank(self, further: int) -> int:
        return len(self._letters[2]) + further

    def _named(
        self, shape: Sequence[int | None], letters: str, further: int
    ) -> dict[str, int | None]:
        start = further if self._dots_first else 0
        return dict(zip(letters, shape[start:], strict=False))

    def _initializer(self, weight: str, made: str) -> Any:
        """Fans are counted by the equation: axes that the outputs have, and those summed over."""
        chosen = self.kernel_initializer
        if not isinstance(chosen, initializers.VarianceScaling) or chosen.input_axes is not None:
            return chosen
        changed = type(chosen).from_config(chosen.get_config())
        changed.input_axes = [i for i, letter in enumerate(weight) if letter not in made]
        changed.output_axes = [i for i, letter in enumerate(weight) if letter in made]
        return changed

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        y = ops.einsum(self.equation, x, self.kernel)
        if self.bias is not None:
            y = ops.add(y, self.bias)
        result: Tensor = self.activation(y)
        return result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_shape": self.output_shape_without_batch}
