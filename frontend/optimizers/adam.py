"""Adam (D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2014) and AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.averages import FirstAndSecondMoments, bias_correction
from onnxtape.optimizers.options import Options, OtherOptions
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Adam(FirstAndSecondMoments):
    """Steps scaled by running averages of the gradient and its square.

    As in Keras (the paper's remark before section 2.1): with t counted from 1,
    alpha = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t),
    m = beta_1 * m + (1 - beta_1) * g, v = beta_2 * v + (1 - beta_2) * g^2,
    w -= alpha * m / (sqrt(v) + epsilon).

    Args:
        beta_1, beta_2: decay of the averages.
        epsilon: keeps the division finite; it is the paper's epsilon hat.
        amsgrad: divide by the root of the largest v there was (S. Reddi, S. Kale and S. Kumar, "On
            the Convergence of Adam and Beyond", 2018).
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        self.amsgrad = amsgrad
        self._largest: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        if self.amsgrad:
            self._largest = self.add_optimizer_variables(variables, "velocity_hat")

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        t = self.step_count()
        root = B.op("Sqrt", bias_correction(self.beta_2, t))
        alpha = B.op("Div", B.op("Mul", learning_rate, root), bias_correction(self.beta_1, t))
        super().update(pairs, alpha)

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        m, v, _ = self.advance(gradient, variable)
        if self.amsgrad:
            largest = self._largest[self.state_index(variable)]
            v = B.op("Max", largest.value, v)
            largest.assign(v)
        step = B.op("Div", m, B.op("Add", B.op("Sqrt", v), self.epsilon))
        # The factor last: a product and a difference may then be one operator where it runs.
        variable.assign(B.op("Sub", variable.value, B.op("Mul", step, learning_rate)))


class AdamW(Adam):
    """`Adam` with weight decay (I. Loshchilov and F. Hutter, "Decoupled Weight Decay
    Regularization", 2019).

    Args:
        weight_decay: see `Optimizer`.
        **options: the arguments of `Optimizer`, by name.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[OtherOptions],
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW needs a weight_decay; Adam works without one")
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options
        )
