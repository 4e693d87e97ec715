"""What the optimizers after Adam share: running averages of the gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

from onnxtape.compiler.distinct_rows import add_rows
from onnxtape.engine import B
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.rows import rows_of
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class FirstAndSecondMoments(Optimizer):
    """Keeps m = beta_1 * m + (1 - beta_1) * g and v = beta_2 * v + (1 - beta_2) * g^2."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        for name, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            check_decay(self, name, beta)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._square_scale = (1.0 - beta_2) / (1.0 - beta_1) ** 2
        self._momenta: list[Variable] = []
        self._velocities: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        for variable in variables:
            start = self.initial_momentum(variable)
            self._momenta.append(self.add_variable_from_reference(variable, "momentum", start))
            self._velocities.append(self.add_variable_from_reference(variable, "velocity"))

    def initial_momentum(self, variable: Variable) -> Any:
        """An initializer for a variable's m."""
        return "zeros"

    def advance(self, gradient: Tensor, variable: Variable) -> tuple[Tensor, Tensor, Tensor]:
        """Take the gradient into the averages; returns m, v and (1 - beta_1) * g."""
        index = self.state_index(variable)
        momentum, velocity = self._momenta[index], self._velocities[index]
        # Written for the fewest passes over memory: the gradient scaled by 1 - beta_1 costs nothing
        # where a matrix product takes the factor, and serves both averages.
        scaled = B.op("Mul", gradient, 1.0 - self.beta_1)
        share = (1.0 - self.beta_1) / self.beta_1 if self.beta_1 else 0.0
        rows = rows_of(gradient, share) if self.beta_1 and self.beta_2 else None
        if rows is None:
            square = B.op("Mul", B.op("Mul", scaled, scaled), self._square_scale)
            m = B.op("Add", B.op("Mul", momentum.value, self.beta_1), scaled)
            v = B.op("Add", B.op("Mul", velocity.value, self.beta_2), square)
        else:
            # beta * (m + (1 - beta) / beta * g): where g is zero nothing is added, and the whole
            # gradient is never there.
            square_share = (1.0 - self.beta_2) / (self.beta_2 * share * share)
            m = add_rows(B, momentum.value, rows)
            v = add_rows(B, velocity.value, rows, square=math.sqrt(square_share))
            m, v = B.op("Mul", m, self.beta_1), B.op("Mul", v, self.beta_2)
        momentum.assign(m)
        velocity.assign(v)
        return m, v, scaled


def bias_correction(beta: float, t: Tensor) -> Tensor:
    """1 - beta^t, the sum of the weights in an average after t steps: a scalar."""
    return B.op("Sub", 1.0, B.op("Pow", B.scalar(beta, t.dtype), t))


def check_decay(optimizer: Optimizer, name: str, value: float) -> None:
    """Refuse a decay rate at which an average would never move."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{type(optimizer).__name__}'s {name} lies in [0, 1), not at {value}")
