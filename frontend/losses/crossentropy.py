"""Cross-entropies between targets and predicted probabilities."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from onnxtape import context, ops
from onnxtape.engine import B
from onnxtape.losses.loss import Loss, Reduction
from onnxtape.losses.operands import alike, classes_expected, floats, labels_of
from onnxtape.ops.axes import normalized
from onnxtape.tensor import Tensor


def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), averaged over an axis.

    Args:
        y_true: probabilities, of the shape of `y_pred`.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards 1/2.
    """
    target, pred = alike("binary_crossentropy", y_true, y_pred)
    target = towards_half(target, label_smoothing)
    return ops.mean(ops.binary_crossentropy(target, pred, from_logits), axis=axis)


def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """-sum(t log p) over the classes.

    Args:
        y_true: probabilities (..., classes), of the shape of `y_pred`.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards the uniform distribution.
        axis: of the classes.
    """
    target, pred = among_classes("categorical_crossentropy", y_true, y_pred, axis)
    target = towards_uniform(target, pred, label_smoothing, axis)
    return ops.categorical_crossentropy(target, pred, from_logits, axis)


def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Tensor:
    """-log of the probability that the prediction gives to the target class.

    Args:
        y_true: integer classes of shape (...), or with an axis of size 1 for the classes.
        y_pred: (..., classes).
        from_logits: whether predictions are logits, not probabilities.
        ignore_class: the loss of this target is 0, whatever its prediction; it may be no class.
        axis: of the classes.
    """
    return sparse_and_mask(y_true, y_pred, from_logits, ignore_class, axis)[0]


def sparse_and_mask(
    y_true: Any, y_pred: Any, from_logits: bool, ignore_class: int | None, axis: int
) -> tuple[Tensor, Tensor | None]:
    """`sparse_categorical_crossentropy`, and which targets are not ignored (None: all)."""
    what = "sparse_categorical_crossentropy"
    pred = floats(y_pred)
    axis = normalized(axis, B.known_rank(pred, what), what)
    if ignore_class is None:
        with classes_expected(what, pred, axis):
            return ops.sparse_categorical_crossentropy(y_true, pred, from_logits, axis), None
    labels = labels_of(what, y_true, pred, axis)
    counts = B.op("Not", B.op("Equal", labels, int(ignore_class)))
    # Not only the loss: what is ignored may be infinite, and its gradient then not a number.
    pred = B.op("Where", B.op("Unsqueeze", counts, [axis]), pred, 0.0)
    labels = B.op("Where", counts, labels, 0)
    with classes_expected(what, pred, axis):
        losses = ops.sparse_categorical_crossentropy(labels, pred, from_logits, axis)
    return B.op("Where", counts, losses, 0.0), counts


def towards_half(target: Tensor, label_smoothing: float) -> Tensor:
    """Targets between 0 and 1, moved towards 1/2."""
    if not label_smoothing:
        return target
    scaled = B.op("Mul", target, 1.0 - label_smoothing)
    return B.op("Add", scaled, 0.5 * label_smoothing)


def towards_uniform(target: Tensor, pred: Tensor, label_smoothing: float, axis: int) -> Tensor:
    """Targets that are a distribution along an axis, moved towards the uniform one."""
    if not label_smoothing:
        return target
    classes = ops.cast(ops.shape(pred)[axis], pred.dtype)
    scaled = B.op("Mul", target, 1.0 - label_smoothing)
    return B.op("Add", scaled, ops.divide(label_smoothing, classes))


def among_classes(what: str, y_true: Any, y_pred: Any, axis: int) -> tuple[Tensor, Tensor]:
    """Targets and predictions of one shape, with more than one class.

    Raises:
        ShapeError: their shapes differ, or there is no such axis.
    """
    target, pred = alike(what, y_true, y_pred)
    if B.dim(pred, normalized(axis, B.known_rank(pred, what), what)) == 1:
        context.warn_user(
            f"{what}: there is one class only, whose probability is 1 whatever is predicted; for "
            "two classes there is binary_crossentropy"
        )
    return target, pred


class _Smoothed(Loss):
    """The arguments of the cross-entropies between probabilities."""

    def __init__(
        self,
        from_logits: bool,
        label_smoothing: float,
        axis: int,
        reduction: Reduction | None,
        name: str | None,
        dtype: npt.DTypeLike | None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing is from 0 to 1, not {label_smoothing!r}")
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis


class BinaryCrossentropy(_Smoothed):
    """The loss `binary_crossentropy`.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards 1/2.
        axis: to average over.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return binary_crossentropy(
            y_true, y_pred, self.from_logits, self.label_smoothing, self.axis
        )


class CategoricalCrossentropy(_Smoothed):
    """The loss `categorical_crossentropy`.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: move targets this far towards the uniform distribution.
        axis: of the classes.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.label_smoothing, self.axis
        )


class SparseCategoricalCrossentropy(Loss):
    """The loss `sparse_categorical_crossentropy`.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        ignore_class: a target that counts neither in the sum nor in the number of samples.
        axis: of the classes.

    Shapes: targets (batch, ...) of integers, or (batch, ..., 1); predictions (batch, ..., classes).
    """

    _takes_classes = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: Reduction | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return self._masked(y_true, y_pred)[0]

    def _masked(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor | None]:
        return sparse_and_mask(y_true, y_pred, self.from_logits, self.ignore_class, self.axis)
