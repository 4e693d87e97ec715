"""Cases of `ops.sorting` and `ops.segments`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import (
    Case,
    booleans,
    few_compiled,
    fixed,
    given,
    integers,
    sample,
)

X = given(sample((3, 4)), "float32")


def _stable(x: Any, axis: Any = -1) -> Any:
    return np.argsort(x, axis, kind="stable")


def sorting() -> Iterator[Case]:
    for axis in (-1, 0, None):
        yield Case("sort", [X], np.sort, {"axis": axis}, gradient=True)
        yield Case("argsort", [X], _stable, {"axis": axis}, dtype="int32")
    ties = given([[2, 1, 2, 1, 1], [0, 3, 0, 3, 3]], "int32")
    for dtype in ("int32", "int64", "uint8", "float16", "float64", "bool"):
        yield Case("argsort", [given(ties.array, dtype)], _stable, dtype="int32")
        yield Case("sort", [given(ties.array, dtype)], np.sort)
    odd = given([3.0, np.nan, -np.inf, 1.0, np.nan], "float32")
    yield Case("sort", [odd], np.sort, note="NaN")
    yield Case("sort", [fixed(2.0, "float32")], lambda x: x)
    yield Case("argsort", [fixed(2.0, "float32")], lambda x: 0, dtype="int32")
    # Any order with the right elements on either side would do: this one is sorted.
    yield Case("argpartition", [X, 2], lambda x, k: np.argsort(x), dtype="int32")
    yield Case("argpartition", [X, 1, 0], lambda x, k, axis: np.argsort(x, axis), dtype="int32")


def searching() -> Iterator[Case]:
    row = fixed([-1.0, 0.5, 0.5, 2.0, 7.0], "float32")
    values = given([[0.5, -2.0, 0.6], [9.0, 7.0, 2.0]], "float32")
    for side in ("left", "right"):
        yield Case("searchsorted", [row, values], np.searchsorted, {"side": side}, dtype="int32")
    growing = given([1, 3, 5, 1000], "int32")
    yield Case("searchsorted", [fixed([1, 3, 5]), given([0, 3, 9])], np.searchsorted, dtype="int32")
    yield Case("searchsorted", [fixed([1.0], "float32"), 2.5], np.searchsorted, dtype="int32")
    empty = fixed(np.zeros(0), "float32")
    yield Case("searchsorted", [empty, values], np.searchsorted, dtype="int32")
    yield Case("digitize", [values, row], np.digitize, dtype="int32")
    yield Case("digitize", [growing, [0, 4, 10]], np.digitize, dtype="int32")
    scores = given([[0.1, 0.5, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1]], "float32")

    def among(targets: Any, scores: Any, k: int) -> Any:
        least = np.sort(scores, -1)[:, -k]
        return scores[np.arange(len(scores)), targets] >= least

    for k in (1, 2, 3):
        yield Case("in_top_k", [given([1, 2], "int32"), scores, k], among, dtype="bool")
    yield Case("nonzero", [given([0.0, 2.0, 0.0, -1.0], "float32")], _nonzero, dtype="int32")
    yield Case("nonzero", [given(booleans((3, 4)))], _nonzero, dtype="int32")


def _nonzero(x: Any) -> list[Any]:
    return list(np.nonzero(x))


def counting() -> Iterator[Case]:
    x = given([1, 5, 1, 0, 3], "int32")
    for minlength in (0, 3, 8):
        yield Case(
            "bincount",
            [x],
            lambda x, minlength: np.bincount(x, None, minlength),
            {"minlength": minlength},
        )
    weights = given(sample((5,)), "float32")
    yield Case("bincount", [x, weights], np.bincount, dtype="float32", gradient=True)
    rows = given([[0, 1, 1], [2, 2, 2]], "int64")

    def by_row(x: Any) -> Any:
        return np.stack([np.bincount(row, minlength=x.max() + 1) for row in x])

    yield Case("bincount", [rows], by_row, dtype="int32")
    yield Case("bincount", [fixed(np.zeros(0), "int32")], np.bincount)

    def histogram(x: Any, bins: int = 10, range: Any = None) -> list[Any]:
        return list(np.histogram(x, bins, range))

    numbers = given([0.0, 1.0, 1.0, 2.25, 4.0, 4.0, 3.9, -1.0], "float32")
    both = ("int32", "float32")
    yield Case("histogram", [numbers], histogram, dtype=both)
    yield Case("histogram", [numbers], histogram, {"bins": 4, "range": (0.0, 4.0)}, dtype=both)
    yield Case("histogram", [given([2, 2], "int32"), 3], histogram, dtype=both)


def _unique(x: Any, **options: Any) -> Any:
    found = np.unique(x, **options)
    if not isinstance(found, tuple):
        return found
    values, *others = found
    if options.get("return_inverse") and options.get("axis") is None:
        place = 1 if options.get("return_index") else 0
        others[place] = others[place].reshape(x.shape)
    return [values, *others]


def unique() -> Iterator[Case]:
    x = given([[3, 1, 3], [0, 1, 7]], "int32")
    yield Case("unique", [x], _unique)
    options = {"return_index": True, "return_inverse": True, "return_counts": True}
    yield Case("unique", [x], _unique, options)
    yield Case("unique", [given([[1, 2], [1, 2], [0, 5]], "int32")], _unique, {"axis": 0})
    for dtype in ("float32", "float64", "int64", "uint8", "bool"):
        yield Case("unique", [given([3, 0, 3, 1], dtype)], _unique)
    yield Case("unique", [x], lambda x, size: np.unique(x)[:size], {"size": 2})
    yield Case(
        "unique",
        [x],
        lambda x, size, fill_value: np.append(np.unique(x), [9, 9]),
        {"size": 6, "fill_value": 9},
    )
    yield Case("unique", [x], lambda x, sorted: np.array([3, 1, 0, 7]), {"sorted": False})


def _segments(reduce: Any, neutral: Any) -> Any:
    def oracle(data: Any, ids: Any, num_segments: Any = None) -> Any:
        count = (ids.max(initial=-1) + 1) if num_segments is None else num_segments
        shape = (count, *data.shape[1:])
        start = neutral(data.dtype) if callable(neutral) else neutral
        found = np.full(shape, start, data.dtype)
        inside = (ids >= 0) & (ids < count)
        reduce.at(found, ids[inside], data[inside])
        return found

    return oracle


def segments() -> Iterator[Case]:
    def least(dtype: Any) -> Any:
        return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min

    def most(dtype: Any) -> Any:
        return np.inf if dtype.kind == "f" else np.iinfo(dtype).max

    for name, oracle in (
        ("segment_sum", _segments(np.add, 0)),
        ("segment_prod", _segments(np.multiply, 1)),
        ("segment_max", _segments(np.maximum, least)),
        ("segment_min", _segments(np.minimum, most)),
    ):
        data = given(sample((5, 2)), "float32")
        ids = given([0, 2, 0, 2, 1], "int32")
        yield Case(name, [data, ids], oracle, gradient=True)
        # Number 1 is empty; others are out of range.
        outside = given([0, 2, 9, -1, 0], "int64")
        yield Case(name, [data, outside], oracle, {"num_segments": 4}, note="outside")
        for dtype in ("int32", "int64", "float64"):
            values = given(integers((5,)), dtype)
            yield Case(name, [values, ids], oracle, {"num_segments": 3})

    def scattered(indices: Any, values: Any, shape: Any) -> Any:
        found = np.zeros(shape, values.dtype)
        np.add.at(found, tuple(np.moveaxis(np.asarray(indices), -1, 0)), values)
        return found

    values = given(sample((3,)), "float32")
    places = given([[0, 1], [3, 2], [0, 1]], "int32")
    yield Case("scatter", [places, values, (4, 3)], scattered, dtype="float32", gradient=True)
    rows = [[[1], [0]], fixed(integers((2, 3)), "int32"), (4, 3)]
    yield Case("scatter", rows, scattered, dtype="int32")


CASES = few_compiled([*sorting(), *searching(), *counting(), *unique(), *segments()])
