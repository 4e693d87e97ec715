"""Adafactor (N. Shazeer and M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory
Cost", 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B
from onnxtape.optimizers.clipping import squared_norm
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import Options
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Adafactor(Optimizer):
    """Steps divided by an estimate of the gradient's root mean square by rows and columns.

    With t counted from 1, b = 1 - t^beta_2_decay, and averages a = b * a + (1 - b) * new: for
    matrices (the last two axes) r and c of g^2 + epsilon_1 by rows and by columns, and
    v = r / mean(r) * c; for vectors v of g^2 + epsilon_1 itself. Then s = g / sqrt(v),
    w -= alpha * s / max(1, rms(s) / clip_threshold), with
    alpha = max(epsilon_2, rms(w)) * min(learning_rate, 1 / sqrt(t)).

    Args:
        epsilon_1: keeps the division finite.
        epsilon_2: the least scale of a variable.
        clip_threshold: the largest root mean square of a step, before alpha.
        relative_step: as in Keras, kept for its name: the learning rate is bounded by 1 / sqrt(t)
            either way.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_2_decay = beta_2_decay
        self.epsilon_1 = epsilon_1
        self.epsilon_2 = epsilon_2
        self.clip_threshold = clip_threshold
        self.relative_step = relative_step
        self._rows: dict[int, Variable] = {}
        self._columns: dict[int, Variable] = {}
        self._velocities: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        for index, variable in enumerate(variables):
            shape, dtype, path = variable.shape, variable.dtype, variable.path.replace("/", "_")
            if len(shape) >= 2:
                columns = (*shape[:-2], shape[-1])
                self._rows[index] = self.add_variable(shape[:-1], 0.0, dtype, f"{path}_row")
                self._columns[index] = self.add_variable(columns, 0.0, dtype, f"{path}_column")
            self._velocities.append(self.add_variable_from_reference(variable, "velocity"))

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        t = self.step_count()
        rate = B.op("Min", learning_rate, B.op("Reciprocal", B.op("Sqrt", t)))
        # 1 - b
        share = B.op("Pow", t, float(self.beta_2_decay))
        kept = B.op("Sub", 1.0, share)
        for gradient, variable in pairs:
            scalars = [B.cast(s, variable.dtype) for s in (kept, share)]
            step = self._step(gradient, variable, *scalars)
            w = variable.value
            scale = B.op("Max", _root_mean_square(w), float(self.epsilon_2))
            excess = B.op("Mul", _root_mean_square(step), 1.0 / self.clip_threshold)
            alpha = B.op("Div", B.op("Mul", rate, scale), B.op("Max", excess, 1.0))
            variable.assign(B.op("Sub", w, B.op("Mul", step, B.cast(alpha, variable.dtype))))

    def _step(self, gradient: Tensor, variable: Variable, kept: Tensor, share: Tensor) -> Tensor:
        """g / sqrt(v), with the new averages."""
        index = self.state_index(variable)
        velocity = self._velocities[index]
        square = B.op("Add", B.op("Mul", gradient, gradient), float(self.epsilon_1))

        def average(state: Variable, new: Tensor) -> Tensor:
            mean = B.op("Add", B.op("Mul", state.value, kept), B.op("Mul", new, share))
            state.assign(mean)
            return mean

        if index not in self._rows:
            return B.op("Div", gradient, B.op("Sqrt", average(velocity, square)))
        r = average(self._rows[index], B.op("ReduceMean", square, [-1], keepdims=0))
        c = average(self._columns[index], B.op("ReduceMean", square, [-2], keepdims=0))
        r = B.op("Unsqueeze", B.op("Div", r, B.op("ReduceMean", r, [-1], keepdims=1)), [-1])
        c = B.op("Unsqueeze", c, [-2])
        velocity.assign(B.op("Mul", r, c))
        # The roots of rows and columns, not of the matrix.
        return B.op("Div", B.op("Div", gradient, B.op("Sqrt", r)), B.op("Sqrt", c))


def _root_mean_square(x: Tensor) -> Tensor:
    """A float32 scalar."""
    count = float(np.prod(x.shape, dtype=np.int64))
    return B.cast(B.op("Sqrt", B.op("Mul", squared_norm(x), 1.0 / count)), FLOAT32)
