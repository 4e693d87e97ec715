"""Cases of `ops.logic`."""

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

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
LOGICAL = ("logical_and", "logical_or", "logical_xor")
BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor")


def comparisons() -> Iterator[Case]:
    for name in COMPARISONS:
        oracle = getattr(np, name)
        for dtype in ("float32", "float16", "float64", "int8", "int32", "int64", "uint8"):
            x, y = np.array([[1, 2, 3], [3, 1, 2]]), np.array([2, 2, 2])
            yield Case(name, [given(x, dtype), fixed(y, dtype)], oracle, dtype="bool")
        yield Case(name, [given([1, 2, 3], "int32"), 2], oracle, dtype="bool", note="number")
        yield Case(name, [given([1, 2, 3], "int32"), 2.5], oracle, dtype="bool", note="number")
        yield Case(name, [given(booleans((4,))), given(booleans((4,), seed=1))], oracle)
        yield Case(name, [given(np.zeros((0, 2)), "float32"), 1.0], oracle, dtype="bool")
        yield Case(name, [fixed(1.0, "float32"), fixed(2.0, "float32")], oracle, dtype="bool")
        nan = given([np.nan, 1.0, np.inf], "float32")
        yield Case(name, [nan, given([np.nan, np.nan, np.inf], "float32")], oracle, dtype="bool")


def logic() -> Iterator[Case]:
    x, y = given(booleans((3, 4))), fixed(booleans((4,), seed=1))
    for name in LOGICAL:
        yield Case(name, [x, y], getattr(np, name))
        yield Case(name, [x, True], getattr(np, name), note="number")
        numbers = [given([0.0, 0.3, -2.0], "float32"), given([0, 0, 7], "int64")]
        yield Case(name, numbers, getattr(np, name), dtype="bool")
    yield Case("logical_not", [x], np.logical_not)
    yield Case("logical_not", [given([0.0, 2.0, np.nan], "float32")], np.logical_not, dtype="bool")
    for name in BITWISE:
        yield Case(name, [x, y], getattr(np, name))
        for dtype in ("int8", "uint8", "int32", "int64"):
            bits = [given([0b1100, 0b1010], dtype), fixed([0b0110], dtype)]
            yield Case(name, bits, getattr(np, name))
        yield Case(name, [given([12, 10], "int32"), 6], getattr(np, name), note="number")
    yield Case("bitwise_not", [x], np.bitwise_not)
    for dtype in ("int8", "uint8", "int32", "int64"):
        yield Case("bitwise_not", [given([0, 5, 100], dtype)], np.bitwise_not)


def finiteness() -> Iterator[Case]:
    values = [0.0, np.nan, np.inf, -np.inf, 1.0]
    for name in ("isnan", "isinf", "isfinite"):
        for dtype in ("float32", "float16", "float64"):
            yield Case(name, [given(values, dtype)], getattr(np, name), dtype="bool")
        yield Case(name, [given([1, 2], "int64")], getattr(np, name), dtype="bool")


def _where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(np.asarray(condition, bool), x, y)


def where() -> Iterator[Case]:
    condition = given(booleans((3, 4)))
    x, y = sample((3, 4)), sample((4,), seed=1)
    pair = [given(x, "float32"), fixed(y, "float32")]
    yield Case("where", [condition, *pair], _where, dtype="float32", gradient=True)
    yield Case("where", [condition, pair[0], 0.0], _where, dtype="float32", gradient=True)
    yield Case("where", [True, *pair], _where, gradient=True, note="scalar condition")
    for dtype in ("float16", "float64", "int8", "int16", "uint8", "int32", "int64", "bool"):
        ends = [given(integers((3, 4)), dtype), fixed(integers((4,), seed=1), dtype)]
        yield Case("where", [condition, *ends], _where, dtype=dtype)
    yield Case("where", [given([0.0, 2.0, -1.0], "float32"), 1, 2], _where, dtype="int32")
    nan = given([np.nan, 1.0], "float32")
    yield Case("where", [given([False, True]), nan, 5.0], _where, dtype="float32", note="NaN")


def closeness() -> Iterator[Case]:
    inf, nan = np.inf, np.nan
    x = [1.0, 1.0, inf, inf, inf, -inf, nan, 1.0, 0.0, 100.0]
    y = [1.0, 1.1, inf, -inf, 1.0, 1.0, nan, inf, 1e-9, 100.0005]
    for options in ({}, {"equal_nan": True}, {"rtol": 0.2}, {"atol": 0.2, "rtol": 0.0}):
        pair = [given(x, "float32"), given(y, "float32")]
        yield Case("isclose", pair, np.isclose, options, dtype="bool")
    yield Case("isclose", [given([1, 2], "int32"), 2], np.isclose, dtype="bool")
    for values in ([1.0, 2.0], [1.0, 2.1], [nan, 2.0]):
        pair = [fixed(values, "float32"), fixed([1.0, 2.0], "float32")]
        yield Case("allclose", pair, np.allclose, dtype="bool", note=str(values))
    for name in ("isposinf", "isneginf"):
        for dtype in ("float32", "float16", "float64"):
            yield Case(name, [given([inf, -inf, nan, 1.0], dtype)], getattr(np, name), dtype="bool")
        yield Case(name, [given([1, 2], "int32")], lambda x: x > 9, dtype="bool")
    members = [given([[1, 2], [3, 4]], "int32"), fixed([4, 1, 9], "int32")]
    yield Case("isin", members, np.isin, dtype="bool")
    yield Case("isin", members, np.isin, {"invert": True}, dtype="bool")
    yield Case("isin", [given([0.5, 1.0], "float32"), [1, 2]], np.isin, dtype="bool")
    yield Case("isin", [members[0], np.zeros(0, "int32")], np.isin, dtype="bool", note="none")


def shifts() -> Iterator[Case]:
    for dtype in ("int8", "int32", "int64", "uint8", "uint32", "uint64"):
        low = np.iinfo(dtype).min
        x = given([low, 0, 1, 5, np.iinfo(dtype).max], dtype)
        for names, oracle in (
            (("left_shift", "bitwise_left_shift"), np.left_shift),
            (("right_shift", "bitwise_right_shift"), np.right_shift),
        ):
            places = given([1, 3, 0, 2, 4], dtype)
            yield Case(names[dtype == "int32"], [x, places], oracle)
            yield Case(names[dtype == "int64"], [x, 3], oracle)
    for dtype in ("int8", "uint8", "int32", "bool"):
        yield Case("bitwise_invert", [given([0, 1], dtype)], np.invert)


def selection() -> Iterator[Case]:
    x = given(sample((3, 4)), "float32")

    conditions = [given(x.array > 1), given(x.array > 0)]
    doubled = given(x.array * 2, "float32")
    yield Case("select", [conditions, [x, doubled], 0.5], np.select, dtype="float32", gradient=True)
    yield Case("select", [conditions, [x, 3]], np.select, dtype="float32", note="number")
    whole = [given([1, 2, 3], "int32")]
    yield Case("select", [[given([True, False, True])], whole], np.select, dtype="int32")


CASES = [
    *few_compiled([*closeness(), *shifts(), *selection()]),
    *comparisons(),
    *logic(),
    *finiteness(),
    *where(),
]
