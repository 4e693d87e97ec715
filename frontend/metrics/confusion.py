"""Counting true and false positives and negatives at thresholds, inside one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import EPSILON, aligned, same_rank
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

Count = Literal["true_positives", "false_positives", "true_negatives", "false_negatives"]

# What is predicted to be positive or negative: where the target is positive, and where it is not.
_POSITIVES: tuple[Count, Count] = ("true_positives", "false_positives")
_NEGATIVES: tuple[Count, Count] = ("false_negatives", "true_negatives")

#: Below every prediction: what a class outside of the top k counts as, as in Keras.
LOWEST = -1e10

_BOOL = np.dtype(bool)
_INT64 = np.dtype(np.int64)


def checked_thresholds(given: Any, default: float = 0.5) -> list[float]:
    """Thresholds as a list.

    Raises:
        ValueError: one is not between 0 and 1.
    """
    if given is None:
        return [default]
    thresholds = list(given) if isinstance(given, (list, tuple, np.ndarray)) else [given]
    wrong = [t for t in thresholds if t is None or not 0 <= t <= 1]
    if wrong or not thresholds:
        raise ValueError(f"thresholds are from 0 to 1, not {wrong or thresholds}")
    return [float(t) for t in thresholds]


def are_even(thresholds: Sequence[float]) -> bool:
    """Whether they are 0, 1 / n, 2 / n, ..., 1, of which there are at least three."""
    count = len(thresholds)
    even = np.arange(count, dtype=np.float32) / max(count - 1, 1)
    return count >= 3 and bool(np.allclose(thresholds, even, atol=EPSILON))


def count_at(
    thresholds: Sequence[float],
    even: bool,
    variables: Mapping[Count, Variable],
    what: str,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    top_k: int | None = None,
    class_id: int | None = None,
    by_label: bool = False,
    label_weights: Tensor | None = None,
) -> None:
    """Add a batch's counts to variables of shape (thresholds,), or (thresholds, labels).

    A prediction is positive where it is above the threshold.

    Args:
        even: whether thresholds are 0 to 1 in equal steps (the ends may lie just outside): each
            prediction then is put into one of as many buckets, instead of being compared with all.
        what: counts, for messages.
        y_true: of the shape of the predictions; anything but 0 is positive.
        y_pred: probabilities of any shape; the last axis holds classes or labels.
        sample_weight: a number, one per sample, or of a shape that broadcasts to the predictions'.
        top_k: only the k largest predictions along the last axis are positive.
        class_id: only this class counts.
        by_label: count each label, along the last axis, by itself.
        label_weights: one per label.

    Raises:
        ShapeError: shapes that do not go together.
    """
    dtype = next(iter(variables.values())).dtype
    pred, target = same_rank(convert_to_tensor(y_pred, dtype), convert_to_tensor(y_true, dtype))
    if not may_equal(B.shape(pred), B.shape(target)):
        raise refused(
            f"{what} takes targets and predictions of one shape, not "
            f"{format_shape(B.shape(target))} and {format_shape(B.shape(pred))}"
        )
    if top_k is not None:
        pred = _only_top(what, pred, top_k)
    if class_id is not None:
        pred, target = (_only_class(what, x, class_id) for x in (pred, target))
    positive = B.cast(B.cast(target, _BOOL), dtype)
    weights = None
    if sample_weight is not None:
        given = convert_to_tensor(sample_weight, dtype)
        weights = B.expand_like(aligned(pred, given)[1], pred)
    if label_weights is not None:
        shares = B.expand_like(B.cast(label_weights, dtype), pred)
        weights = shares if weights is None else B.op("Mul", weights, shares)
    negative = B.op("Sub", 1.0, positive)
    if weights is not None:
        positive, negative = B.op("Mul", positive, weights), B.op("Mul", negative, weights)

    # Samples, then labels: one column unless labels count by themselves.
    labels = B.dim(pred, -1) if by_label else 1
    if not isinstance(labels, int):
        raise refused(f"{what}: the number of labels of {format_shape(B.shape(pred))} is unknown")
    pred, positive, negative = (
        B.op("Reshape", x, [-1, labels]) for x in (pred, positive, negative)
    )
    negatives = any(name in variables for name in _NEGATIVES)
    if even:
        counts = _in_buckets(thresholds, pred, positive, negative, labels)
    else:
        counts = _by_comparison(thresholds, pred, positive, negative, negatives)
    for name, variable in variables.items():
        variable.assign_add(B.op("Reshape", counts[name], list(variable.shape)))


def _only_top(what: str, pred: Tensor, k: int) -> Tensor:
    """All but the k largest along the last axis as `LOWEST`."""
    rank = B.known_rank(pred, what)
    classes = B.dim(pred, -1) if rank else None
    if rank == 0 or (isinstance(classes, int) and not 0 < k <= classes):
        raise refused(f"{what}: predictions {format_shape(B.shape(pred))} have no top {k}")
    _, places = B.op_multi("TopK", pred, [k], outputs=2, axis=-1)
    ones = B.full_like(places, 1.0, pred.dtype)
    chosen = B.op("ScatterElements", B.full_like(pred, 0.0), places, ones, axis=-1)
    return B.op("Where", B.cast(chosen, _BOOL), pred, LOWEST)


def _only_class(what: str, x: Tensor, class_id: int) -> Tensor:
    rank = B.known_rank(x, what)
    classes = B.dim(x, -1) if rank else 0
    if rank < 2 or (isinstance(classes, int) and not 0 <= class_id < classes):
        raise refused(
            f"{what}: class_id {class_id} needs targets and predictions (batch, classes) with so "
            f"many classes, not of shape {format_shape(B.shape(x))}"
        )
    return B.op("Slice", x, [class_id], [class_id + 1], [rank - 1])


def _by_comparison(
    thresholds: Sequence[float], pred: Tensor, positive: Tensor, negative: Tensor, negatives: bool
) -> dict[Count, Tensor]:
    """Counts of shape (thresholds, labels), by comparing each prediction with each threshold."""
    lines = np.asarray(thresholds, pred.dtype).reshape(-1, 1, 1)
    # Labels, thresholds, samples: what is left is a product of matrices per label.
    above = B.op("Transpose", B.op("Greater", B.op("Unsqueeze", pred, [0]), lines), perm=[2, 0, 1])
    above = B.cast(above, pred.dtype)
    weights = [
        B.op("Unsqueeze", B.op("Transpose", x, perm=[1, 0]), [2]) for x in (positive, negative)
    ]
    both = B.op("Concat", *weights, axis=2)
    found = _split(_POSITIVES, B.op("MatMul", above, both))
    if negatives:
        found |= _split(_NEGATIVES, B.op("MatMul", B.op("Sub", 1.0, above), both))
    return found


def _in_buckets(
    thresholds: Sequence[float], pred: Tensor, positive: Tensor, negative: Tensor, labels: int
) -> dict[Count, Tensor]:
    """Counts of shape (thresholds, labels), by sorting predictions into buckets between thresholds.

    A prediction p belongs to bucket ceil(p (T - 1)): it is above that many of the T thresholds. As
    Keras's _update_confusion_matrix_variables_optimized.
    """
    count = len(thresholds)
    # The first threshold lies below 0 where every prediction is to be above it.
    first = 1 if thresholds[0] < 0.0 else 0
    places = B.op("Ceil", B.op("Mul", B.op("Clip", pred, 0.0, 1.0), float(count - 1)))
    # Bounded as integers once more, since what is no number becomes any.
    places = B.op("Clip", B.cast(places, _INT64), first, count - 1)
    if labels > 1:
        offsets = np.arange(labels, dtype=np.int64) * count
        places = B.op("Add", places, offsets)
    places = B.op("Reshape", places, [-1, 1])
    columns = [B.op("Reshape", x, [-1, 1]) for x in (positive, negative)]
    updates = B.op("Concat", *columns, axis=1)
    empty = B.constant(np.zeros((labels * count, 2), pred.dtype))
    buckets = B.op("ScatterND", empty, places, updates, reduction="add")
    buckets = B.op("Reshape", buckets, [labels, count, 2])
    # Positive at threshold t is what lies in a bucket after t: nothing, at the last.
    beyond = B.op("CumSum", buckets, np.asarray(1, np.int64), reverse=1, exclusive=1)
    upto = B.op("CumSum", buckets, np.asarray(1, np.int64))
    return _split(_POSITIVES, beyond) | _split(_NEGATIVES, upto)


def _split(names: tuple[Count, Count], counts: Tensor) -> dict[Count, Tensor]:
    """Counts (labels, thresholds, target is positive or not) as two (thresholds, labels)."""
    turned = B.op("Transpose", counts, perm=[2, 1, 0])
    return {name: B.op("Gather", turned, np.asarray(i), axis=0) for i, name in enumerate(names)}
