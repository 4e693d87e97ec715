"""Softmax and the cross-entropy losses."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import spread

WEIGHTS = np.asarray([0.5, 2.0, 1.0, 0.7])

#: Shapes of the targets; the class axis of 4 comes second in the scores.
TARGETS: list[Any] = [
    np.asarray([0, 3, 1], np.int64),
    np.asarray([[1, 1], [3, 0], [0, 2]], np.int64),
    np.asarray([[[1], [2]], [[3], [0]]], np.int64),
]


def _losses() -> list[Case]:
    """Everything with everything for vectors of targets, the hardest for those of higher rank."""
    hardest = product((True,), ("mean", "sum", "none"), (1, -7))
    everything = product((False, True), ("mean", "sum", "none"), (None, 1, -7))
    wanted = [(TARGETS[0], *options) for options in everything]
    wanted += [(target, *options) for options in hardest for target in TARGETS[1:]]
    cases = []
    for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        for target, weighted, reduction, ignore_index in wanted:
            labels = np.where(target == 1, -7, target) if ignore_index == -7 else target
            scores = spread((labels.shape[0], 4, *labels.shape[1:]))
            attributes: dict[str, Any] = {"reduction": reduction}
            if ignore_index is not None:
                attributes["ignore_index"] = ignore_index
            inputs = [scores, labels, WEIGHTS] if weighted else [scores, labels]
            cases.append(Case(op, inputs, attributes))
            if op == "SoftmaxCrossEntropyLoss" and weighted:
                cases.append(Case(op, inputs, attributes, outputs=2))
    return cases


CASES: list[Case] = [
    *[
        Case(op, [spread((2, 3, 4))], {"axis": axis})
        for op, axis in product(("Softmax", "LogSoftmax"), (0, 1, 2, -1, -2))
    ],
    Case("Softmax", [spread((2, 3))]),
    Case("LogSoftmax", [spread((2, 3))]),
    *_losses(),
    Case(
        "SoftmaxCrossEntropyLoss",
        [spread((3, 4)), TARGETS[0], Fixed(WEIGHTS)],
        note="fixed weights",
    ),
]
