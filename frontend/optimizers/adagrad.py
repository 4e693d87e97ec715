"""Adagrad (J. Duchi, E. Hazan and Y. Singer, "Adaptive Subgradient Methods", 2011)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squares of the gradient.

    a += g^2, w -= learning_rate * g / sqrt(a + epsilon).

    Args:
        initial_accumulator_value: where a starts.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon
        self._accumulators_of_squares: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._accumulators_of_squares = self.add_optimizer_variables(
            variables, "accumulator", float(self.initial_accumulator_value)
        )

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        accumulator = self._accumulators_of_squares[self.state_index(variable)]
        a = B.op("Add", accumulator.value, B.op("Mul", gradient, gradient))
        accumulator.assign(a)
        root = B.op("Sqrt", B.op("Add", a, self.epsilon))
        step = B.op("Div", B.op("Mul", gradient, learning_rate), root)
        variable.assign(B.op("Sub", variable.value, step))
