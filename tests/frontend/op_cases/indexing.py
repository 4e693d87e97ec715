"""Cases of `ops.indexing`; `x[...]` itself has a file of its own, test_ops_getitem.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, fixed, given, integers, sample

X = given(sample((3, 4, 2)), "float32")


def _take(x: Any, indices: Any, axis: int | None = None) -> Any:
    return np.take(x, indices, axis)


def take() -> Iterator[Case]:
    for axis in (0, 1, 2, -1, -2):
        for indices in (1, [0, 1, 0], [[1, 0], [-1, -2]]):
            yield Case(
                "take", [X, indices], _take, {"axis": axis}, gradient=True, note=str(indices)
            )
    yield Case("take", [X, given([5, 0, 5], "int32")], _take, gradient=True, note="flat")
    yield Case(
        "take",
        [fixed(X.array, "float32"), given([2, 0], "int64")],
        _take,
        {"axis": 0},
        dtype="float32",
        gradient=True,
        note="tensor",
    )
    yield Case("take", [X, np.zeros((0,), np.int64)], _take, {"axis": 1}, note="none")
    for dtype in ("float16", "float64", "int32", "int64", "bool", "uint8"):
        yield Case("take", [given(integers((3, 2)), dtype), [1, 0]], _take, {"axis": 1})


def take_along_axis() -> Iterator[Case]:
    x = given(sample((3, 4)), "float32")
    oracle = np.take_along_axis
    order = given(np.argsort(x.array, axis=1), "int64")
    yield Case("take_along_axis", [x, order, 1], oracle, gradient=True)
    yield Case("take_along_axis", [x, order, -1], oracle, gradient=True)
    yield Case("take_along_axis", [x, given([[0], [-1], [1]], "int32"), 1], oracle, gradient=True)
    yield Case(
        "take_along_axis",
        [x, fixed([[0, 2]], "int64"), 1],
        oracle,
        gradient=True,
        note="indices broadcast",
    )
    one = fixed(sample((1, 4)), "float32")
    yield Case(
        "take_along_axis",
        [one, given([[0], [3], [2]], "int64"), 1],
        oracle,
        gradient=True,
        note="tensor broadcast",
    )
    yield Case(
        "take_along_axis",
        [fixed(x.array, "float32"), fixed([[0, 1, 2, 0]], "int64"), 0],
        oracle,
        gradient=True,
    )
    yield Case(
        "take_along_axis",
        [fixed(x.array, "float32"), given([3, 7], "int64"), None],
        oracle,
        dtype="float32",
        note="flat",
    )


def _scatter_update(x: Any, indices: Any, updates: Any) -> Any:
    result = np.array(x)
    result[tuple(np.moveaxis(np.asarray(indices), -1, 0))] = updates
    return result


def scatter_update() -> Iterator[Case]:
    x = fixed(sample((4, 3)), "float32")
    rows = [x, given([[0], [2]], "int64"), given(sample((2, 3), seed=1), "float32")]
    yield Case(
        "scatter_update", [x, [[0, 1], [3, 2]], [10.0, 20.0]], _scatter_update, gradient=True
    )
    fixed_rows = [x, fixed([[0], [2]], "int64"), fixed(sample((2, 3), seed=1), "float32")]
    yield Case("scatter_update", fixed_rows, _scatter_update, gradient=True)
    # One more row than rows that are named would be given twice: the first row is repeated.
    yield Case("scatter_update", rows, _scatter_update, note="batch")
    yield Case(
        "scatter_update",
        [given([1, 2, 3], "int32"), [[-1]], [9.7]],
        lambda x, i, u: _scatter_update(x, i, [9]),
        note="in the inputs' dtype",
    )


def getitem() -> Iterator[Case]:
    key = (slice(None), slice(3, 0, -2), None, -1)
    for name in ("getitem", "get_item"):
        yield Case(name, [X, key], lambda x, key: x[key], gradient=True)


CASES = [*take(), *take_along_axis(), *scatter_update(), *getitem()]
