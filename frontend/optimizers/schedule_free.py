"""AdamW without a schedule (A. Defazio et al., "The Road Less Scheduled", 2024)."""

from __future__ import annotations

import math
from typing import Any, Unpack

from onnxtape.engine import B
from onnxtape.optimizers.averages import FirstAndSecondMoments, bias_correction
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class ScheduleFreeAdamW(FirstAndSecondMoments):
    """Adam's steps on one sequence of points z, gradients at others, w, between z and its mean x.

    With t counted from 1 and v = beta_2 * v + (1 - beta_2) * g^2:
    z -= learning_rate * min(t / warmup_steps, 1) * g / (sqrt(v / (1 - beta_2^t)) + epsilon),
    x = (1 - 1 / t) * x + z / t, w = (1 - beta_1) * z + beta_1 * x. The state is z and v.

    Args:
        beta_1: where w lies between z (0) and x (1); more than 0.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
        **options: Unpack[Options],
    ) -> None:
        if not beta_1 > 0.0:
            raise ValueError(f"ScheduleFreeAdamW's beta_1 lies in (0, 1), not at {beta_1}")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        self.warmup_steps = warmup_steps

    def initial_momentum(self, variable: Variable) -> Any:
        # The variable's value as it is now: an assignment in `build` would be part of every step.
        return lambda shape, dtype: variable.value

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        t = self.step_count()
        if self.warmup_steps > 0:
            share = B.op("Min", B.op("Mul", t, 1.0 / self.warmup_steps), 1.0)
            learning_rate = B.op("Mul", learning_rate, share)
        root = B.op("Sqrt", bias_correction(self.beta_2, t))
        # x is not kept: w = (1 - beta_1) * z + beta_1 * x before the step gives it.
        weight = B.op("Reciprocal", t)
        kept = B.op("Sub", 1.0, weight)
        # The root of the correction is taken out of the denominator, which saves a pass.
        scalars = [
            B.op("Mul", learning_rate, root),
            B.op("Mul", root, self.epsilon),
            kept,
            B.op("Mul", kept, self.beta_1 - 1.0),
            B.op("Add", B.op("Mul", weight, self.beta_1), 1.0 - self.beta_1),
        ]
        for gradient, variable in pairs:
            rate, epsilon, of_w, of_old, of_new = (B.cast(s, variable.dtype) for s in scalars)
            index = self.state_index(variable)
            momentum, velocity = self._momenta[index], self._velocities[index]
            scaled = B.op("Mul", gradient, math.sqrt(1.0 - self.beta_2))
            square = B.op("Mul", scaled, scaled)
            v = B.op("Add", B.op("Mul", velocity.value, self.beta_2), square)
            velocity.assign(v)
            old = momentum.value
            step = B.op("Div", B.op("Mul", gradient, rate), B.op("Add", B.op("Sqrt", v), epsilon))
            new = B.op("Sub", old, step)
            momentum.assign(new)
            point = B.op("Add", B.op("Mul", variable.value, of_w), B.op("Mul", old, of_old))
            variable.assign(B.op("Add", point, B.op("Mul", new, of_new)))
