"""Arithmetic and elementary functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import spread

UNARY = [
    ("Identity", -2, 2),
    ("Neg", -2, 2),
    ("Reciprocal", 0.5, 3),
    ("Reciprocal", -3, -0.5),
    ("Sqrt", 0.3, 3),
    ("Exp", -2, 2),
    ("Log", 0.3, 3),
    ("Erf", -2, 2),
    ("Sin", -3, 3),
    ("Cos", -3, 3),
    ("Tan", -1.2, 1.2),
    ("Asin", -0.9, 0.9),
    ("Acos", -0.9, 0.9),
    ("Atan", -3, 3),
    ("Sinh", -2, 2),
    ("Cosh", -2, 2),
    ("Asinh", -3, 3),
    ("Acosh", 1.2, 3),
    ("Atanh", -0.9, 0.9),
]

#: Equal shapes; sizes of 1; missing leading dimensions; scalars; nothing at all.
PAIRS = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 3), (1, 3)),
    ((2, 1), (1, 3)),
    ((2, 3), ()),
    ((), (2, 3)),
    ((), ()),
    ((2, 1, 3), (4, 1)),
    ((1, 1), (2, 2)),
    ((3,), (2, 1, 1)),
    ((0, 3), (3,)),
    ((0, 3), (1, 3)),
]

#: Ranges of the two operands, chosen away from poles and kinks.
BINARY = {
    "Add": ((-2, 2), (-2, 2)),
    "Sub": ((-2, 2), (-2, 2)),
    "Mul": ((-2, 2), (-2, 2)),
    "Div": ((-2, 2), (0.5, 2)),
    "Pow": ((0.3, 2), (-2, 2)),
    "Max": ((-1.9, 2.1), (-2, 1.93)),
    "Min": ((-1.9, 2.1), (-2, 1.93)),
    "Mod": ((0.1, 0.87), (0.9, 4)),
    "Sum": ((-2, 2), (-2, 2)),
    "Mean": ((-2, 2), (-2, 2)),
}


def _binary() -> list[Case]:
    cases = []
    for op, (left, right) in BINARY.items():
        attributes = {"fmod": 1} if op == "Mod" else {}
        cases += [
            Case(op, [spread(x, *left), spread(y, *right, seed=1)], attributes) for x, y in PAIRS
        ]
    return cases


def _variadic() -> list[Case]:
    cases = [Case(op, [spread((2, 3))]) for op in ("Max", "Min", "Sum", "Mean")]
    for op in ("Max", "Min", "Sum", "Mean"):
        three = [spread((2, 3), seed=1), spread((3,), -1, 1.1, seed=2), spread((2, 1), -1.5, 1.2)]
        cases.append(Case(op, three))
    return cases


def _where() -> list[Case]:
    shapes = [
        ((2, 3), (2, 3), (2, 3)),
        ((2, 1), (3,), ()),
        ((), (2, 3), (1, 3)),
        ((3,), (), (2, 1)),
    ]
    return [
        Case("Where", [spread(c) > 0, spread(x, seed=1), spread(y, seed=2)]) for c, x, y in shapes
    ]


def _pow() -> list[Case]:
    base = spread((2, 3), 0.3, 2)
    signed = spread((2, 3), -1.9, 2.1)
    cases = [
        Case("Pow", [base, Fixed(np.asarray(e))], note=f"exponent={e}")
        for e in (0.0, 1.0, 2.0, 3.0, 0.5, -1.0, 2.5)
    ]
    # Whole exponents of negative bases, floating or integer; one per element; of more dimensions.
    cases += [
        Case("Pow", [signed, Fixed(np.asarray(e))], note=f"negative base, {e!r}")
        for e in (2.0, 3.0, -1.0, 0, 1, 2, 3)
    ]
    cases += [
        Case("Pow", [signed, Fixed([0.0, 1.0, 2.0])], note="exponents 0, 1, 2"),
        Case("Pow", [signed, np.asarray([0, 3, 2])], note="integer exponents"),
        Case("Pow", [signed, Fixed([[[2.0]]])], note="exponent of rank 3"),
    ]
    return cases


def _clip() -> list[Case]:
    x, scalar = spread((2, 4)), np.asarray
    bounds: dict[str, list[Any]] = {
        "both": [scalar(-0.7), scalar(0.9)],
        "low": [scalar(-0.7)],
        "high": [None, scalar(0.9)],
        "none": [],
        "crossed": [scalar(0.9), scalar(-0.7)],
    }
    return [Case("Clip", [x, *b], note=note) for note, b in bounds.items()]


CASES: list[Case] = [
    *[Case(op, [spread((2, 4), low, high)], note=f"{low}..{high}") for op, low, high in UNARY],
    *_binary(),
    *_variadic(),
    *_where(),
    *_pow(),
    *_clip(),
    Case("Mod", [spread((2, 3), -5, 5.3), spread((3,), 1.3, 2.2)], {"fmod": 1}, note="negative"),
    Case("Mod", [spread((2, 3), -5, 5.3), spread((3,), -2.2, -1.3)], {"fmod": 1}, note="divisor"),
    Case("Abs", [spread((2, 4))]),
    Case("Cast", [spread((2, 4))], {"to": 11}, note="no change"),
    # float32 holds seven digits: a wide step and a coarse comparison, of a linear function.
    Case("Cast", [spread((2, 4))], {"to": 1}, note="float32", step=0.1, tolerance=1e-5),
    Case("CastLike", [spread((2, 4)), Fixed(np.zeros(1))]),
    Case(
        "CastLike",
        [spread((2, 4)), Fixed(np.zeros(1, np.float32))],
        note="float32",
        step=0.1,
        tolerance=1e-5,
    ),
    # The numbers must not decide how many there are: `limit` is well within a step.
    *[
        Case(
            "Range",
            [np.asarray(start), Fixed(np.asarray(limit)), np.asarray(delta)],
            note=f"{start}:{limit}:{delta}",
        )
        for start, limit, delta in [(0.5, 4.1, 0.7), (1.0, -2.2, -0.5), (1.0, 0.0, 0.5)]
    ],
]
