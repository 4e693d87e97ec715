"""Losses of maximum-margin classification."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from onnxtape import ops
from onnxtape.engine import B
from onnxtape.losses.loss import Loss, Reduction
from onnxtape.losses.operands import alike, paired
from onnxtape.tensor import Tensor


def _signs(target: Tensor) -> Tensor:
    """Targets that are all 0 or 1 as -1 and 1; others as they are."""
    off = B.op("ReduceL1", B.op("Mul", target, B.op("Sub", target, 1.0)), keepdims=0)
    binary = B.cast(B.op("Equal", off, 0.0), target.dtype)
    return B.op("Sub", B.op("Mul", target, B.op("Add", binary, 1.0)), binary)


def _margins(what: str, y_true: Any, y_pred: Any) -> Tensor:
    target, pred = paired(what, y_true, y_pred)
    return B.op("Relu", B.op("Sub", 1.0, B.op("Mul", _signs(target), pred)))


def hinge(y_true: Any, y_pred: Any) -> Tensor:
    """mean(max(1 - y_true * y_pred, 0)) over the last axis.

    Args:
        y_true: -1 or 1; where all are 0 or 1, 0 counts as -1.
    """
    return ops.mean(_margins("hinge", y_true, y_pred), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """mean(max(1 - y_true * y_pred, 0)^2) over the last axis; targets as for `hinge`."""
    return ops.mean(ops.square(_margins("squared_hinge", y_true, y_pred)), axis=-1)


def categorical_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """max(1 + max((1 - y_true) * y_pred) - sum(y_true * y_pred), 0) over the last axis.

    Args:
        y_true: 1 for the class, else 0.
    """
    target, pred = alike("categorical_hinge", y_true, y_pred)
    right = ops.sum(B.op("Mul", target, pred), axis=-1)
    wrong = ops.max(B.op("Mul", B.op("Sub", 1.0, target), pred), axis=-1)
    return B.op("Relu", B.op("Add", B.op("Sub", wrong, right), 1.0))


class Hinge(Loss):
    """The loss `hinge`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "hinge",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return hinge(y_true, y_pred)


class SquaredHinge(Loss):
    """The loss `squared_hinge`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "squared_hinge",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return squared_hinge(y_true, y_pred)


class CategoricalHinge(Loss):
    """The loss `categorical_hinge`; see `Loss` for the arguments."""

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "categorical_hinge",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return categorical_hinge(y_true, y_pred)
