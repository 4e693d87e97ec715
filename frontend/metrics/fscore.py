"""F scores: harmonic means of precision and recall."""

from __future__ import annotations

from typing import Any, Literal

import numpy.typing as npt

from onnxtape import ops
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import EPSILON, aligned, alike
from onnxtape.metrics.metric import Metric, not_updated
from onnxtape.metrics.scores import require_matrix
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

Average = Literal["micro", "macro", "weighted"]


class FBetaScore(Metric):
    """(1 + beta^2) precision recall / (beta^2 precision + recall), per class.

    Args:
        average: how classes become one number: "micro" (all counts together), "macro" (the mean of
            their scores) or "weighted" (by how often they occur); None: one score per class.
        beta: how much more recall counts than precision, positive.
        threshold: above it a prediction is positive; None: the largest of each sample is.
    """

    _direction = "up"

    def __init__(
        self,
        average: Average | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(dtype, name)
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(f"average is None, 'micro', 'macro' or 'weighted', not {average!r}")
        if not beta > 0:
            raise ValueError(f"beta is positive, not {beta!r}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"threshold is above 0 and up to 1, not {threshold!r}")
        self.average, self.beta, self.threshold = average, beta, threshold
        self._built = False

    def _build(self, classes: Any) -> None:
        shape = () if self.average == "micro" else (classes,)
        self.true_positives = self.add_variable(shape, name="true_positives")
        self.false_positives = self.add_variable(shape, name="false_positives")
        self.false_negatives = self.add_variable(shape, name="false_negatives")
        self.intermediate_weights = self.add_variable(shape, name="intermediate_weights")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Args:
            y_true: 0 or 1, (batch, classes).
            y_pred: probabilities, (batch, classes).
            sample_weight: a number, or one per sample.
        """
        target, pred = alike(type(self).__name__, y_true, y_pred, self.dtype)
        require_matrix(type(self).__name__, pred)
        if not self._built:
            self._build(B.dim(pred, 1))
        if self.threshold is None:
            largest = B.op("ReduceMax", pred, [1], keepdims=1)
            some = B.op("Greater", B.op("Abs", pred), 1e-9)
            chosen = B.op("And", B.op("GreaterOrEqual", pred, largest), some)
        else:
            chosen = B.op("Greater", pred, float(self.threshold))
        positive = B.cast(chosen, pred.dtype)
        weights = None
        if sample_weight is not None:
            weights = aligned(target, convert_to_tensor(sample_weight, pred.dtype))[1]
        self._add(self.true_positives, B.op("Mul", positive, target), weights)
        self._add(self.false_positives, B.op("Mul", positive, B.op("Sub", 1.0, target)), weights)
        self._add(self.false_negatives, B.op("Mul", B.op("Sub", 1.0, positive), target), weights)
        self._add(self.intermediate_weights, target, weights)

    def _add(self, variable: Variable, counts: Tensor, weights: Tensor | None) -> None:
        if weights is not None:
            counts = B.op("Mul", counts, weights)
        variable.assign_add(ops.sum(counts, axis=None if self.average == "micro" else 0))

    def result(self) -> Tensor:
        """The score of each class, or their average.

        Raises:
            ValueError: before the first update.
        """
        if not self._built:
            raise not_updated(self)
        found = self.true_positives.value
        predicted = B.op("Add", found, self.false_positives.value)
        positives = B.op("Add", found, self.false_negatives.value)
        precision, recall = (
            B.op("Div", found, B.op("Add", all_, EPSILON)) for all_ in (predicted, positives)
        )
        square = float(self.beta) ** 2
        weighted = B.op("Add", B.op("Mul", precision, square), recall)
        product = B.op("Mul", precision, recall)
        score = B.op("Mul", B.op("Div", product, B.op("Add", weighted, EPSILON)), 1.0 + square)
        if self.average == "weighted":
            times = self.intermediate_weights.value
            shares = B.op("Div", times, B.op("Add", ops.sum(times), EPSILON))
            return ops.sum(B.op("Mul", score, shares))
        return score if self.average is None else ops.mean(score)


class F1Score(FBetaScore):
    """`FBetaScore` with beta = 1: the harmonic mean of precision and recall.

    Args:
        average: how classes become one number: "micro" (all counts together), "macro" (the mean of
            their scores) or "weighted" (by how often they occur); None: one score per class.
        threshold: above it a prediction is positive; None: the largest of each sample is.
    """

    def __init__(
        self,
        average: Average | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)
