"""Nadam (T. Dozat, "Incorporating Nesterov Momentum into Adam", 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.averages import FirstAndSecondMoments, bias_correction
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Nadam(FirstAndSecondMoments):
    """Adam with Nesterov's momentum, which is warmed up.

    With t counted from 1, u_t = beta_1 * (1 - 0.96^t / 2), U_t = u_1 * ... * u_t, and Adam's
    averages m and v: n = u_{t+1} / (1 - U_{t+1}) * m + (1 - u_t) / (1 - U_t) * g,
    w -= learning_rate * n / (sqrt(v / (1 - beta_2^t)) + epsilon).

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
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        self._product: Variable

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        dtype = variables[0].dtype if variables else None
        self._product = self.add_variable((), 1.0, dtype, "u_product")

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        now, after = self._warmed(self.step_count()), self._warmed(self.step_count(2))
        product = B.op("Mul", B.cast(self._product.value, now.dtype), now)
        self._product.assign(product)
        root = B.op("Sqrt", bias_correction(self.beta_2, self.step_count()))
        # The root of the correction is taken out of the denominator, which saves a pass.
        rate = B.op("Mul", learning_rate, root)
        of_m = B.op("Div", after, B.op("Sub", 1.0, B.op("Mul", product, after)))
        of_g = B.op("Div", B.op("Sub", 1.0, now), B.op("Sub", 1.0, product))
        # `advance` gives the gradient times 1 - beta_1.
        of_g = B.op("Mul", of_g, 1.0 / (1.0 - self.beta_1))
        scalars = [
            B.op("Mul", rate, of_m), B.op("Mul", rate, of_g), B.op("Mul", root, self.epsilon)
        ]  # fmt: skip
        for gradient, variable in pairs:
            by_m, by_g, epsilon = [B.cast(s, variable.dtype) for s in scalars]
            m, v, scaled = self.advance(gradient, variable)
            ahead = B.op("Add", B.op("Mul", m, by_m), B.op("Mul", scaled, by_g))
            step = B.op("Div", ahead, B.op("Add", B.op("Sqrt", v), epsilon))
            variable.assign(B.op("Sub", variable.value, step))

    def _warmed(self, t: Tensor) -> Tensor:
        """beta_1 * (1 - 0.96^t / 2)."""
        decayed = B.op("Mul", B.op("Pow", B.scalar(0.96, t.dtype), t), 0.5)
        return B.op("Mul", B.op("Sub", 1.0, decayed), self.beta_1)
