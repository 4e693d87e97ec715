"""Losses of segmentation (how regions overlap) and of similarity between embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.loss import Loss, Reduction
from onnxtape.losses.operands import EPSILON, alike, floats
from onnxtape.ops.axes import Axis, may_equal, refused
from onnxtape.tensor import Tensor

#: So far below every distance that its exponential is 0, and yet no infinity.
_NOTHING = -1e30


def dice(y_true: Any, y_pred: Any, axis: Axis = None) -> Tensor:
    """1 - 2 sum(t p) / (sum(t) + sum(p)) over the axes, by default all.

    Source: arXiv:1606.04797.
    """
    target, pred = alike("dice", y_true, y_pred)
    both = ops.sum(B.op("Mul", target, pred), axis)
    total = B.op("Add", ops.sum(target, axis), ops.sum(pred, axis))
    shares = B.op("Div", B.op("Mul", both, 2.0), B.op("Add", total, EPSILON))
    return B.op("Sub", 1.0, shares)


def tversky(
    y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Axis = None
) -> Tensor:
    """1 - s / (s + alpha * sum(t (1 - p)) + beta * sum(p (1 - t))) with s = sum(t p).

    Source: arXiv:1706.05721. With alpha = beta = 0.5 it is `dice`.

    Args:
        alpha: the weight of what the prediction misses.
        beta: the weight of what it should not have.
        axis: of the sums, by default all.
    """
    target, pred = alike("tversky", y_true, y_pred)
    both = ops.sum(B.op("Mul", target, pred), axis)
    missed = ops.sum(B.op("Mul", target, B.op("Sub", 1.0, pred)), axis)
    wrong = ops.sum(B.op("Mul", pred, B.op("Sub", 1.0, target)), axis)
    errors = B.op("Add", B.op("Mul", missed, float(alpha)), B.op("Mul", wrong, float(beta)))
    whole = B.op("Add", B.op("Add", both, errors), EPSILON)
    return B.op("Sub", 1.0, B.op("Div", both, whole))


def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80.0,
    margin: float = 0.4,
) -> Tensor:
    """The circle loss: embeddings of one class near each other, of others far away.

    Source: arXiv:2002.10857.

    Args:
        y_true: integer classes (batch,) or (batch, 1).
        y_pred: embeddings (batch, size) of length 1.
        ref_labels, ref_embeddings: what to compare with; by default the batch itself.
        remove_diagonal: whether a sample is not compared with itself.
        gamma: scales distances.
        margin: how far classes are to be apart.

    Returns:
        One loss per sample.
    """
    pred, labels = floats(y_pred), convert_to_tensor(y_true, np.dtype(np.int32))
    others = pred if ref_embeddings is None else convert_to_tensor(ref_embeddings, pred.dtype)
    names = labels if ref_labels is None else convert_to_tensor(ref_labels, labels.dtype)
    for classes, embeddings in ((labels, pred), (names, others)):
        shape = B.shape(embeddings) or ()
        rows = shape[:1] if B.rank(classes) == 1 else (*shape[:1], 1)
        if len(shape) != 2 or not may_equal(B.shape(classes), rows):
            raise refused(
                "circle takes embeddings (batch, size) and one class for each, not "
                f"{format_shape(shape)} and {format_shape(B.shape(classes))}"
            )
    cosines = B.op("MatMul", pred, B.op("Transpose", others, perm=[1, 0]))
    distances = B.op("Relu", B.op("Sub", 1.0, cosines))
    same = B.op("Equal", B.op("Reshape", labels, [-1, 1]), B.op("Reshape", names, [1, -1]))
    apart = B.op("Not", same)
    if remove_diagonal:
        diagonal = B.op("EyeLike", B.cast(same, pred.dtype))
        same = B.op("And", same, B.op("Not", B.cast(diagonal, np.dtype(bool))))

    def total(mask: Tensor, sign: float, weights: Tensor) -> Tensor:
        # sign * gamma * weights * (delta - distances), where delta is margin or 1 - margin.
        delta = margin if sign < 0 else 1.0 - margin
        scaled = B.op("Mul", B.op("Mul", weights, sign * gamma), B.op("Sub", delta, distances))
        return ops.logsumexp(ops.where(mask, scaled, _NOTHING), axis=1)

    near = total(same, -1.0, B.op("Relu", B.op("Add", distances, margin)))
    far = total(apart, 1.0, B.op("Relu", B.op("Sub", 1.0 + margin, distances)))
    return ops.softplus(B.op("Add", near, far))


class Dice(Loss):
    """The loss `dice`.

    Args:
        axis: of the sums; by default all, which makes one loss for the batch.
    """

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "dice",
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return dice(y_true, y_pred, self.axis)


class Tversky(Loss):
    """The loss `tversky`.

    Args:
        alpha, beta: the weights of what is missed, and of what is wrong.
        axis: of the sums; by default all, which makes one loss for the batch.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "tversky",
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.alpha, self.beta, self.axis = alpha, beta, axis

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return tversky(y_true, y_pred, self.alpha, self.beta, self.axis)


class Circle(Loss):
    """The loss `circle` of a batch of embeddings; means are over the samples that have one.

    Args:
        gamma: scales distances.
        margin: how far classes are to be apart.
        remove_diagonal: whether a sample is not compared with itself.
    """

    _takes_classes = True

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "circle",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.gamma, self.margin, self.remove_diagonal = gamma, margin, remove_diagonal

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return circle(
            y_true,
            y_pred,
            remove_diagonal=self.remove_diagonal,
            gamma=self.gamma,
            margin=self.margin,
        )

    def _masked(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor | None]:
        losses = self.call(y_true, y_pred)
        return losses, B.op("Greater", losses, 0.0)
