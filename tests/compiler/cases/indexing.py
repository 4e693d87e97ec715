"""Gathers, scatters and selections."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import Array, spread


def ints(numbers: Any) -> Array:
    return np.asarray(numbers, np.int64)


#: A scalar; a vector with a repeated and a negative index; a matrix.
GATHERED: list[Any] = [1, -1, [0, 1, 0], [1, -1], [[0, 1], [1, 1]], [[0], [-2]]]


def _gather() -> list[Case]:
    return [
        Case("Gather", [spread((3, 2, 4)), ints(i)], {"axis": axis}, note=f"at={i}")
        for axis, i in product((0, 1, 2, -1, -3), GATHERED)
    ]


def _gather_elements() -> list[Case]:
    places = ints([[0, 2], [-1, 0], [0, 0]])
    return [
        Case("GatherElements", [spread((3, 2)), places], {"axis": 0}),
        Case("GatherElements", [spread((3, 3)), places], {"axis": 1}),
        Case("GatherElements", [spread((3, 3)), places], {"axis": -1}),
        Case("GatherElements", [spread((3, 2)), places], note="default axis"),
    ]


def _gather_nd() -> list[Case]:
    x = spread((2, 3, 4))
    return [
        Case("GatherND", [x, ints([[0, 1], [1, -1], [0, 1]])], note="rows, one twice"),
        Case("GatherND", [x, ints([[0, 1, 2], [1, 0, 3]])], note="elements"),
        Case("GatherND", [x, ints([[[1]], [[0]]])], note="slices"),
        Case("GatherND", [x, ints([[[1], [2]], [[0], [0]]])], {"batch_dims": 1}),
        Case("GatherND", [x, ints([[1, 3], [2, 0]])], {"batch_dims": 1}),
        Case("GatherND", [x, ints([[[1], [0], [2]], [[3], [0], [1]]])], {"batch_dims": 2}),
    ]


def _scatter_elements() -> list[Case]:
    data, updates = spread((3, 3)), spread((2, 2), seed=1)
    distinct, repeated = ints([[0, 1], [2, -3]]), ints([[0, 0], [1, 1]])
    cases = [
        Case("ScatterElements", [data, distinct, updates], {"axis": axis}) for axis in (0, 1, -1)
    ]
    for places, note in ((distinct, "distinct"), (repeated, "repeated")):
        attributes = {"axis": 1, "reduction": "add"}
        cases.append(Case("ScatterElements", [data, places, updates], attributes, note=note))
    return cases


def _scatter_nd() -> list[Case]:
    data = spread((3, 2, 2))
    rows, elements = ints([[2], [0]]), ints([[0, 1, 1], [2, 0, -1]])
    repeated = ints([[1], [1]])
    return [
        Case("ScatterND", [data, rows, spread((2, 2, 2), seed=1)], note="rows"),
        Case("ScatterND", [data, elements, spread((2,), seed=1)], note="elements"),
        Case("ScatterND", [data, rows, spread((2, 2, 2), seed=1)], {"reduction": "add"}),
        Case(
            "ScatterND",
            [data, repeated, spread((2, 2, 2), seed=1)],
            {"reduction": "add"},
            note="repeated",
        ),
    ]


def _one_hot() -> list[Case]:
    values = np.asarray([-0.5, 1.5])
    return [
        Case("OneHot", [ints(i), ints(depth), values], attributes, note=f"{i}")
        for i, depth, attributes in [
            ([0, 2, 1], 3, {}),
            ([0, -1, 5], 3, {}),
            ([[0, 1], [1, 1]], 2, {"axis": 0}),
            ([[0, 1], [1, 1]], 2, {"axis": -2}),
        ]
    ]


def _top_k() -> list[Case]:
    return [
        Case(
            "TopK",
            [spread((3, 4)), ints([k])],
            {"axis": axis, "largest": largest},
            outputs=2,
            note=f"k={k}",
        )
        for k, axis, largest in product((1, 2), (0, 1, -1), (0, 1))
    ]


CASES: list[Case] = [
    *_gather(),
    *_gather_elements(),
    *_gather_nd(),
    *_scatter_elements(),
    *_scatter_nd(),
    *_one_hot(),
    *_top_k(),
]
