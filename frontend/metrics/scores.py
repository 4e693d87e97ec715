"""Scores of regression: R squared, and correlations."""

from __future__ import annotations

from typing import Any, Literal

import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import EPSILON, aligned, alike, paired
from onnxtape.metrics.metric import Metric, not_updated
from onnxtape.metrics.reduction import MeanMetricWrapper
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor

Aggregation = Literal["uniform_average", "variance_weighted_average"]


class R2Score(Metric):
    """The coefficient of determination, 1 - sum((t - p)^2) / sum((t - mean(t))^2) per output.

    Args:
        class_aggregation: how outputs become one number: "uniform_average" (their mean) or
            "variance_weighted_average"; None: one score per output.
        num_regressors: how many independent variables the model has; if any, the result is the
            adjusted score, 1 - (1 - r2) (n - 1) / (n - num_regressors - 1), where n counts targets
            and that denominator is positive.
    """

    _direction = "up"

    def __init__(
        self,
        class_aggregation: Aggregation | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(dtype, name)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "class_aggregation is None, 'uniform_average' or 'variance_weighted_average', not "
                f"{class_aggregation!r}"
            )
        if num_regressors < 0:
            raise ValueError(f"num_regressors is zero or more, not {num_regressors!r}")
        self.class_aggregation = class_aggregation
        self.num_regressors = num_regressors
        self.num_samples = self.add_variable((), name="num_samples")
        self._built = False

    def _build(self, outputs: Any) -> None:
        self.squared_sum = self.add_variable((outputs,), name="squared_sum")
        self.sum = self.add_variable((outputs,), name="sum")
        self.total_mse = self.add_variable((outputs,), name="residual")
        self.count = self.add_variable((outputs,), name="count")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true, y_pred: (batch, outputs).
            sample_weight: a number, one per sample, or one per target.
        """
        target, pred = alike("R2Score", y_true, y_pred, self.dtype)
        require_matrix("R2Score", pred)
        if not self._built:
            self._build(B.dim(pred, 1))
        if sample_weight is None:
            weights = B.full_like(target, 1.0)
        else:
            weights = convert_to_tensor(sample_weight, target.dtype)
            weights = B.expand_like(aligned(target, weights)[1], target)
        weighted = B.op("Mul", target, weights)
        self.sum.assign_add(ops.sum(weighted, axis=0))
        self.squared_sum.assign_add(ops.sum(B.op("Mul", target, weighted), axis=0))
        errors = B.op("Mul", ops.square(B.op("Sub", target, pred)), weights)
        self.total_mse.assign_add(ops.sum(errors, axis=0))
        self.count.assign_add(ops.sum(weights, axis=0))
        self.num_samples.assign_add(ops.cast(ops.size(target), target.dtype))

    def result(self) -> Tensor:
        """The score; NaN after a reset, as in Keras.

        Raises:
            ValueError: before the first update.
        """
        if not self._built:
            raise not_updated(self)
        total = self.squared_sum - self.sum * (self.sum / self.count)
        scores = B.op("Sub", 1.0, B.op("Div", self.total_mse.value, total))
        scores = B.op("Where", ops.isinf(scores), 0.0, scores)
        score = scores
        if self.class_aggregation == "uniform_average":
            score = ops.mean(scores)
        elif self.class_aggregation == "variance_weighted_average":
            score = ops.sum(total * scores) / ops.sum(total)
        return self._adjusted(score) if self.num_regressors else score

    def _adjusted(self, score: Tensor) -> Tensor:
        left = self.num_samples.value - (self.num_regressors + 1.0)
        possible = left > 0.0
        scale = (self.num_samples - 1.0) / B.op("Where", possible, left, 1.0)
        return ops.where(possible, 1.0 - (1.0 - score) * scale, score)


def require_matrix(what: str, pred: Tensor) -> None:
    """Refuse what is not (batch, outputs) with a known number of outputs.

    Raises:
        ShapeError: it is not.
    """
    shape = B.shape(pred) or ()
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise refused(
            f"{what} takes targets and predictions (batch, outputs) with a known number of "
            f"outputs, not of shape {format_shape(B.shape(pred))}"
        )


def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """cov(t, p) / (std(t) std(p)) along an axis, from -1 to 1."""
    target, pred = paired("pearson_correlation", y_true, y_pred)
    units = []
    for x in (target, pred):
        centered = B.op("Sub", x, ops.mean(x, axis, keepdims=True))
        units.append(B.op("Div", centered, ops.std(centered, axis, keepdims=True)))
    return ops.mean(ops.multiply(*units), axis)


def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """2 cov(t, p) / (var(t) + var(p) + (mean(t) - mean(p))^2) along an axis, from -1 to 1.

    Source: Lin, A concordance correlation coefficient to evaluate reproducibility, 1989.
    """
    target, pred = paired("concordance_correlation", y_true, y_pred)
    means = [ops.mean(x, axis, keepdims=True) for x in (target, pred)]
    centered = [B.op("Sub", x, mean) for x, mean in zip((target, pred), means, strict=True)]
    variances = [ops.mean(ops.square(x), axis, keepdims=True) for x in centered]
    apart = ops.square(ops.subtract(*means))
    norm = B.op("Add", ops.add(*variances), apart)
    covariance = B.op("Mul", ops.multiply(*centered), 2.0)
    return ops.mean(B.op("Div", covariance, B.op("Add", norm, EPSILON)), axis)


class PearsonCorrelation(MeanMetricWrapper):
    """The mean of `pearson_correlation`, along `axis` of each sample."""

    _direction = "up"

    def __init__(
        self,
        name: str | None = "pearson_correlation",
        dtype: npt.DTypeLike | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)
        self.axis = axis


class ConcordanceCorrelation(MeanMetricWrapper):
    """The mean of `concordance_correlation`, along `axis` of each sample."""

    _direction = "up"

    def __init__(
        self,
        name: str | None = "concordance_correlation",
        dtype: npt.DTypeLike | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)
        self.axis = axis
