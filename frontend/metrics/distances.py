"""Means of losses: of regression, of hinges, of divergences between distributions."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from onnxtape import losses, ops
from onnxtape.engine import B
from onnxtape.losses.crossentropy import sparse_and_mask
from onnxtape.losses.operands import aligned, paired
from onnxtape.metrics.reduction import Mean, MeanMetricWrapper
from onnxtape.tensor import Tensor


class MeanSquaredError(MeanMetricWrapper):
    """The mean of `losses.mean_squared_error`."""

    _direction = "down"

    def __init__(
        self, name: str | None = "mean_squared_error", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(losses.mean_squared_error, name, dtype)


class RootMeanSquaredError(Mean):
    """The square root of the mean of (y_pred - y_true)^2."""

    _direction = "down"

    def __init__(
        self, name: str | None = "root_mean_squared_error", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take a batch of targets and predictions into account."""
        target, pred = paired("root_mean_squared_error", y_true, y_pred, self.dtype)
        super().update_state(ops.square(B.op("Sub", pred, target)), sample_weight)

    def result(self) -> Tensor:
        return ops.sqrt(super().result())


class MeanAbsoluteError(MeanMetricWrapper):
    """The mean of `losses.mean_absolute_error`."""

    _direction = "down"

    def __init__(
        self, name: str | None = "mean_absolute_error", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(MeanMetricWrapper):
    """The mean of `losses.mean_absolute_percentage_error`."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "mean_absolute_percentage_error",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(MeanMetricWrapper):
    """The mean of `losses.mean_squared_logarithmic_error`."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "mean_squared_logarithmic_error",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class LogCoshError(MeanMetricWrapper):
    """The mean of `losses.log_cosh`."""

    _direction = "down"

    def __init__(self, name: str | None = "logcosh", dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(losses.log_cosh, name, dtype)


def _cosine(y_true: Any, y_pred: Any, axis: int) -> Tensor:
    return B.op("Neg", losses.cosine_similarity(y_true, y_pred, axis))


class CosineSimilarity(MeanMetricWrapper):
    """The mean cosine of the angle between targets and predictions along an axis.

    Not its negative, which the loss of this name is.
    """

    _direction = "up"

    def __init__(
        self,
        name: str | None = "cosine_similarity",
        dtype: npt.DTypeLike | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(_cosine, name, dtype, axis=axis)
        self.axis = axis


class Hinge(MeanMetricWrapper):
    """The mean of `losses.hinge`."""

    _direction = "down"

    def __init__(self, name: str | None = "hinge", dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(losses.hinge, name, dtype)


class SquaredHinge(MeanMetricWrapper):
    """The mean of `losses.squared_hinge`."""

    _direction = "down"

    def __init__(
        self, name: str | None = "squared_hinge", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(losses.squared_hinge, name, dtype)


class CategoricalHinge(MeanMetricWrapper):
    """The mean of `losses.categorical_hinge`."""

    _direction = "down"

    def __init__(
        self, name: str | None = "categorical_hinge", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(losses.categorical_hinge, name, dtype)


class KLDivergence(MeanMetricWrapper):
    """The mean of `losses.kl_divergence`."""

    _direction = "down"

    def __init__(
        self, name: str | None = "kl_divergence", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(losses.kl_divergence, name, dtype)


class Poisson(MeanMetricWrapper):
    """The mean of `losses.poisson`."""

    _direction = "down"

    def __init__(self, name: str | None = "poisson", dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(losses.poisson, name, dtype)


class BinaryCrossentropy(MeanMetricWrapper):
    """The mean of `losses.binary_crossentropy`, with its arguments."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: npt.DTypeLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(
            losses.binary_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
        )
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


class CategoricalCrossentropy(MeanMetricWrapper):
    """The mean of `losses.categorical_crossentropy`, with its arguments."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: npt.DTypeLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        super().__init__(
            losses.categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(Mean):
    """The mean of `losses.sparse_categorical_crossentropy`, with its arguments.

    As in Keras, samples of the class to ignore count (with a loss of 0) unless there are weights;
    with weights, theirs is 0.
    """

    _direction = "down"

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: npt.DTypeLike | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take a batch of targets and predictions into account."""
        values, mask = sparse_and_mask(
            y_true, y_pred, self.from_logits, self.ignore_class, self.axis
        )
        if sample_weight is not None and mask is not None:
            weights = ops.convert_to_tensor(sample_weight, self.dtype)
            sample_weight = ops.multiply(*aligned(ops.cast(mask, self.dtype), weights))
        super().update_state(values, sample_weight)
