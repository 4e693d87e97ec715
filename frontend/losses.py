"""Losses: per-sample functions of targets and predictions, reduced to a number."""

from __future__ import annotations

from typing import Any, Literal

from onnxtape import ops
from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.tensor import Tensor

Reduction = Literal["sum_over_batch_size", "sum", "mean", "none"]


class Loss:
    """A loss: subclasses write `call(y_true, y_pred)`, which gives one value per sample.

    Args:
        reduction: "sum_over_batch_size" (the mean over all values), "sum", "mean" (weighted by the
            sample weights), or "none" (None).
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: Reduction | None = "sum_over_batch_size",
    ) -> None:
        if reduction not in ("sum_over_batch_size", "sum", "mean", "none", None):
            raise ValueError(
                f"reduction is 'sum_over_batch_size', 'sum', 'mean' or 'none', not {reduction!r}"
            )
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
        if self.reduction == "mean" and weights is not None:
            return ops.divide(ops.sum(losses), ops.sum(B.expand_like(weights, losses)))
        return ops.mean(losses)


def _aligned(losses: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of shape (batch, 1) for losses of shape (batch,), and the other way round."""
    rank, given = B.known_rank(losses, "a loss"), B.known_rank(weights, "sample_weight")
    if given == rank + 1 and B.dim(weights, -1) == 1:
        return losses, ops.squeeze(weights, -1)
    while given < rank:
        weights, given = ops.expand_dims(weights, -1), given + 1
    return losses, weights


def _same_rank(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Drop a last axis of size 1 that only one of the two has."""
    rank_true, rank_pred = B.known_rank(y_true, "a loss"), B.known_rank(y_pred, "a loss")
    if rank_true == rank_pred + 1 and B.dim(y_true, -1) == 1:
        return ops.squeeze(y_true, -1), y_pred
    if rank_pred == rank_true + 1 and B.dim(y_pred, -1) == 1:
        return y_true, ops.squeeze(y_pred, -1)
    return y_true, y_pred


class MeanSquaredError(Loss):
    """mean((y_true - y_pred)^2) over the last axis."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(Loss):
    """mean(|y_true - y_pred|) over the last axis."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        target, pred = _prepared(y_true, y_pred)
        return ops.mean(ops.absolute(ops.subtract(target, pred)), axis=-1)


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


class CategoricalCrossentropy(Loss):
    """-sum(target * log(probability)) over the classes.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards the uniform distribution.
    """

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

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        target, pred = _prepared(y_true, y_pred)
        if self.label_smoothing:
            classes = ops.shape(pred)[self.axis]
            share = ops.divide(self.label_smoothing, ops.cast(classes, pred.dtype))
            target = ops.add(ops.multiply(target, 1.0 - self.label_smoothing), share)
        return ops.categorical_crossentropy(target, pred, self.from_logits, self.axis)


class BinaryCrossentropy(Loss):
    """-(t log p + (1 - t) log(1 - p)), averaged over an axis.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards 1/2.
    """

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
    return _same_rank(convert_to_tensor(y_true, pred.dtype), pred)


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((y_true - y_pred)^2) over the last axis."""
    target, pred = _prepared(y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(target, pred)), axis=-1)
