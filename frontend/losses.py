"""Losses: per-sample functions of targets and predictions, reduced to a number."""

from __future__ import annotations

from typing import Any, Literal, get_args

from onnxtape import ops
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.tensor import Tensor

Reduction = Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


class Loss:
    """A loss: subclasses write `call(y_true, y_pred)`, which gives one value per sample.

    Args:
        reduction: "sum_over_batch_size" or "mean" (the sum divided by the number of values),
            "mean_with_sample_weight" (divided by the sum of the weights), "sum", or "none" (None).
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: Reduction | None = "sum_over_batch_size",
    ) -> None:
        if reduction is not None and reduction not in get_args(Reduction):
            allowed = ", ".join(map(repr, get_args(Reduction)))
            raise ValueError(f"reduction is one of {allowed}, not {reduction!r}")
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.reduction = reduction

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """The loss of each sample."""
        raise NotImplementedError(f"{type(self).__name__} has no call method")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """The reduced loss.

        Args:
            y_true: targets.
            y_pred: predictions.
            sample_weight: broadcasts against the losses of the samples.
        """
        losses = self.call(convert_to_tensor(y_true), convert_to_tensor(y_pred))
        weights = None
        if sample_weight is not None:
            weights = convert_to_tensor(sample_weight, losses.dtype)
            losses, weights = _aligned(losses, weights)
            losses = ops.multiply(losses, weights)
        if self.reduction in ("none", None):
            return losses
        if self.reduction == "sum":
            return ops.sum(losses)
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            return _divided(ops.sum(losses), ops.sum(weights))
        return ops.mean(losses)


def _divided(total: Tensor, count: Tensor) -> Tensor:
    """Zero where there is nothing to divide by."""
    nothing = ops.equal(count, 0.0)
    return ops.where(nothing, 0.0, ops.divide(total, ops.where(nothing, 1.0, count)))


def same_rank(x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
    """Make up for an axis of size 1 at the end that only one of the two has.

    As in Keras: (batch,) gets the axis that (batch, 1) has; of more axes, the last is dropped.
    """
    rank_1, rank_2 = B.known_rank(x1, "a loss"), B.known_rank(x2, "a loss")
    if rank_2 == rank_1 + 1:
        x2, x1 = same_rank(x2, x1)
    elif rank_1 == rank_2 + 1 and B.dim(x1, -1) == 1:
        if rank_2 == 1:
            x2 = ops.expand_dims(x2, -1)
        else:
            x1 = ops.squeeze(x1, -1)
    return x1, x2


def _aligned(losses: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and weights of one rank; a weight per sample counts for all the sample's losses."""
    losses, weights = same_rank(losses, weights)
    missing = B.known_rank(losses, "a loss") - B.known_rank(weights, "sample_weight")
    for _ in range(missing):
        weights = ops.expand_dims(weights, -1)
    return losses, weights


class MeanSquaredError(Loss):
    """mean((y_true - y_pred)^2) over the last axis."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "mean_squared_error",
    ) -> None:
        super().__init__(name, reduction)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(Loss):
    """mean(|y_true - y_pred|) over the last axis."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_error",
    ) -> None:
        super().__init__(name, reduction)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_absolute_error(y_true, y_pred)


class SparseCategoricalCrossentropy(Loss):
    """-log of the probability that the prediction gives to the target class.

    Args:
        from_logits: whether predictions are logits, not probabilities.

    Shapes: targets (batch, ...) of integers, or (batch, ..., 1); predictions (batch, ..., classes).
    """

    def __init__(
        self,
        from_logits: bool = False,
        reduction: Reduction | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits = from_logits
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return ops.sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, self.axis)


class _SmoothedCrossentropy(Loss):
    """The arguments of the cross-entropies between probabilities."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis


class CategoricalCrossentropy(_SmoothedCrossentropy):
    """-sum(target * log(probability)) over the classes.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards the uniform distribution.
    """

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        target, pred = _prepared(y_true, y_pred)
        if self.label_smoothing:
            classes = ops.shape(pred)[self.axis]
            share = ops.divide(self.label_smoothing, ops.cast(classes, pred.dtype))
            target = ops.add(ops.multiply(target, 1.0 - self.label_smoothing), share)
        return ops.categorical_crossentropy(target, pred, self.from_logits, self.axis)


class BinaryCrossentropy(_SmoothedCrossentropy):
    """-(t log p + (1 - t) log(1 - p)), averaged over an axis.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards 1/2.
    """

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        target, pred = _prepared(y_true, y_pred)
        if self.label_smoothing:
            scaled = ops.multiply(target, 1.0 - self.label_smoothing)
            target = ops.add(scaled, 0.5 * self.label_smoothing)
        return ops.mean(ops.binary_crossentropy(target, pred, self.from_logits), axis=self.axis)


def _prepared(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Both as floats of the prediction's dtype and of one rank."""
    pred = convert_to_tensor(y_pred)
    if not is_float(pred.dtype):
        pred = ops.cast(pred, "float32")
    return same_rank(convert_to_tensor(y_true, pred.dtype), pred)


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((y_true - y_pred)^2) over the last axis."""
    target, pred = _prepared(y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(target, pred)), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean(|y_true - y_pred|) over the last axis."""
    target, pred = _prepared(y_true, y_pred)
    return ops.mean(ops.absolute(ops.subtract(target, pred)), axis=-1)
