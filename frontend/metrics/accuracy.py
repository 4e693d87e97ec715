"""How often predictions are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dims import format_shape, same_shape
from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import alike, floats, labels_of, paired
from onnxtape.metrics.reduction import MeanMetricWrapper
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor

INT64 = np.dtype(np.int64)


def accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where predictions equal targets, else 0 (float32)."""
    pred = convert_to_tensor(y_pred)
    # In the predictions' dtype, whatever it is: labels may be predicted themselves.
    target, pred = paired("accuracy", y_true, pred, pred.dtype)
    return ops.cast(ops.equal(target, pred), FLOAT32)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Tensor:
    """1 where a prediction above the threshold has target 1 or one not above it has 0, else 0."""
    target, pred = paired("binary_accuracy", y_true, y_pred)
    positive = ops.cast(ops.greater(pred, threshold), target.dtype)
    return ops.cast(ops.equal(target, positive), FLOAT32)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the most probable class is the target's, else 0.

    Args:
        y_true: one-hot (..., classes), of the shape of `y_pred`.
    """
    target, pred = alike("categorical_accuracy", y_true, y_pred)
    _require_classes("categorical_accuracy", pred)
    best = [B.op("ArgMax", t, axis=-1, keepdims=0) for t in (target, pred)]
    return ops.cast(ops.equal(*best), FLOAT32)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the most probable class is the target's, else 0.

    Raises:
        ShapeError: targets do not have one class per prediction.
    """
    what = "sparse_categorical_accuracy"
    pred = convert_to_tensor(y_pred)
    rank = _require_classes(what, pred)
    labels = labels_of(what, y_true, pred, rank - 1)
    best = B.op("ArgMax", pred, axis=-1, keepdims=0)
    return ops.cast(ops.equal(best, _per_prediction(labels, best)), FLOAT32)


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Tensor:
    """1 where the target's class is among the k most probable, else 0.

    Args:
        y_true: one-hot (..., classes), of the shape of `y_pred`.
    """
    target, pred = alike("top_k_categorical_accuracy", y_true, y_pred)
    _require_classes("top_k_categorical_accuracy", pred)
    return _in_top_k(B.op("ArgMax", target, axis=-1, keepdims=0), pred, k)


def sparse_top_k_categorical_accuracy(
    y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False
) -> Tensor:
    """1 where the target class is among the k most probable, else 0.

    A class as probable as the k-th is among them; none is where a prediction is not finite.

    Args:
        y_true: integer classes of shape (...), or (..., 1).
        y_pred: (..., classes); or the classes themselves, most probable first.
        from_sorted_ids: whether predictions are such classes.
    """
    what = "sparse_top_k_categorical_accuracy"
    pred = convert_to_tensor(y_pred)
    rank = _require_classes(what, pred)
    labels = labels_of(what, y_true, pred, rank - 1)
    if not from_sorted_ids:
        return _in_top_k(labels, floats(pred), k)
    labels = B.op("Unsqueeze", labels, [-1])
    best = B.op("Slice", B.cast(pred, INT64), [0], [k], [-1])
    hits = B.cast(B.op("Equal", best, labels), FLOAT32)
    return B.op("ReduceMax", hits, [-1], keepdims=0)


def _in_top_k(labels: Tensor, pred: Tensor, k: int) -> Tensor:
    """As tf.math.in_top_k: fewer than k classes are more probable than the label."""
    first = B.op("ReduceMax", pred, [-1], keepdims=0)
    labels = _per_prediction(labels, first)
    classes = B.cast(B.op("Squeeze", B.dim_tensor(pred, (B.rank(pred) or 1) - 1)), INT64)
    inside = B.op("And", B.op("GreaterOrEqual", labels, 0), B.op("Less", labels, classes))
    places = B.op("Unsqueeze", B.op("Where", inside, labels, 0), [-1])
    given = B.op("GatherElements", pred, places, axis=-1)
    better = B.cast(B.op("Greater", pred, given), FLOAT32)
    before = B.op("ReduceSum", better, [-1], keepdims=0)
    # Zero times all that is finite is zero.
    finite = B.op("Equal", B.op("ReduceSum", B.op("Mul", pred, 0.0), [-1], keepdims=0), 0.0)
    hit = B.op("And", B.op("Less", before, float(k)), B.op("And", inside, finite))
    return B.cast(hit, FLOAT32)


def _per_prediction(labels: Tensor, best: Tensor) -> Tensor:
    """Where sizes are known only at run time, one target must not be broadcast to all."""
    if same_shape(B.shape(labels), B.shape(best)):
        return labels
    return B.op("Reshape", labels, B.op("Shape", best), allowzero=1)


def _require_classes(what: str, pred: Tensor) -> int:
    """The rank of predictions, which have an axis of classes."""
    rank = B.known_rank(pred, what)
    if rank == 0 or B.dim(pred, -1) == 0:
        shape = format_shape(B.shape(pred))
        raise refused(f"{what} takes predictions (..., classes), not of shape {shape}")
    return rank


class Accuracy(MeanMetricWrapper):
    """How often predictions equal targets."""

    _direction = "up"

    def __init__(self, name: str | None = "accuracy", dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often predictions are on the target's side of the threshold.

    Args:
        threshold: above it a prediction means 1, else 0.
    """

    _direction = "up"

    def __init__(
        self,
        name: str | None = "binary_accuracy",
        dtype: npt.DTypeLike | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)
        self.threshold = threshold


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the most probable class is the (one-hot) target's."""

    _direction = "up"

    def __init__(
        self, name: str | None = "categorical_accuracy", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the most probable class is the target's.

    Shapes: targets (batch, ...) of integers, or (batch, ..., 1); predictions (batch, ..., classes).
    """

    _direction = "up"

    def __init__(
        self, name: str | None = "sparse_categorical_accuracy", dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the (one-hot) target's class is among the `k` most probable."""

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = "top_k_categorical_accuracy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)
        self.k = k


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the target's class is among the `k` most probable.

    Args:
        from_sorted_ids: whether predictions are classes, most probable first.
    """

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: npt.DTypeLike | None = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(
            sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids
        )
        self.k, self.from_sorted_ids = k, from_sorted_ids
