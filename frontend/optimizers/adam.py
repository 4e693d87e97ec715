"""Adam (D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2014)."""

from __future__ import annotations

from collections.abc import Sequence

from onnxtape.engine import B
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Adam(Optimizer):
    """Steps scaled by running averages of the gradient and its square.

    As in Keras (the paper's remark before section 2.1): with t counted from 1,
    alpha = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t),
    m = beta_1 * m + (1 - beta_1) * g, v = beta_2 * v + (1 - beta_2) * g^2,
    w -= alpha * m / (sqrt(v) + epsilon).

    Args:
        beta_1, beta_2: decay of the averages.
        epsilon: keeps the division finite; it is the paper's epsilon hat.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, name)
        for beta in (beta_1, beta_2):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Adam's betas lie in [0, 1), not at {beta}")
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._square_scale = (1.0 - beta_2) / (1.0 - beta_1) ** 2
        self._momenta: list[Variable] = []
        self._velocities: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._momenta = [self.add_variable_from_reference(v, "momentum") for v in variables]
        self._velocities = [self.add_variable_from_reference(v, "velocity") for v in variables]

    def update(self, pairs: Sequence[tuple[Tensor, Variable]]) -> None:
        rate = self._learning_rate.value
        t = B.cast(B.op("Add", self.iterations.value, 1), rate.dtype)
        decay_1 = B.op("Sub", 1.0, B.op("Pow", B.scalar(self.beta_1, rate.dtype), t))
        decay_2 = B.op("Sub", 1.0, B.op("Pow", B.scalar(self.beta_2, rate.dtype), t))
        alpha = B.op("Div", B.op("Mul", rate, B.op("Sqrt", decay_2)), decay_1)
        for gradient, variable in pairs:
            self.update_step(gradient, variable, B.cast(alpha, variable.dtype))

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        index = self.state_index(variable)
        momentum, velocity = self._momenta[index], self._velocities[index]
        # Written for the fewest passes over memory: the gradient scaled by 1 - beta_1 costs nothing
        # where a matrix product takes the factor, and serves both averages.
        scaled = B.op("Mul", gradient, 1.0 - self.beta_1)
        square = B.op("Mul", B.op("Mul", scaled, self._square_scale), scaled)
        m = B.op("Add", B.op("Mul", momentum.value, self.beta_1), scaled)
        v = B.op("Add", B.op("Mul", velocity.value, self.beta_2), square)
        momentum.assign(m)
        velocity.assign(v)
        step = B.op(
            "Div", B.op("Mul", m, learning_rate), B.op("Add", B.op("Sqrt", v), self.epsilon)
        )
        variable.assign(B.op("Sub", variable.value, step))
