"""Scatters."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import Array, spread


def ints(numbers: Any) -> Array:
    return np.asarray(numbers, np.int64)


REDUCTIONS = ("add", "mul", "max", "min")


def _scatter_elements() -> list[Case]:
    data, updates = spread((3, 3)), spread((2, 2), -1.4, 1.55, seed=1)
    distinct, repeated = ints([[0, 1], [2, -3]]), ints([[0, 0], [1, 1]])
    cases = [
        Case("ScatterElements", [data, distinct, updates], {"axis": axis}) for axis in (0, 1, -1)
    ]
    for reduction in REDUCTIONS:
        for places, note in ((distinct, "distinct"), (repeated, "repeated")):
            attributes = {"axis": 1, "reduction": reduction}
            cases.append(Case("ScatterElements", [data, places, updates], attributes, note=note))
    return cases


def _scatter_nd() -> list[Case]:
    data = spread((3, 2, 2))
    rows, elements = ints([[2], [0]]), ints([[0, 1, 1], [2, 0, -1]])
    repeated = ints([[1], [-2]])
    slices = spread((2, 2, 2), -1.4, 1.55, seed=1)
    return [
        Case("ScatterND", [data, rows, slices], note="rows"),
        Case("ScatterND", [data, elements, spread((2,), seed=1)], note="elements"),
        *[
            Case("ScatterND", [data, places, slices], {"reduction": reduction}, note=note)
            for reduction in REDUCTIONS
            for places, note in ((rows, "distinct"), (repeated, "repeated"))
        ],
    ]


def _zeros() -> list[Case]:
    """Factors of zero: none, one and two at a place, and in the data."""
    data, places = np.asarray([2.0, 0.0, 3.0, 1.5]), [0, 0, 1, 1, 2, 2]
    updates = np.asarray([0.5, 0.0, 1.5, -2.0, 0.0, 0.0])
    attributes = {"reduction": "mul"}
    return [
        Case("ScatterElements", [data, ints(places), updates], attributes, note="zeros"),
        Case("ScatterND", [data, ints([[p] for p in places]), updates], attributes, note="zeros"),
    ]


CASES: list[Case] = [*_scatter_elements(), *_scatter_nd(), *_zeros()]
