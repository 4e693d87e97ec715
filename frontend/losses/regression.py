"""Losses of regression: differences between targets and predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from onnxtape import ops
from onnxtape.engine import B
from onnxtape.losses.loss import Loss, Reduction
from onnxtape.losses.operands import EPSILON, paired
from onnxtape.tensor import Tensor


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((y_true - y_pred)^2) over the last axis."""
    target, pred = paired("mean_squared_error", y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(target, pred)), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean(|y_true - y_pred|) over the last axis."""
    target, pred = paired("mean_absolute_error", y_true, y_pred)
    return ops.mean(ops.absolute(ops.subtract(target, pred)), axis=-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Tensor:
    """100 * mean(|y_true - y_pred| / max(|y_true|, 1e-7)) over the last axis."""
    target, pred = paired("mean_absolute_percentage_error", y_true, y_pred)
    scale = B.op("Max", ops.absolute(target), EPSILON)
    shares = ops.absolute(B.op("Div", B.op("Sub", target, pred), scale))
    return B.op("Mul", ops.mean(shares, axis=-1), 100.0)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((log(1 + y_true) - log(1 + y_pred))^2) over the last axis; negative values count as 0.

    Strictly as 1e-7, as in Keras.
    """
    target, pred = paired("mean_squared_logarithmic_error", y_true, y_pred)
    logs = [B.op("Log", B.op("Add", B.op("Max", t, EPSILON), 1.0)) for t in (pred, target)]
    return ops.mean(ops.square(ops.subtract(*logs)), axis=-1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Minus the cosine of the angle between targets and predictions along an axis.

    -1 where they point the same way, 1 where the opposite way, 0 where one of them is zero.
    """
    target, pred = paired("cosine_similarity", y_true, y_pred)
    product = ops.multiply(ops.normalize(target, axis), ops.normalize(pred, axis))
    return B.op("Neg", ops.sum(product, axis=axis))


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """mean of e^2 / 2 where |e| <= delta, else of delta * |e| - delta^2 / 2, over the last axis.

    e = y_pred - y_true. Source: Huber, Robust estimation of a location parameter, 1964.
    """
    target, pred = paired("huber", y_true, y_pred)
    error = B.op("Sub", pred, target)
    # c (e - c / 2) with c = clip(e) is both branches at once: no comparison, no Where.
    near = ops.clip(error, -delta, delta)
    return ops.mean(B.op("Mul", near, B.op("Sub", error, B.op("Mul", near, 0.5))), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Tensor:
    """mean(log(cosh(y_pred - y_true))) over the last axis, without overflow."""
    target, pred = paired("log_cosh", y_true, y_pred)
    error = B.op("Sub", pred, target)
    tail = ops.softplus(B.op("Mul", error, -2.0))
    return ops.mean(B.op("Sub", B.op("Add", error, tail), math.log(2.0)), axis=-1)


class MeanSquaredError(Loss):
    """The loss `mean_squared_error`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "mean_squared_error",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(Loss):
    """The loss `mean_absolute_error`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_error",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_absolute_error(y_true, y_pred)


class MeanAbsolutePercentageError(Loss):
    """The loss `mean_absolute_percentage_error`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_percentage_error",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_absolute_percentage_error(y_true, y_pred)


class MeanSquaredLogarithmicError(Loss):
    """The loss `mean_squared_logarithmic_error`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "mean_squared_logarithmic_error",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_logarithmic_error(y_true, y_pred)


class CosineSimilarity(Loss):
    """The loss `cosine_similarity`, to be minimized.

    Args:
        axis: along which vectors lie.
    """

    def __init__(
        self,
        axis: int = -1,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return cosine_similarity(y_true, y_pred, self.axis)


class Huber(Loss):
    """The loss `huber`: quadratic for small errors, linear for large ones.

    Args:
        delta: where one becomes the other, positive.
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if not delta > 0:
            raise ValueError(f"Huber: delta is positive, not {delta!r}")
        self.delta = delta

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return huber(y_true, y_pred, self.delta)


class LogCosh(Loss):
    """The loss `log_cosh`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "log_cosh",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return log_cosh(y_true, y_pred)
