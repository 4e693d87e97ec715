"""The base of optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from onnxtape import context
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import GradientError, VariableError
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Optimizer:
    """Updates variables by their gradients.

    Subclasses create their state in `build` with `add_variable_from_reference` and write
    `update_step(gradient, variable, learning_rate)`.

    Args:
        learning_rate: a number. It is a variable: assigning `optimizer.learning_rate` later never
            compiles anything again.
    """

    def __init__(self, learning_rate: float, name: str | None = None) -> None:
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.built = False
        self._variables: list[Variable] = []
        self.iterations = self._add(Variable(0, False, "iterations", "int64", role="optimizer"))
        self._learning_rate = self._add(
            Variable(_number(learning_rate), False, "learning_rate", "float32", role="optimizer")
        )
        self._trainable: list[Variable] = []
        self._index: dict[int, int] = {}

    def _add(self, variable: Variable) -> Variable:
        variable.path = f"{self.name}/{variable.path}"
        self._variables.append(variable)
        return variable

    @property
    def variables(self) -> list[Variable]:
        """Iterations, learning rate, and the state of each trained variable."""
        return list(self._variables)

    @property
    def learning_rate(self) -> Variable:
        """The learning rate, a float32 scalar variable."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._learning_rate.assign(_number(value))

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the state for these variables, which are the ones that can be trained."""
        self._trainable = list(variables)
        self._index = {id(v): i for i, v in enumerate(self._trainable)}
        self.built = True

    def add_variable_from_reference(
        self, reference: Variable, name: str, initializer: float = 0.0
    ) -> Variable:
        """A state variable of the reference's shape and dtype, filled with one number."""
        import numpy as np

        value = np.full(reference.shape, initializer, reference.dtype)
        path = f"{reference.path}/{name}"
        return self._add(Variable(value, trainable=False, name=path, role="optimizer"))

    def state_index(self, variable: Variable) -> int:
        """The variable's place among those the optimizer was built with.

        Raises:
            VariableError: it is not one of them.
        """
        index = self._index.get(id(variable))
        if index is None:
            known = ", ".join(v.path for v in self._trainable)
            raise VariableError(
                f"optimizer '{self.name}' does not know variable '{variable.path}': it was built "
                f"with {known}. Make an optimizer for the new variable, or call "
                "optimizer.build(all_variables) before the first step"
            )
        return index

    def apply(
        self, grads: Iterable[Any], trainable_variables: Iterable[Variable] | None = None
    ) -> None:
        """Update the variables by one step.

        Args:
            grads: one gradient per variable; variables whose gradient is None are left alone, with
                a warning.
            trainable_variables: by default those the optimizer was built with.

        Raises:
            GradientError: every gradient is None.
            VariableError: a variable that the optimizer was not built with.
            ValueError: not one gradient per variable.
            ShapeError: a gradient of another shape than its variable's.
        """
        grads = list(grads)
        if trainable_variables is None:
            if not self.built:
                raise ValueError("optimizer.apply needs the variables on its first call")
            variables = self._trainable
        else:
            variables = list(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(f"{len(grads)} gradients were given for {len(variables)} variables")
        if not self.built:
            with context.in_layer(self.name):
                self.build(variables)
        for variable in variables:
            self.state_index(variable)
        missing = [v.path for g, v in zip(grads, variables, strict=True) if g is None]
        if missing and len(missing) == len(variables):
            raise GradientError(
                f"no variable has a gradient ({', '.join(missing)}): the loss does not depend on "
                "them, or was computed outside the GradientTape"
            )
        if missing:
            warnings.warn(
                f"no gradient reaches {', '.join(missing)}; they are left as they are",
                UserWarning,
                stacklevel=2,
            )
        pairs = [
            (convert_to_tensor(g, v.dtype), v)
            for g, v in zip(grads, variables, strict=True)
            if g is not None
        ]
        for gradient, variable in pairs:
            if not may_equal(B.shape(gradient), variable.shape):
                raise refused(
                    f"the gradient of variable '{variable.path}' has shape "
                    f"{format_shape(B.shape(gradient))}, not {format_shape(variable.shape)}"
                )
        with context.in_phase("update"), context.in_layer(self.name):
            self.update(pairs)
            self.iterations.assign_add(1)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> None:
        """`apply` for pairs (gradient, variable)."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])

    def update(self, pairs: Sequence[tuple[Tensor, Variable]]) -> None:
        """Update each variable by its gradient."""
        rate = self._learning_rate.value
        for gradient, variable in pairs:
            self.update_step(gradient, variable, B.cast(rate, variable.dtype))

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Update one variable; subclasses write this."""
        raise NotImplementedError(f"{type(self).__name__} has no update_step method")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or callable(value):
        raise TypeError(f"learning_rate is a number, not {value!r}")
    return value
