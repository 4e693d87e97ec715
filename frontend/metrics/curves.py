"""Metrics over all thresholds: areas under curves, and one measure where another is fixed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import EPSILON, divide_no_nan
from onnxtape.metrics.confusion import are_even, checked_thresholds, count_at
from onnxtape.metrics.metric import Metric, not_updated
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor

Curve = Literal["ROC", "PR", "PRGAIN"]
Summation = Literal["interpolation", "minoring", "majoring"]


class _FourCounts(Metric):
    """The state of what needs all four counts."""

    def _add_counts(self, shape: tuple[int, ...]) -> None:
        self.true_positives = self.add_variable(shape, name="true_positives")
        self.false_positives = self.add_variable(shape, name="false_positives")
        self.true_negatives = self.add_variable(shape, name="true_negatives")
        self.false_negatives = self.add_variable(shape, name="false_negatives")

    def _count(
        self,
        thresholds: list[float],
        even: bool,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any,
        **options: Any,
    ) -> None:
        count_at(
            thresholds,
            even,
            {
                "true_positives": self.true_positives,
                "false_positives": self.false_positives,
                "true_negatives": self.true_negatives,
                "false_negatives": self.false_negatives,
            },
            type(self).__name__,
            y_true,
            y_pred,
            sample_weight,
            **options,
        )

    def _recall(self) -> Tensor:
        found = self.true_positives.value
        return divide_no_nan(found, B.op("Add", found, self.false_negatives.value))

    def _precision(self) -> Tensor:
        found = self.true_positives.value
        return divide_no_nan(found, B.op("Add", found, self.false_positives.value))

    def _specificity(self) -> Tensor:
        found = self.true_negatives.value
        return divide_no_nan(found, B.op("Add", found, self.false_positives.value))


class _Constrained(_FourCounts):
    """The best of one measure over the thresholds where another is at least a value."""

    _direction = "up"

    def __init__(
        self,
        what: str,
        value: float,
        num_thresholds: int,
        class_id: int | None,
        name: str | None,
        dtype: npt.DTypeLike | None,
    ) -> None:
        super().__init__(dtype, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{what} is from 0 to 1, not {value!r}")
        if num_thresholds < 1:
            raise ValueError(f"num_thresholds is 1 or more, not {num_thresholds!r}")
        self.value, self.num_thresholds, self.class_id = value, num_thresholds, class_id
        self.thresholds = [0.5]
        if num_thresholds > 1:
            self.thresholds = [i / (num_thresholds - 1) for i in range(num_thresholds)]
        self._add_counts((len(self.thresholds),))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true: of the shape of the predictions; anything but 0 is positive.
            y_pred: probabilities (batch, ...); with `class_id`, (batch, ..., classes).
            sample_weight: a number, one per sample, or of a shape that broadcasts to the
                predictions'.
        """
        even = self.num_thresholds > 1
        self._count(self.thresholds, even, y_true, y_pred, sample_weight, class_id=self.class_id)

    def _best(self, measure: Tensor, fixed: Tensor) -> Tensor:
        """The largest measure where the fixed one is large enough; 0 if it is nowhere."""
        feasible = B.op("GreaterOrEqual", fixed, float(self.value))
        return B.op("ReduceMax", B.op("Where", feasible, measure, 0.0), keepdims=0)


class SensitivityAtSpecificity(_Constrained):
    """The best sensitivity (recall) where the specificity is at least the given one.

    Args:
        specificity: from 0 to 1.
        num_thresholds: how many thresholds from 0 to 1 are tried.
        class_id: only this class counts.
    """

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__("specificity", specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity

    def result(self) -> Tensor:
        return self._best(self._recall(), self._specificity())


class SpecificityAtSensitivity(_Constrained):
    """The best specificity where the sensitivity (recall) is at least the given one.

    Args:
        sensitivity: from 0 to 1.
        num_thresholds: how many thresholds from 0 to 1 are tried.
        class_id: only this class counts.
    """

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__("sensitivity", sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity

    def result(self) -> Tensor:
        return self._best(self._specificity(), self._recall())


class PrecisionAtRecall(_Constrained):
    """The best precision where the recall is at least the given one.

    Args:
        recall: from 0 to 1.
        num_thresholds: how many thresholds from 0 to 1 are tried.
        class_id: only this class counts.
    """

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__("recall", recall, num_thresholds, class_id, name, dtype)
        self.recall = recall

    def result(self) -> Tensor:
        return self._best(self._precision(), self._recall())


class RecallAtPrecision(_Constrained):
    """The best recall where the precision is at least the given one.

    Args:
        precision: from 0 to 1.
        num_thresholds: how many thresholds from 0 to 1 are tried.
        class_id: only this class counts.
    """

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__("precision", precision, num_thresholds, class_id, name, dtype)
        self.precision = precision

    def result(self) -> Tensor:
        return self._best(self._recall(), self._precision())


class AUC(_FourCounts):
    """The area under a curve over thresholds, by a Riemann sum.

    Args:
        num_thresholds: how many, evenly from 0 to 1, the ends a little outside.
        curve: "ROC" (recall by false positive rate), "PR" (precision by recall) or "PRGAIN" (both
            as gains over always saying yes; Flach and Kull, Precision-recall-gain curves, 2015).
        summation_method: "interpolation" (the trapezoidal rule; for PR that of Davis and Goadrich,
            The relationship between precision-recall and ROC curves, 2006), "minoring" or
            "majoring" (the lower or higher end of each step).
        thresholds: other ones, between 0 and 1; the ends are added.
        multi_label: whether each label, along the last axis, has a curve of its own; the result is
            their mean.
        num_labels: how many labels; else the first batch tells.
        label_weights: of the labels, in their mean or (without `multi_label`) in all counts.
        from_logits: whether predictions are logits, not probabilities.
    """

    _direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: Curve = "ROC",
        summation_method: Summation = "interpolation",
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(dtype, name)
        if str(curve).upper() not in ("ROC", "PR", "PRGAIN"):
            raise ValueError(f"curve is 'ROC', 'PR' or 'PRGAIN', not {curve!r}")
        if str(summation_method).lower() not in ("interpolation", "minoring", "majoring"):
            raise ValueError(
                "summation_method is 'interpolation', 'minoring' or 'majoring', not "
                f"{summation_method!r}"
            )
        if thresholds is not None:
            inner = sorted(checked_thresholds(thresholds))
        elif num_thresholds < 2:
            raise ValueError(f"num_thresholds is 2 or more, not {num_thresholds!r}")
        else:
            inner = [i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)]
        if num_labels and not multi_label:
            raise ValueError("num_labels goes with multi_label=True")
        self.num_thresholds = len(inner) + 2
        self._even = thresholds is None or are_even([0.0, *inner, 1.0])
        self._init_thresholds = thresholds
        self.thresholds = [-EPSILON, *inner, 1.0 + EPSILON]
        self.curve = str(curve).upper()
        self.summation_method = str(summation_method).lower()
        self.multi_label, self.num_labels = multi_label, num_labels
        self.label_weights = (
            None if label_weights is None else np.asarray(label_weights, self.dtype)
        )
        self.from_logits = from_logits
        self._built = False
        if not multi_label:
            self._build((self.num_thresholds,))
        elif num_labels:
            self._build((self.num_thresholds, num_labels))

    def _build(self, shape: tuple[int, ...]) -> None:
        self._add_counts(shape)
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true: of the shape of the predictions; anything but 0 is positive.
            y_pred: probabilities, or logits; (batch, labels) with `multi_label`.
            sample_weight: a number, one per sample, or of a shape that broadcasts to the
                predictions'.
        """
        pred = convert_to_tensor(y_pred, self.dtype)
        if self.multi_label:
            self._check_labels(pred)
        if self.from_logits:
            pred = ops.sigmoid(pred)
        weights = None
        if self.label_weights is not None and not self.multi_label:
            weights = B.constant(self.label_weights)
        self._count(
            self.thresholds,
            self._even,
            y_true,
            pred,
            sample_weight,
            by_label=self.multi_label,
            label_weights=weights,
        )

    def _check_labels(self, pred: Tensor) -> None:
        shape = B.shape(pred) or ()
        labels = shape[-1] if len(shape) == 2 else None
        if not isinstance(labels, int):
            raise refused(
                "AUC with multi_label=True takes predictions (batch, labels) with a known number "
                f"of labels, not of shape {format_shape(B.shape(pred))}"
            )
        if not self._built:
            self._build((self.num_thresholds, labels))
        if not may_equal(self.true_positives.shape[1:], (labels,)):
            raise refused(
                f"AUC counts {self.true_positives.shape[1]} labels, but the predictions "
                f"{format_shape(shape)} have {labels}"
            )

    def result(self) -> Tensor:
        """The area, a scalar; 0 before the first update.

        Raises:
            ValueError: before the first update, with `multi_label` and without `num_labels`.
        """
        if not self._built:
            raise not_updated(self)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._over_labels(self._interpolated())
        x, y = self._coordinates()
        left, right = self._ends(y)
        if self.summation_method == "interpolation":
            heights = B.op("Div", B.op("Add", left, right), 2.0)
        else:
            lower = self.summation_method == "minoring"
            heights = B.op("Min" if lower else "Max", left, right)
        return self._over_labels(B.op("Mul", ops.subtract(*self._ends(x)), heights))

    def _coordinates(self) -> tuple[Tensor, Tensor]:
        """The points of the curve."""
        if self.curve == "ROC":
            wrong = self.false_positives.value
            return divide_no_nan(wrong, B.op("Add", wrong, self.true_negatives.value)), (
                self._recall()
            )
        if self.curve == "PR":
            return self._recall(), self._precision()
        found = self.true_positives.value
        positives = B.op("Add", found, self.false_negatives.value)
        negatives = B.op("Add", self.true_negatives.value, self.false_positives.value)
        scale = divide_no_nan(positives, negatives)
        none = B.op("Equal", found, 0.0)
        gains = []
        for other, without in ((self.false_negatives, 0.0), (self.false_positives, 1.0)):
            gain = B.op("Sub", 1.0, B.op("Mul", scale, divide_no_nan(other.value, found)))
            gains.append(B.op("Where", none, B.scalar(without, gain.dtype), gain))
        return B.op("Relu", gains[0]), gains[1]

    def _interpolated(self) -> Tensor:
        """The area under the PR curve between thresholds, where both counts grow linearly."""
        found = self.true_positives.value
        predicted = B.op("Add", found, self.false_positives.value)
        more, fewer = self._ends(found)
        above, below = self._ends(predicted)
        steps = B.op("Sub", more, fewer)
        slope = divide_no_nan(steps, B.op("Relu", B.op("Sub", above, below)))
        intercept = B.op("Sub", fewer, B.op("Mul", slope, below))
        both = B.op("And", B.op("Greater", above, 0.0), B.op("Greater", below, 0.0))
        ratio = B.op("Where", both, divide_no_nan(above, B.op("Relu", below)), 1.0)
        area = B.op("Mul", slope, B.op("Add", steps, B.op("Mul", intercept, ops.log(ratio))))
        _, missed = self._ends(self.false_negatives.value)
        return divide_no_nan(area, B.op("Relu", B.op("Add", fewer, missed)))

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values at the lower and at the higher threshold of each step."""
        count = self.num_thresholds
        return B.op("Slice", x, [0], [count - 1], [0]), B.op("Slice", x, [1], [count], [0])

    def _over_labels(self, terms: Tensor) -> Tensor:
        areas = ops.sum(terms, axis=0)
        if not self.multi_label:
            return areas
        if self.label_weights is None:
            return ops.mean(areas)
        weights = B.constant(self.label_weights)
        return divide_no_nan(ops.sum(B.op("Mul", areas, weights)), ops.sum(weights))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self._init_thresholds}
