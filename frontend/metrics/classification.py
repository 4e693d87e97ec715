"""Precision, recall and what they are made of, at thresholds."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from onnxtape.engine import B
from onnxtape.losses.operands import divide_no_nan
from onnxtape.metrics.confusion import LOWEST, Count, are_even, checked_thresholds, count_at
from onnxtape.metrics.metric import Metric, scalar_if_one
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class _Counts(Metric):
    """One of the four counts.

    Args:
        thresholds: a number or a list of them from 0 to 1, default 0.5; a prediction above is
            positive. A list gives one count for each.
    """

    _count: Count

    def __init__(
        self,
        thresholds: Any = None,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(dtype, name)
        self.init_thresholds = thresholds
        self.thresholds = checked_thresholds(thresholds)
        self.accumulator = self.add_variable((len(self.thresholds),), name="accumulator")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true: of the shape of the predictions; anything but 0 is positive.
            y_pred: probabilities of any shape.
            sample_weight: a number, one per sample, or of a shape that broadcasts to the
                predictions'.
        """
        count_at(
            self.thresholds,
            are_even(self.thresholds),
            {self._count: self.accumulator},
            type(self).__name__,
            y_true,
            y_pred,
            sample_weight,
        )

    def result(self) -> Tensor:
        """The count for each threshold, a scalar where there is one."""
        return scalar_if_one(self.accumulator.value, len(self.thresholds))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self.init_thresholds}


class TruePositives(_Counts):
    """How many predictions above the threshold have a positive target."""

    _count = "true_positives"


class FalsePositives(_Counts):
    """How many predictions above the threshold have a negative target."""

    _count = "false_positives"


class TrueNegatives(_Counts):
    """How many predictions not above the threshold have a negative target."""

    _count = "true_negatives"


class FalseNegatives(_Counts):
    """How many predictions not above the threshold have a positive target."""

    _count = "false_negatives"


class _Share(Metric):
    """True positives among themselves and another count."""

    _direction = "up"

    _other: Count

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(dtype, name)
        self.init_thresholds = thresholds
        self.top_k, self.class_id = top_k, class_id
        self.thresholds = checked_thresholds(thresholds, 0.5 if top_k is None else LOWEST)
        shape = (len(self.thresholds),)
        self.true_positives = self.add_variable(shape, name="true_positives")
        self._others = self.add_variable(shape, name=self._other)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true: of the shape of the predictions; anything but 0 is positive.
            y_pred: probabilities (batch, ...); with `top_k` or `class_id`, (batch, ..., classes).
            sample_weight: a number, one per sample, or of a shape that broadcasts to the
                predictions'.
        """
        count_at(
            self.thresholds,
            are_even(self.thresholds),
            {"true_positives": self.true_positives, self._other: self._others},
            type(self).__name__,
            y_true,
            y_pred,
            sample_weight,
            top_k=self.top_k,
            class_id=self.class_id,
        )

    def result(self) -> Tensor:
        """The share for each threshold, a scalar where there is one; 0 where nothing counts."""
        found = self.true_positives.value
        share = divide_no_nan(found, B.op("Add", found, self._others.value))
        return scalar_if_one(share, len(self.thresholds))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self.init_thresholds}


class Precision(_Share):
    """The share of true positives among what is predicted to be positive.

    Args:
        thresholds: a number or a list of them from 0 to 1; a prediction above is positive. Default
            0.5, or none with `top_k`. A list gives one precision for each.
        top_k: only the k largest predictions of a sample are positive.
        class_id: only this class counts.
    """

    _other = "false_positives"

    @property
    def false_positives(self) -> Variable:
        """The other variable."""
        return self._others


class Recall(_Share):
    """The share of true positives among what is positive.

    Args:
        thresholds: a number or a list of them from 0 to 1; a prediction above is positive. Default
            0.5, or none with `top_k`. A list gives one recall for each.
        top_k: only the k largest predictions of a sample are positive.
        class_id: only this class counts.
    """

    _other = "false_negatives"

    @property
    def false_negatives(self) -> Variable:
        """The other variable."""
        return self._others
