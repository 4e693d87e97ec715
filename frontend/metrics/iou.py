"""Intersection over union, from a matrix of counts of targets by predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import context, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.dtypes import FLOAT32, is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import EPSILON, aligned, same_rank
from onnxtape.metrics.metric import Metric
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor

_INT64 = np.dtype(np.int64)


class IoU(Metric):
    """The mean intersection over union of some classes: TP / (TP + FP + FN).

    Args:
        num_classes: how many classes; targets and predictions outside 0 to num_classes - 1 do not
            count.
        target_class_ids: the classes whose mean is the result; those that never occur are left out.
        dtype: of the counts, by default int64; weights are cast to it.
        ignore_class: targets of this class do not count.
        sparse_y_true: whether targets are classes, not scores of classes (one-hot, say).
        sparse_y_pred: whether predictions are classes, not scores of classes.
        axis: of the classes, where there are scores.
    """

    _direction = "up"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(dtype or "int64", name)
        wrong = [i for i in target_class_ids if not 0 <= i < num_classes]
        if wrong:
            raise ValueError(
                f"target_class_ids are from 0 to {num_classes - 1} (num_classes - 1), not {wrong}"
            )
        self.num_classes = num_classes
        self.target_class_ids = list(target_class_ids)
        self.ignore_class = ignore_class
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        self.axis = axis
        self.total_cm = self.add_variable((num_classes, num_classes), name="total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true, y_pred: classes of one shape, or scores with an axis of classes more.
            sample_weight: a number, one per sample, or of a shape that broadcasts to the classes'.
        """
        target = self._classes(y_true, self.sparse_y_true)
        pred = self._classes(y_pred, self.sparse_y_pred)
        target, pred = same_rank(target, pred)
        if not may_equal(B.shape(target), B.shape(pred)):
            raise refused(
                f"{type(self).__name__} takes targets and predictions of one shape, not "
                f"{format_shape(B.shape(target))} and {format_shape(B.shape(pred))}"
            )
        counts = self._inside(target, pred)
        weights = B.cast(counts, np.dtype(self.dtype))
        if sample_weight is not None:
            values, given = aligned(target, self._weights(sample_weight))
            given = B.reshape_like(B.expand_like(given, values), target)
            weights = B.op("Mul", weights, given)
        place = B.op("Add", B.op("Mul", target, self.num_classes), pred)
        place = B.op("Where", counts, place, 0)
        cells = self.num_classes**2
        added = B.op(
            "ScatterND",
            B.constant(np.zeros(cells, self.dtype)),
            B.op("Reshape", place, [-1, 1]),
            B.op("Reshape", weights, [-1]),
            reduction="add",
        )
        self.total_cm.assign_add(B.op("Reshape", added, [self.num_classes, self.num_classes]))

    def _classes(self, x: Any, sparse: bool) -> Tensor:
        if sparse:
            return convert_to_tensor(x, _INT64)
        return ops.argmax(x, axis=self.axis, dtype=_INT64)

    def _inside(self, target: Tensor, pred: Tensor) -> Tensor:
        """Where both are classes, and the target is not the one to ignore."""
        counts = (
            None
            if self.ignore_class is None
            else B.op("Not", B.op("Equal", target, int(self.ignore_class)))
        )
        for x in (target, pred):
            inside = B.op("And", B.op("GreaterOrEqual", x, 0), B.op("Less", x, self.num_classes))
            counts = inside if counts is None else B.op("And", counts, inside)
        assert counts is not None
        return counts

    def _weights(self, sample_weight: Any) -> Tensor:
        given = convert_to_tensor(sample_weight)
        dtype = np.dtype(self.dtype)
        if is_float(given.dtype) and not is_float(dtype):
            context.warn_user(
                f"metric '{self.name}' counts in {self.dtype}, so its weights ({given.dtype}) are "
                'cut to whole numbers; give it dtype="float32"'
            )
        return B.cast(given, dtype)

    def result(self) -> Tensor:
        """The mean over the classes that occur (float32); 0 if none does."""
        counts = self.total_cm.value
        found = B.op(
            "ReduceSum",
            B.op("Mul", counts, np.eye(self.num_classes, dtype=self.dtype)),
            [1],
            keepdims=0,
        )
        sums = B.op("Add", *(B.op("ReduceSum", counts, [a], keepdims=0) for a in (0, 1)))
        either = B.op("Sub", sums, found)
        ids = np.asarray(self.target_class_ids, np.int64)
        found, either = (B.cast(B.op("Gather", x, ids), FLOAT32) for x in (found, either))
        occurs = B.op("Greater", either, 1e-9)
        shares = B.op("Div", found, B.op("Add", either, EPSILON))
        total = ops.sum(B.op("Where", occurs, shares, 0.0))
        return B.op("Div", total, B.op("Add", ops.sum(B.cast(occurs, FLOAT32)), EPSILON))


class BinaryIoU(IoU):
    """`IoU` of two classes, where a prediction of at least `threshold` means class 1."""

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true: 0 or 1.
            y_pred: probabilities, of the same shape.
            sample_weight: a number, one per sample, or of a shape that broadcasts to the targets'.
        """
        pred = convert_to_tensor(y_pred, FLOAT32)
        super().update_state(
            y_true, B.op("GreaterOrEqual", pred, float(self.threshold)), sample_weight
        )


class MeanIoU(IoU):
    """`IoU` of all classes."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes,
            range(num_classes),
            name,
            dtype,
            ignore_class,
            sparse_y_true,
            sparse_y_pred,
            axis,
        )


class OneHotIoU(IoU):
    """`IoU` of one-hot targets, and of scores of classes unless `sparse_y_pred`."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis
        )


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of one-hot targets, and of scores of classes unless `sparse_y_pred`."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
