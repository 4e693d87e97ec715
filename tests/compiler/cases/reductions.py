"""Reductions, cumulative sums and products."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import spread

#: Ranges in which the reduction is differentiable.
RANGES = {
    "ReduceSum": (-2, 2),
    "ReduceMean": (-2, 2),
    "ReduceMax": (-2, 2),
    "ReduceMin": (-2, 2),
    "ReduceProd": (-1.4, 1.5),
    "ReduceL1": (-2, 2.1),
    "ReduceL2": (-2, 2),
    "ReduceSumSquare": (-2, 2),
    "ReduceLogSum": (0.3, 2),
    "ReduceLogSumExp": (-2, 2),
}

#: None: omitted. Empty axes mean all of them, unless `noop_with_empty_axes` says none.
AXES: list[list[int] | None] = [None, [0], [1], [-1], [0, 2], [2, 0], [0, 1, 2], []]


def _cases() -> list[Case]:
    cases = []
    for (op, (low, high)), axes, keepdims in product(RANGES.items(), AXES, (0, 1)):
        x = spread((2, 3, 2), low, high)
        inputs: list[Any] = [x] if axes is None else [x, np.asarray(axes, np.int64)]
        note = f"axes={axes}".replace(" ", "")
        cases.append(Case(op, inputs, {"keepdims": keepdims}, note=note))
        if not axes or op in ("ReduceSum", "ReduceMax"):
            attributes = {"keepdims": keepdims, "noop_with_empty_axes": 1}
            cases.append(Case(op, inputs, attributes, note=note))
    return cases


#: No, one, two and three zeros among the factors of a row.
FACTORS = np.asarray([[0.5, -2.0, 1.5], [0.5, 0.0, 1.5], [0.0, -2.0, 0.0], [0.0, 0.0, 0.0]])


def _prod() -> list[Case]:
    cases = [
        Case(
            "ReduceProd",
            [FACTORS, *axes],
            {"keepdims": keepdims},
            note=f"zeros, axes={[a.tolist() for a in axes]}",
        )
        for axes in ([], [np.asarray([0])], [np.asarray([1])])
        for keepdims in (0, 1)
    ]
    cases += [
        Case("ReduceProd", [spread(shape, -1.4, 1.5), np.asarray([0])], note="of many or few")
        for shape in [(7, 2), (8, 1), (1, 3), (0, 2), (2, 0)]
    ]
    return cases


def _cumprod() -> list[Case]:
    directions = list(product((0, 1), (0, 1)))
    cases = [
        Case(
            "CumProd",
            [x, np.asarray(axis)],
            {"exclusive": exclusive, "reverse": reverse},
            note=f"axis={axis}",
            opset=26,
        )
        for x, axis in ((spread((3, 4)), 0), (spread((3, 4)), -1), (FACTORS, 1))
        for exclusive, reverse in directions
    ]
    cases += [
        Case("CumProd", [spread(s), np.asarray(0)], note="axis=0", opset=26)
        for s in [(1,), (9, 2), (0, 2)]
    ]
    return cases


CASES: list[Case] = [
    *_cases(),
    *_prod(),
    *_cumprod(),
    *[Case(op, [spread((), low, high)], note="scalar") for op, (low, high) in RANGES.items()],
    *[
        Case(op, [spread((0, 3)), np.asarray([0])], note="empty")
        for op in ("ReduceSum", "ReduceL1")
    ],
    *[
        Case("ReduceMean", [spread((0, 3)), np.asarray([1])], {"keepdims": k}, note="empty batch")
        for k in (0, 1)
    ],
    *[
        Case(
            "CumSum",
            [spread((3, 4)), np.asarray(axis)],
            {"exclusive": exclusive, "reverse": reverse},
            note=f"axis={axis}",
        )
        for axis, exclusive, reverse in product((0, 1, -1), (0, 1), (0, 1))
    ],
]
