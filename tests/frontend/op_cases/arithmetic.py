"""Cases of `ops.arithmetic`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, fixed, given, integers, sample

#: name -> NumPy's function, whether integers stay integers, whether it has a gradient.
BINARY: dict[str, tuple[Callable[..., Any], bool, bool]] = {
    "add": (np.add, True, True),
    "subtract": (np.subtract, True, True),
    "multiply": (np.multiply, True, True),
    "divide": (np.divide, False, True),
    "true_divide": (np.true_divide, False, True),
    "floor_divide": (np.floor_divide, True, False),
    "mod": (np.mod, True, True),
    "maximum": (np.maximum, True, True),
    "minimum": (np.minimum, True, True),
}

#: Pairs of shapes that broadcast.
SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), ()),
    ((), ()),
    ((2, 1, 4), (3, 1)),
    ((0, 3), (3,)),
    ((1,), (5,)),
]


def binary() -> Iterator[Case]:
    for name, (oracle, keeps_integers, differentiable) in BINARY.items():
        for left, right in SHAPES:
            x = sample(left, 0.5, 3.0, seed=1) * np.where(sample(left, seed=2) < 0, -1, 1)
            y = sample(right, 0.6, 2.5, seed=3) * np.where(sample(right, seed=4) < 0, -1, 1)
            # A batch of one would grow to two, which does not broadcast to five.
            first = fixed(x, "float32") if left == (1,) else given(x, "float32")
            second = given(y, "float32") if left == right else fixed(y, "float32")
            whole = differentiable and 0 not in left
            yield Case(name, [first, second], oracle, gradient=whole)
        x, y = sample((3, 4), 0.5, 3.0), sample((3, 4), 0.6, 2.5, seed=1)
        for dtype in ("float16", "float64"):
            yield Case(name, [given(x, dtype), given(y, dtype)], oracle)
        for dtype in ("int32", "int64"):
            # Divisors of both signs, none of them zero.
            i, j = integers((4, 3)), np.array([[3, -2, 1]])
            out = dtype if keeps_integers else "float32"
            yield Case(name, [given(i, dtype), fixed(j, dtype)], oracle, dtype=out)
            yield Case(name, [given(i, dtype), 2], oracle, dtype=out, note="number")
        yield Case(name, [given(integers((3,)), "int32"), 2.5], oracle, dtype="float32")
        if name in ("add", "multiply", "maximum", "minimum"):
            truths = given([True, True, False, False], "bool"), given([True, False] * 2, "bool")
            yield Case(name, [*truths], oracle, dtype="bool")
            yield Case(name, [truths[0], True], oracle, dtype="bool", note="Python's True")
        yield Case(
            name, [2.5, given(x, "float32")], oracle, note="number first", gradient=differentiable
        )


def power() -> Iterator[Case]:
    base, exponent = sample((3, 4), 0.3, 2.0), sample((4,), -1.5, 2.5)
    for left, right in ((given(base, "float32"), fixed(exponent, "float32")),):
        yield Case("power", [left, right], np.power, gradient=True)
    signed = sample((3, 4))
    for exponent_ in (0, 1, 2, 3, -1, 0.5):
        values = signed if float(exponent_).is_integer() else base
        yield Case(
            "power",
            [given(values, "float32"), exponent_],
            np.power,
            gradient=True,
            note=f"to the {exponent_}",
        )
    yield Case("power", [2.0, given(signed, "float32")], np.power, gradient=True)
    yield Case("power", [given(base, "float64"), fixed(exponent, "float64")], np.power)
    for dtype in ("int32", "int64", "int8", "uint8"):
        yield Case("power", [given([[0, 1], [2, 3]], dtype), 3], np.power)


#: name -> NumPy's function, for floats and signed integers alike.
UNARY: dict[str, Callable[..., Any]] = {
    "negative": np.negative,
    "abs": np.abs,
    "absolute": np.absolute,
    "sign": np.sign,
    "square": np.square,
}


def unary() -> Iterator[Case]:
    for name, oracle in UNARY.items():
        for shape in ((3, 4), (), (0, 2)):
            x = given(sample(shape), "float32")
            yield Case(name, [x], oracle, gradient=0 not in shape and name != "sign")
        for dtype in ("float16", "float64"):
            yield Case(name, [given(sample((5,)), dtype)], oracle)
        for dtype in ("int8", "int32", "int64"):
            yield Case(name, [given(integers((4, 2)), dtype)], oracle)
    yield Case("absolute", [given([True, False])], lambda x: x)
    yield Case("square", [given([True, False])], np.square, dtype="int32")
    for dtype in ("float32", "float16", "float64"):
        yield Case(
            "reciprocal",
            [given(sample((3, 2), 0.5, 3.0), dtype)],
            np.reciprocal,
            gradient=dtype == "float32",
        )
    yield Case("reciprocal", [given([1, 2, -4], "int32")], lambda x: 1 / x, dtype="float32")


def rounding() -> Iterator[Case]:
    ties = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 0.49, -7.51])
    for name in ("floor", "ceil", "round"):
        oracle = getattr(np, name)
        for dtype in ("float32", "float16", "float64"):
            yield Case(name, [given(ties, dtype)], oracle)
            yield Case(name, [given(sample((2, 3), -30, 30), dtype)], oracle)
    for name in ("floor", "ceil"):
        yield Case(name, [given([1, -2], "int64")], lambda x: x, dtype="float32")
    yield Case("round", [given([15, -25, 7], "int32")], np.round)
    yield Case("round", [given([15, -25, 7, 36], "int32"), -1], np.round)
    yield Case("round", [given([1.2345, -0.876, 2.5], "float32"), 2], np.round)
    yield Case("round", [given([1234.5, -8765.0], "float32"), -2], np.round)
    yield Case("round", [given([True, False])], lambda x: x, dtype="int32")


def clip() -> Iterator[Case]:
    x = sample((3, 4))
    yield Case("clip", [given(x, "float32"), -0.7, 0.8], np.clip, gradient=True)
    yield Case("clip", [given(x, "float32"), -1, 1], np.clip, note="whole bounds")
    yield Case("clip", [given(x, "float64"), fixed(-0.7, "float64"), 0.8], np.clip)
    low, high = sample((4,), -1.0, -0.2), sample((4,), 0.2, 1.0)
    yield Case(
        "clip",
        [given(x, "float32"), fixed(low, "float32"), fixed(high, "float32")],
        np.clip,
        gradient=True,
    )
    yield Case("clip", [given(integers((6,)), "int32"), -2, 3], np.clip)
    yield Case("clip", [given(integers((6,)), "int32"), -1.5, 2.5], np.clip, dtype="float32")
    yield Case("clip", [given([True, False]), 0, 1], np.clip, dtype="int32")
    yield Case("clip", [given([1, 9], "int8"), 2, 5], np.clip)


def numbers() -> Iterator[Case]:
    """Python numbers alone, and nested lists of them."""
    yield Case("add", [2, 3], np.add, dtype="int32")
    yield Case("add", [2, 3.5], np.add, dtype="float32")
    yield Case("divide", [1, 4], np.divide, dtype="float32")
    yield Case("maximum", [[1, 5], 3], np.maximum, dtype="int32")
    yield Case("multiply", [[[1.5], [2]], [1, 2]], np.multiply, dtype="float32")
    # As on PyTorch and JAX: a number of NumPy's has no dtype of its own beside a list.
    yield Case("multiply", [np.float64(0.5), [1.0]], np.multiply, dtype="float32")
    yield Case("clip", [5, 0, 3], np.clip, dtype="int32")
    yield Case("square", [True], np.square, dtype="int32")
    yield Case("floor", [2.5], np.floor, dtype="float32")


def edges() -> Iterator[Case]:
    """Where floating-point remainders and quotients are easily got wrong."""
    inf = np.inf
    x = [5.0, -5.0, 5.0, -5.0, 1e8, -1e8, 0.0, 7.0, 6.0, 1.0, -1.0]
    y = [inf, inf, -inf, -inf, 3.0, 3.0, 2.0, -2.0, 3.0, 1 / 3, 1 / 3]
    for name in ("mod", "floor_divide"):
        oracle = getattr(np, name)
        yield Case(name, [given(x, "float64"), given(y, "float64")], oracle, note="edges")
    pair = [given([1.0, -1.0, 0.0], "float32"), fixed(0.0, "float32")]
    yield Case("floor_divide", pair, lambda x, y: x / y, note="by zero")
    yield Case("divide", pair, np.divide, note="by zero")
    yield Case("maximum", [given([np.nan, 1.0], "float32"), 0.5], np.maximum, note="NaN")


CASES = [*binary(), *power(), *unary(), *rounding(), *clip(), *numbers(), *edges()]
