"""Adadelta (M. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.averages import check_decay
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Adadelta(Optimizer):
    """Steps in the units of the variable: scaled by the average of former steps.

    a = rho * a + (1 - rho) * g^2, d = sqrt((b + epsilon) / (a + epsilon)) * g,
    b = rho * b + (1 - rho) * d^2, w -= learning_rate * d.

    Args:
        rho: decay of the averages.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        check_decay(self, "rho", rho)
        self.rho = rho
        self.epsilon = epsilon
        # The gradient, and so the step, times this are what the averages take the squares of.
        self._root = math.sqrt(1.0 - rho)
        self._gradients: list[Variable] = []
        self._steps: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        for variable in variables:
            of_gradients = self.add_variable_from_reference(variable, "accumulated_grad")
            of_steps = self.add_variable_from_reference(variable, "accumulated_delta_var")
            self._gradients.append(of_gradients)
            self._steps.append(of_steps)

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        super().update(pairs, B.op("Mul", learning_rate, 1.0 / self._root))

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        index = self.state_index(variable)
        of_gradients, of_steps = self._gradients[index], self._steps[index]
        scaled = B.op("Mul", gradient, self._root)
        a = B.op("Add", B.op("Mul", of_gradients.value, self.rho), B.op("Mul", scaled, scaled))
        of_gradients.assign(a)
        b = of_steps.value
        # One root of a quotient instead of the quotient of two roots.
        quotient = B.op("Div", B.op("Add", b, self.epsilon), B.op("Add", a, self.epsilon))
        d = B.op("Mul", B.op("Sqrt", quotient), scaled)
        of_steps.assign(B.op("Add", B.op("Mul", b, self.rho), B.op("Mul", d, d)))
        variable.assign(B.op("Sub", variable.value, B.op("Mul", d, learning_rate)))
