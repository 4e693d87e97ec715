"""Muon (K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Unpack

from onnxtape.engine import B
from onnxtape.optimizers.averages import bias_correction, check_decay
from onnxtape.optimizers.clipping import squared_norm
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.options import OtherOptions
from onnxtape.optimizers.pairs import Pairs
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Muon(Optimizer):
    """Steps of matrices whose singular values are all about 1; `AdamW`'s for other variables.

    For a matrix: m = momentum * m + g, u = g + momentum * m with `nesterov`, else m; u divided by
    its norm goes `ns_steps` times through u = a * u + (b * S + c * S^2) u with S = u u^T; then
    w -= learning_rate * rms_rate * sqrt(max(rows, columns)) * u.

    Args:
        adam_beta_1, adam_beta_2, adam_weight_decay, epsilon: of the other variables.
        weight_decay: of matrices.
        exclude_layers: regular expressions; a matrix in whose path one occurs is left to AdamW.
        exclude_embeddings: so is one in whose path "embedding" occurs.
        muon_a, muon_b, muon_c: a, b and c above.
        adam_lr_ratio: the other variables' learning rate, divided by that of matrices.
        rms_rate: see above; None leaves out both factors.
        **options: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        *,
        exclude_layers: Sequence[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.7750,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **options: Unpack[OtherOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        check_decay(self, "adam_beta_1", adam_beta_1)
        check_decay(self, "adam_beta_2", adam_beta_2)
        self.adam_beta_1 = adam_beta_1
        self.adam_beta_2 = adam_beta_2
        self.adam_weight_decay = adam_weight_decay
        self.epsilon = epsilon
        self.exclude_layers = list(exclude_layers or ())
        self.exclude_embeddings = exclude_embeddings
        self.muon_a = muon_a
        self.muon_b = muon_b
        self.muon_c = muon_c
        self.adam_lr_ratio = adam_lr_ratio
        self.momentum = momentum
        self.ns_steps = ns_steps
        self.nesterov = nesterov
        self.rms_rate = rms_rate
        self._momenta: list[Variable] = []
        self._velocities: dict[Variable, Variable] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        for variable in variables:
            self._momenta.append(self.add_variable_from_reference(variable, "momentum"))
            if self._is_for_adam(variable):
                velocity = self.add_variable_from_reference(variable, "velocity")
                self._velocities[variable] = velocity

    def _is_for_adam(self, variable: Variable) -> bool:
        path = variable.path
        return (
            variable.ndim != 2
            or (self.exclude_embeddings and "embedding" in path.lower())
            or any(re.search(pattern, path) for pattern in self.exclude_layers)
        )

    def decay_of(self, variable: Variable) -> float | None:
        return self.adam_weight_decay if self._is_for_adam(variable) else self.weight_decay

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        t = self.step_count()
        root = B.op("Sqrt", bias_correction(self.adam_beta_2, t))
        alpha = B.op("Div", root, bias_correction(self.adam_beta_1, t))
        alpha = B.op("Mul", B.op("Mul", learning_rate, alpha), float(self.adam_lr_ratio))
        for gradient, variable in pairs:
            if variable in self._velocities:
                self._adam_step(gradient, variable, B.cast(alpha, variable.dtype))
            else:
                self.update_step(gradient, variable, B.cast(learning_rate, variable.dtype))

    def _adam_step(self, gradient: Tensor, variable: Variable, alpha: Tensor) -> None:
        momentum = self._momenta[self.state_index(variable)]
        velocity = self._velocities[variable]
        scaled = B.op("Mul", gradient, 1.0 - self.adam_beta_1)
        scale = (1.0 - self.adam_beta_2) / (1.0 - self.adam_beta_1) ** 2
        square = B.op("Mul", B.op("Mul", scaled, scale), scaled)
        m = B.op("Add", B.op("Mul", momentum.value, self.adam_beta_1), scaled)
        v = B.op("Add", B.op("Mul", velocity.value, self.adam_beta_2), square)
        momentum.assign(m)
        velocity.assign(v)
        step = B.op("Div", B.op("Mul", m, alpha), B.op("Add", B.op("Sqrt", v), self.epsilon))
        variable.assign(B.op("Sub", variable.value, step))

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        momentum = self._momenta[self.state_index(variable)]
        m = B.op("Add", B.op("Mul", momentum.value, self.momentum), gradient)
        momentum.assign(m)
        u = B.op("Add", gradient, B.op("Mul", m, self.momentum)) if self.nesterov else m
        rows, columns = variable.shape
        rate = learning_rate
        if self.rms_rate is not None:
            rate = B.op("Mul", rate, math.sqrt(max(rows, columns)) * self.rms_rate)
        step = B.op("Mul", self._orthogonalized(u, rows > columns), rate)
        variable.assign(B.op("Sub", variable.value, step))

    def _orthogonalized(self, u: Tensor, tall: bool) -> Tensor:
        """Singular values brought to about 1, by a polynomial of Newton and Schulz's kind.

        The square of the smaller side is what is multiplied.
        """
        norm = B.cast(B.op("Sqrt", squared_norm(u)), u.dtype)
        u = B.op("Div", u, B.op("Add", norm, 1e-7))
        for _ in range(self.ns_steps):
            other = B.op("Transpose", u, perm=[1, 0])
            s = B.op("MatMul", other, u) if tall else B.op("MatMul", u, other)
            squared = B.op("Mul", B.op("MatMul", s, s), self.muon_c)
            factor = B.op("Add", B.op("Mul", s, self.muon_b), squared)
            product = B.op("MatMul", u, factor) if tall else B.op("MatMul", factor, u)
            u = B.op("Add", B.op("Mul", u, self.muon_a), product)
        return u
