"""Adamax (section 7.1 of D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.averages import bias_correction, check_decay
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Adamax(Optimizer):
    """Adam with the largest gradient, decayed, for the root of the average of squares.

    m = beta_1 * m + (1 - beta_1) * g, u = max(beta_2 * u, |g|),
    w -= learning_rate / (1 - beta_1^t) * m / (u + epsilon), with t counted from 1.

    Args:
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        check_decay(self, "beta_1", beta_1)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._momenta: list[Variable] = []
        self._norms: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        for variable in variables:
            self._momenta.append(self.add_variable_from_reference(variable, "momentum"))
            self._norms.append(self.add_variable_from_reference(variable, "norm"))

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        corrected = B.op("Div", learning_rate, bias_correction(self.beta_1, self.step_count()))
        super().update(pairs, corrected)

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        index = self.state_index(variable)
        momentum, norm = self._momenta[index], self._norms[index]
        scaled = B.op("Mul", gradient, 1.0 - self.beta_1)
        m = B.op("Add", B.op("Mul", momentum.value, self.beta_1), scaled)
        u = B.op("Max", B.op("Mul", norm.value, self.beta_2), B.op("Abs", gradient))
        momentum.assign(m)
        norm.assign(u)
        step = B.op("Div", B.op("Mul", m, learning_rate), B.op("Add", u, self.epsilon))
        variable.assign(B.op("Sub", variable.value, step))
