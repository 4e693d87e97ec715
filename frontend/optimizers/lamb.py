"""LAMB (Y. You et al., "Large Batch Optimization for Deep Learning", 2019)."""

from __future__ import annotations

from typing import Unpack

from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B
from onnxtape.optimizers.averages import FirstAndSecondMoments, bias_correction
from onnxtape.optimizers.clipping import squared_norm
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor


class Lamb(FirstAndSecondMoments):
    """Adam's steps, scaled for each variable to the length of the variable.

    With Adam's averages m and v, t counted from 1, and Euclidean norms |.|:
    s = m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon),
    w -= learning_rate * |w| / |s| * s, where both norms are positive, else learning_rate * s.

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

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        t = self.step_count()
        root = B.op("Sqrt", bias_correction(self.beta_2, t))
        # The root of the correction is taken out of the denominator, which saves a pass.
        scale = B.op("Div", root, bias_correction(self.beta_1, t))
        epsilon = B.op("Mul", root, self.epsilon)
        for gradient, variable in pairs:
            m, v, _ = self.advance(gradient, variable)
            w = variable.value
            step = B.op(
                "Div",
                B.op("Mul", m, B.cast(scale, variable.dtype)),
                B.op("Add", B.op("Sqrt", v), B.cast(epsilon, variable.dtype)),
            )
            rate = B.op("Mul", B.cast(learning_rate, FLOAT32), _ratio(w, step))
            variable.assign(B.op("Sub", w, B.op("Mul", step, B.cast(rate, variable.dtype))))


def _ratio(w: Tensor, step: Tensor) -> Tensor:
    """|w| / |step|, or 1 where one of them is 0: a scalar."""
    length, size = (B.cast(B.op("Sqrt", squared_norm(x)), FLOAT32) for x in (w, step))
    positive = B.op("And", B.op("Greater", length, 0.0), B.op("Greater", size, 0.0))
    return B.op("Where", positive, B.op("Div", length, size), 1.0)
