"""Gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

from onnxtape.engine import B
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted.

    w += v with v = momentum * v - learning_rate * g; with `nesterov`,
    w += momentum * v - learning_rate * g with the new v (Keras's formulas).

    Args:
        momentum: between 0 and 1; 0 keeps no state.
        nesterov: Nesterov's momentum.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, name)
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum lies between 0 and 1, not at {momentum}")
        self.momentum = momentum
        self.nesterov = nesterov
        self._momenta: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        if self.momentum:
            self._momenta = [self.add_variable_from_reference(v, "momentum") for v in variables]

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
