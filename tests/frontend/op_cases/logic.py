"""Cases of `ops.logic`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, booleans, fixed, given, integers, sample

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


CASES = [*comparisons(), *logic(), *finiteness(), *where()]
