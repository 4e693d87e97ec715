"""FTRL (H. B. McMahan et al., "Ad Click Prediction: a View from the Trenches", 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Ftrl(Optimizer):
    """Follow the regularized leader: sparse weights for shallow models of many features.

    With p = -learning_rate_power and A the new a: A = a + g^2,
    z += g + 2 * l2_shrinkage * w - (A^p - a^p) / learning_rate * w,
    q = A^p / learning_rate + 2 * l2 + beta / learning_rate,
    w = (clip(z, -l1, l1) - z) / q.

    Args:
        learning_rate_power: zero or less.
        initial_accumulator_value: where a starts.
        l1_regularization_strength, l2_regularization_strength: l1 and l2 above.
        l2_shrinkage_regularization_strength: l2_shrinkage above, which affects the loss only.
        beta: see the paper.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        if learning_rate_power > 0.0:
            raise ValueError(f"learning_rate_power is zero or less, not {learning_rate_power}")
        for name, value in (
            ("initial_accumulator_value", initial_accumulator_value),
            ("l1_regularization_strength", l1_regularization_strength),
            ("l2_regularization_strength", l2_regularization_strength),
            ("l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength),
        ):
            if value < 0.0:
                raise ValueError(f"{name} is zero or more, not {value}")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta
        self._squares: list[Variable] = []
        self._linears: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        start = float(self.initial_accumulator_value)
        for variable in variables:
            self._squares.append(self.add_variable_from_reference(variable, "accumulator", start))
            self._linears.append(self.add_variable_from_reference(variable, "linear"))

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        inverse, falling = B.op("Reciprocal", learning_rate), B.op("Neg", learning_rate)
        # The denominator times the learning rate, as far as it is the same for all elements.
        constant = B.op(
            "Add", B.op("Mul", learning_rate, 2.0 * self.l2_regularization_strength), self.beta
        )
        for gradient, variable in pairs:
            scalars = [B.cast(s, variable.dtype) for s in (falling, inverse, constant)]
            self._update_one(gradient, variable, *scalars)

    def _update_one(
        self,
        gradient: Tensor,
        variable: Variable,
        falling: Tensor,
        inverse: Tensor,
        constant: Tensor,
    ) -> None:
        index = self.state_index(variable)
        squares, linear = self._squares[index], self._linears[index]
        w, old = variable.value, squares.value
        new = B.op("Add", old, B.op("Mul", gradient, gradient))
        squares.assign(new)
        powered = self._power(new)
        grown = B.op("Mul", B.op("Sub", powered, self._power(old)), inverse)
        if self.l2_shrinkage_regularization_strength:
            grown = B.op("Sub", grown, 2.0 * self.l2_shrinkage_regularization_strength)
        z = B.op("Add", linear.value, B.op("Sub", gradient, B.op("Mul", grown, w)))
        linear.assign(z)
        strength = self.l1_regularization_strength
        excess = B.op("Sub", z, B.op("Clip", z, -strength, strength)) if strength else z
        numerator = B.op("Mul", excess, falling)
        variable.assign(B.op("Div", numerator, B.op("Add", powered, constant)))

    def _power(self, a: Tensor) -> Tensor:
        """a ** -learning_rate_power."""
        if self.learning_rate_power == -0.5:
            return B.op("Sqrt", a)
        return B.op("Pow", a, float(-self.learning_rate_power))
