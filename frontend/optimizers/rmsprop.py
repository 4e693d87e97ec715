"""RMSprop (T. Hinton, "Neural Networks for Machine Learning", lecture 6, 2012)."""

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


class RMSprop(Optimizer):
    """Steps divided by the root of the running average of the gradient's square.

    v = rho * v + (1 - rho) * g^2, s = learning_rate * g / sqrt(v + epsilon), w -= s; with
    `momentum`, m = momentum * m + s, w -= m; with `centered`,
    a = rho * a + (1 - rho) * g and v - a^2 in the root, an estimate of the variance.

    Args:
        rho: decay of the averages.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        check_decay(self, "rho", rho)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered
        # The gradient times this is squared, and averaged, in the fewest passes over memory.
        self._root = math.sqrt(1.0 - rho)
        self._velocities: list[Variable] = []
        self._momenta: list[Variable] = []
        self._means: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        if self.momentum > 0:
            self._momenta = self.add_optimizer_variables(variables, "momentum")
        if self.centered:
            self._means = self.add_optimizer_variables(variables, "average_gradient")

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        super().update(pairs, B.op("Mul", learning_rate, 1.0 / self._root))

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        index = self.state_index(variable)
        velocity = self._velocities[index]
        scaled = B.op("Mul", gradient, self._root)
        v = B.op("Add", B.op("Mul", velocity.value, self.rho), B.op("Mul", scaled, scaled))
        velocity.assign(v)
        if self.centered:
            mean = self._means[index]
            share = B.op("Mul", scaled, self._root)
            a = B.op("Add", B.op("Mul", mean.value, self.rho), share)
            mean.assign(a)
            v = B.op("Sub", v, B.op("Mul", a, a))
        root = B.op("Sqrt", B.op("Add", v, self.epsilon))
        step = B.op("Div", B.op("Mul", scaled, learning_rate), root)
        if self.momentum > 0:
            momentum = self._momenta[index]
            step = B.op("Add", B.op("Mul", momentum.value, self.momentum), step)
            momentum.assign(step)
        variable.assign(B.op("Sub", variable.value, step))
