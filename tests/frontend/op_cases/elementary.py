"""Cases of `ops.elementary`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, given, sample

#: name -> NumPy's function and a range within its domain.
FUNCTIONS: dict[str, tuple[Callable[..., Any], float, float]] = {
    "sqrt": (np.sqrt, 0.2, 9.0),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0.2, 9.0),
    "exp": (np.exp, -3.0, 3.0),
    "expm1": (np.expm1, -3.0, 3.0),
    "log": (np.log, 0.2, 9.0),
    "log2": (np.log2, 0.2, 9.0),
    "log10": (np.log10, 0.2, 9.0),
    "log1p": (np.log1p, -0.8, 5.0),
    "sin": (np.sin, -4.0, 4.0),
    "cos": (np.cos, -4.0, 4.0),
    "tan": (np.tan, -1.3, 1.3),
    "arcsin": (np.arcsin, -0.9, 0.9),
    "arccos": (np.arccos, -0.9, 0.9),
    "arctan": (np.arctan, -4.0, 4.0),
    "sinh": (np.sinh, -3.0, 3.0),
    "cosh": (np.cosh, -3.0, 3.0),
    "tanh": (np.tanh, -3.0, 3.0),
    "arcsinh": (np.arcsinh, -4.0, 4.0),
    "arccosh": (np.arccosh, 1.1, 5.0),
    "arctanh": (np.arctanh, -0.9, 0.9),
    "erf": (np.vectorize(math.erf, otypes=[float]), -2.0, 2.0),
}

#: Those that ONNX Runtime has float64 kernels for.
FLOAT64 = ("sqrt", "rsqrt", "exp", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tanh")


def functions() -> Iterator[Case]:
    for name, (oracle, low, high) in FUNCTIONS.items():
        for shape in ((3, 4), (), (0, 2)):
            x = given(sample(shape, low, high), "float32")
            yield Case(name, [x], oracle, gradient=0 not in shape)
        yield Case(name, [given(sample((5,), low, high), "float16")], oracle)
        if name in FLOAT64:
            yield Case(name, [given(sample((5,), low, high), "float64")], oracle, tolerance=1e-13)
        whole = 1 if name in ("arctanh", "arcsin", "arccos") else 2
        values = [0, 0] if name == "arctanh" else [1, whole]
        for dtype in ("int32", "int64"):
            yield Case(name, [given(values, dtype)], oracle, dtype="float32")


def edges() -> Iterator[Case]:
    """Small, large and infinite arguments of what is put together from several operators."""
    inf = np.inf
    small = [1e-30, -1e-30, 1e-8, -1e-8, 3e-5, -3e-5, 6e-8, 1e-3, -1e-3]
    yield Case(
        "expm1",
        [given([*small, -20.0, -200.0, -inf, 88.0, 200.0, inf], "float32")],
        np.expm1,
        tolerance=4e-7,
        note="edges",
    )
    yield Case(
        "log1p",
        [given([*small, -1.0, -0.99999994, 1e8, 3e38, inf], "float32")],
        np.log1p,
        tolerance=4e-7,
        note="edges",
    )
    yield Case("log1p", [given([-1.5, np.nan], "float32")], np.log1p, note="NaN")
    yield Case(
        "log1p",
        [given([1e-18, -1e-18, 1e-9, 1e300], "float64")],
        np.log1p,
        tolerance=4e-16,
        note="edges",
    )
    yield Case("log", [given([0.0, inf, -1.0], "float32")], np.log, note="edges")
    yield Case("sqrt", [given([0.0, inf, -1.0], "float32")], np.sqrt, note="edges")


CASES = [*functions(), *edges()]
