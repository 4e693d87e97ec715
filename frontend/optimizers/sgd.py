"""Gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options, check_share
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted.

    w += v with v = momentum * v - learning_rate * g; with `nesterov`,
    w += momentum * v - learning_rate * g with the new v (Keras's formulas).

    Args:
        momentum: between 0 and 1; 0 keeps no state.
        nesterov: Nesterov's momentum.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        check_share("momentum", momentum)
        self.momentum = momentum
        self.nesterov = nesterov
        self._momenta: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        if self.momentum:
            self._momenta = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        step = B.op("Mul", gradient, learning_rate)
        if not self.momentum:
            variable.assign(B.op("Sub", variable.value, step))
            return
        momentum = self._momenta[self.state_index(variable)]
        velocity = B.op("Sub", B.op("Mul", momentum.value, self.momentum), step)
        momentum.assign(velocity)
        if self.nesterov:
            velocity = B.op("Sub", B.op("Mul", velocity, self.momentum), step)
        variable.assign(B.op("Add", variable.value, velocity))
