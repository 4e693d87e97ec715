"""Gathers and selections."""

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
    ] + [
        Case("Gather", [spread((3, 2)), np.asarray([1, 0, 1], np.int32)], {"axis": axis}, note="32")
        for axis in (0, 1)
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


def _compress() -> list[Case]:
    x, condition = spread((3, 4)), np.asarray([True, False, True])
    return [
        *[Case("Compress", [x, condition], {"axis": axis}) for axis in (0, 1, -1)],
        Case("Compress", [x, np.asarray([False, True, True, False, True])], note="flat"),
        Case("Compress", [x, np.asarray([False, False])], {"axis": 0}, note="nothing"),
    ]


def _unique() -> list[Case]:
    """Equal elements would part when one of them is moved: they are in `test_conventions.py`."""
    x = spread((3, 4))
    return [
        *[Case("Unique", [x], {"sorted": sorted_}, outputs=2) for sorted_ in (0, 1)],
        Case("Unique", [x]),
        *[Case("Unique", [x], {"axis": axis}, outputs=4) for axis in (0, 1, -1)],
        Case("Unique", [spread((2, 2, 3))], {"axis": 1}),
    ]


CASES: list[Case] = [
    *_gather(),
    *_gather_elements(),
    *_gather_nd(),
    *_one_hot(),
    *_top_k(),
    *_compress(),
    *_unique(),
]
