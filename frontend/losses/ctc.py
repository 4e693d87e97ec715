"""Connectionist temporal classification: targets without times, for predictions with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.loss import Loss, Reduction
from onnxtape.losses.operands import classes_expected, floats
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor

#: The logarithm of no probability: no infinity, whose gradient would be no number.
_NEVER = -1e30


def ctc(y_true: Any, y_pred: Any) -> Tensor:
    """-log of the probability of all ways to spread the targets over the times, in order.

    Between targets, and between equal ones always, there may be blanks (class 0). Source: Graves et
    al., Connectionist temporal classification, 2006.

    Args:
        y_true: integer classes (batch, length) from 1 on, filled up with 0 at the end.
        y_pred: logits (batch, times, classes); class 0 is the blank.

    Returns:
        One loss per sample; infinite where there are too few times for its targets.

    Raises:
        ShapeError: other shapes.
        InvalidArgumentError: a target is no class.
    """
    logits, labels = floats(y_pred), convert_to_tensor(y_true, np.dtype(np.int64))
    shape, given = B.shape(logits) or (), B.shape(labels) or ()
    if len(shape) != 3 or len(given) != 2 or not may_equal(shape[:1], given[:1]) or 0 in given[1:]:
        raise refused(
            "ctc takes targets (batch, length) and predictions (batch, times, classes), not "
            f"{format_shape(B.shape(labels))} and {format_shape(B.shape(logits))}"
        )
    # A blank before each target and after the last: the states that a way goes through.
    blanks = B.op("Mul", labels, 0)
    pairs = B.op("Reshape", ops.stack([blanks, labels], axis=2), [0, -1])
    states = B.op("Concat", pairs, _column(pairs, 0), axis=1)
    scores = _scores(logits, states)
    # Before the first time, a way can only be ahead of the first blank.
    nowhere = B.full_like(labels, _NEVER, logits.dtype)
    ahead = _column(nowhere, 0.0)
    start = B.op("Concat", ahead, nowhere, nowhere, axis=1)
    # A blank may be left out between two targets that differ.
    before = _moved(states, 2, 0)
    skips = B.op("Not", B.op("Or", B.op("Equal", states, 0), B.op("Equal", states, before)))
    barred = B.op("Where", skips, B.scalar(0.0, logits.dtype), B.scalar(_NEVER, logits.dtype))

    def step(so_far: Tensor, score: Tensor) -> tuple[Tensor, None]:
        ways = [so_far, _moved(so_far, 1, _NEVER), B.op("Add", _moved(so_far, 2, _NEVER), barred)]
        return B.op("Add", ops.logsumexp(ops.stack(ways), axis=0), score), None

    final, _ = ops.scan(step, start, scores)
    count = ops.sum(ops.cast(ops.not_equal(labels, 0), "int64"), axis=1, keepdims=True)
    # At the end: the blank after the last target, or that target.
    end = B.op("Mul", count, 2)
    after = B.op("GatherElements", final, end, axis=1)
    at = B.op("GatherElements", final, B.op("Max", B.op("Sub", end, 1), 0), axis=1)
    at = B.op("Where", B.op("Equal", count, 0), B.scalar(_NEVER, logits.dtype), at)
    total = ops.logsumexp(B.op("Concat", after, at, axis=1), axis=1)
    possible = B.op("Greater", total, 0.1 * _NEVER)
    return B.op("Where", possible, B.op("Neg", total), float("inf"))


def _scores(logits: Tensor, states: Tensor) -> Tensor:
    """The logarithms of the states' probabilities, (times, batch, states)."""
    one = B.constant(np.ones(1, np.int64))
    times = B.op("Concat", one, B.dim_tensor(logits, 1), one, axis=0)
    places = B.op("Expand", B.op("Unsqueeze", states, [1]), times)
    with classes_expected("ctc", logits, 2):
        found = B.op("GatherElements", ops.log_softmax(logits), places, axis=2)
    return B.op("Transpose", found, perm=[1, 0, 2])


def _column(like: Tensor, fill: float) -> Tensor:
    """One column of `fill`."""
    return B.full_like(B.op("Slice", like, [0], [1], [1]), fill)


def _moved(x: Tensor, places: int, fill: float) -> Tensor:
    """Columns moved to the right, and as many of `fill` in front."""
    column = _column(x, fill)
    return B.op("Slice", B.op("Concat", *[column] * places, x, axis=1), [0], [-places], [1])


class CTC(Loss):
    """The loss `ctc`; see `Loss` for the arguments."""

    _takes_classes = True

    def __init__(
        self,
        reduction: Reduction | None = "sum_over_batch_size",
        name: str | None = "ctc",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return ctc(y_true, y_pred)
