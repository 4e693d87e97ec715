"""Losses between distributions other than the plain cross-entropies."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from onnxtape import ops
from onnxtape.engine import B
from onnxtape.losses.crossentropy import (
    _Smoothed,
    among_classes,
    towards_half,
    towards_uniform,
)
from onnxtape.losses.loss import Loss, Reduction
from onnxtape.losses.operands import EPSILON, alike, floats, labels_of, paired, picked
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor


def kl_divergence(y_true: Any, y_pred: Any) -> Tensor:
    """sum(t log(t / p)) over the last axis, with both clipped to 1e-7 and 1."""
    target, pred = paired("kl_divergence", y_true, y_pred)
    target, pred = (B.op("Clip", t, EPSILON, 1.0) for t in (target, pred))
    return ops.sum(B.op("Mul", target, B.op("Log", B.op("Div", target, pred))), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Tensor:
    """mean(p - t log(p + 1e-7)) over the last axis: of counts t, given their expectation p."""
    target, pred = paired("poisson", y_true, y_pred)
    log = B.op("Log", B.op("Add", pred, EPSILON))
    return ops.mean(B.op("Sub", pred, B.op("Mul", target, log)), axis=-1)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """(1 - q)^gamma times the binary cross-entropy, averaged over an axis.

    q = t p + (1 - t) (1 - p) is the probability that the prediction gives to the target. Source:
    arXiv:1708.02002.

    Args:
        apply_class_balancing: whether to weigh with alpha where t = 1 and 1 - alpha where t = 0.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards 1/2.
    """
    target, pred = alike("binary_focal_crossentropy", y_true, y_pred)
    target = towards_half(target, label_smoothing)
    p = B.op("Sigmoid", pred) if from_logits else pred
    other = B.op("Sub", 1.0, target)
    hit = B.op("Add", B.op("Mul", target, p), B.op("Mul", other, B.op("Sub", 1.0, p)))
    factor = _power(B.op("Sub", 1.0, hit), gamma)
    losses = B.op("Mul", factor, ops.binary_crossentropy(target, p))
    if apply_class_balancing:
        weights = B.op("Mul", target, float(alpha))
        losses = B.op("Mul", losses, B.op("Add", weights, B.op("Mul", other, 1.0 - alpha)))
    return ops.mean(losses, axis=axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """-sum(alpha (1 - p)^gamma t log p) over the classes. Source: arXiv:1708.02002.

    Args:
        alpha: a number, or one per class.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards the uniform distribution.
        axis: of the classes.
    """
    target, pred = among_classes("categorical_focal_crossentropy", y_true, y_pred, axis)
    target = towards_uniform(target, pred, label_smoothing, axis)
    p = ops.softmax(pred, axis) if from_logits else pred
    p = B.op("Div", p, ops.sum(p, axis, keepdims=True))
    p = B.op("Clip", p, EPSILON, 1.0 - EPSILON)
    weights = ops.multiply(_power(B.op("Sub", 1.0, p), gamma), alpha)
    entropies = B.op("Mul", target, B.op("Log", p))
    return B.op("Neg", ops.sum(B.op("Mul", weights, entropies), axis))


def _power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent; squares, which are what focal losses take by default, without Pow."""
    return ops.square(x) if exponent == 2.0 else ops.power(x, float(exponent))


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Tensor:
    """(1 - p^q) / q, where p is the probability given to the target class.

    Between the cross-entropy (q towards 0) and the mean absolute error (q = 1), and so robust to
    wrong labels. Source: arXiv:1805.07836.

    Args:
        y_true: integer classes of shape (...), or (..., 1).
        y_pred: probabilities (..., classes).
    """
    what = "categorical_generalized_cross_entropy"
    pred = floats(y_pred)
    axis = B.known_rank(pred, what) - 1
    if axis < 0:
        raise refused(f"{what}: predictions need an axis of classes, not shape ()")
    p = picked(what, pred, labels_of(what, y_true, pred, axis), axis)
    return B.op("Div", B.op("Sub", 1.0, ops.power(p, float(q))), float(q))


class KLDivergence(Loss):
    """The loss `kl_divergence`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "kl_divergence",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return kl_divergence(y_true, y_pred)


class Poisson(Loss):
    """The loss `poisson`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "poisson",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return poisson(y_true, y_pred)


class BinaryFocalCrossentropy(_Smoothed):
    """The loss `binary_focal_crossentropy`: what is easy counts less.

    Args:
        apply_class_balancing: whether to weigh with alpha where t = 1 and 1 - alpha where t = 0.
        alpha: see there.
        gamma: how much less; 0 makes it the cross-entropy.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards 1/2.
        axis: to average over.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing = apply_class_balancing
        self.alpha, self.gamma = alpha, gamma

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return binary_focal_crossentropy(
            y_true,
            y_pred,
            self.apply_class_balancing,
            self.alpha,
            self.gamma,
            self.from_logits,
            self.label_smoothing,
            self.axis,
        )


class CategoricalFocalCrossentropy(_Smoothed):
    """The loss `categorical_focal_crossentropy`: what is easy counts less.

    Args:
        alpha: a number, or one per class.
        gamma: how much less; 0 makes it alpha times the cross-entropy.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards the uniform distribution.
        axis: of the classes.
    """

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.alpha, self.gamma = alpha, gamma

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return categorical_focal_crossentropy(
            y_true,
            y_pred,
            self.alpha,
            self.gamma,
            self.from_logits,
            self.label_smoothing,
            self.axis,
        )


class CategoricalGeneralizedCrossEntropy(Loss):
    """The loss `categorical_generalized_cross_entropy`.

    Args:
        q: between 0 and 1, exclusive.
    """

    _takes_classes = True

    def __init__(
        self,
        q: float = 0.5,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "categorical_generalized_cross_entropy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if not 0.0 < q < 1.0:
            raise ValueError(f"q is between 0 and 1, not {q!r}")
        self.q = q

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return categorical_generalized_cross_entropy(y_true, y_pred, self.q)
