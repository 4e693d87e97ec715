"""What an optimizer keeps: its variables, and which variables of the model they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import initializers
from onnxtape.dtypes import FLOAT32
from onnxtape.errors import VariableError
from onnxtape.naming import auto_name, distinct, to_snake_case
from onnxtape.variable import Variable


class OptimizerState:
    """The variables of an optimizer.

    Attributes:
        name: by default the class's name in snake case, counted.
        built: whether it is known what is trained.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.built = False
        self._variables: list[Variable] = []
        self._paths: set[str] = set()
        self._trainable: list[Variable] = []
        # Variables hash by identity, so that a copy of the optimizer knows its own.
        self._index: dict[Variable, int] = {}

    def _add(self, variable: Variable) -> Variable:
        variable.path = f"{self.name}/{variable.path}"
        self._paths.add(variable.path)
        self._variables.append(variable)
        return variable

    @property
    def variables(self) -> list[Variable]:
        """The count of calls, the learning rate (unless a schedule makes it), and the state of
        each trained variable, in Keras's order."""
        return list(self._variables)

    def build(self, variables: Sequence[Variable]) -> None:
        """Note that these variables can be trained.

        Raises:
            ValueError: that has been done already.
        """
        if self.built:
            raise ValueError(f"optimizer '{self.name}' is built already; see optimizer.built")
        self._trainable = list(variables)
        self._index = {v: i for i, v in enumerate(self._trainable)}
        self.built = True

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: npt.DTypeLike | None = None,
        name: str | None = None,
    ) -> Variable:
        """A state variable.

        Args:
            initializer: a number, or what `ot.initializers.get` takes.
            dtype: by default float32.
        """
        made = np.dtype(dtype or FLOAT32)
        if isinstance(initializer, (int, float)):
            initializer = initializers.Constant(initializer)
        make = initializers.get(initializer)
        state = Variable(
            lambda: make(tuple(shape), dtype=made), False, name, made, role="optimizer"
        )
        return self._add(state)

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A state variable of another's shape and dtype; see `add_variable`."""

        def named(path: str) -> str:
            return f"{path.replace('/', '_')}_{name or 'variable'}"

        path = distinct(
            reference_variable.path, lambda path: f"{self.name}/{named(path)}" in self._paths
        )
        return self.add_variable(
            reference_variable.shape, initializer, reference_variable.dtype, named(path)
        )

    def add_optimizer_variables(
        self, trainable_variables: Sequence[Variable], name: str, initializer: Any = "zeros"
    ) -> list[Variable]:
        """A state variable for each of several variables; see `add_variable`."""
        return [self.add_variable_from_reference(v, name, initializer) for v in trainable_variables]

    def state_index(self, variable: Variable) -> int:
        """The variable's place among those the optimizer was built with.

        Raises:
            VariableError: it is not one of them.
        """
        index = self._index.get(variable)
        if index is None:
            known = ", ".join(v.path for v in self._trainable)
            raise VariableError(
                f"optimizer '{self.name}' does not know variable '{variable.path}': it was built "
                f"with {known}. Make an optimizer for the new variable, or call "
                "optimizer.build(all_variables) before the first step; a model and its optimizer "
                "are copied together, copy.deepcopy((model, optimizer))"
            )
        return index

    #: Keras's name for it, which optimizers written for Keras call.
    _get_variable_index = state_index

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Assign the whole state, in the order of `variables`.

        Raises:
            ValueError: the optimizer is not built yet, or another number of arrays.
            ShapeError: an array of another shape than its variable's.
        """
        if not self.built:
            raise ValueError(
                f"optimizer '{self.name}' is not built yet: call "
                "optimizer.build(model.trainable_variables) before set_weights"
            )
        if len(weights) != len(self.variables):
            raise ValueError(
                f"optimizer '{self.name}' has {len(self.variables)} variables, but {len(weights)} "
                "arrays were given"
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)
