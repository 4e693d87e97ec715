"""Cases of `ops.reductions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, booleans, fixed, given, integers, sample


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    with np.errstate(divide="ignore"):
        peak = x.max(axis=axis, keepdims=True)
        peak = np.where(np.isfinite(peak), peak, 0)
        total = np.log(np.exp(x - peak).sum(axis=axis, keepdims=True)) + peak
    return total if keepdims else total.squeeze(axis)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if axis is None and ord is None:
        return np.sqrt((x**2).sum(keepdims=keepdims))
    return np.linalg.norm(x, ord, axis, keepdims)


#: name -> NumPy's function, and whether integers give float32.
REDUCTIONS: dict[str, tuple[Callable[..., Any], bool]] = {
    "sum": (np.sum, False),
    "mean": (np.mean, True),
    "prod": (np.prod, False),
    "max": (np.max, False),
    "min": (np.min, False),
    "var": (np.var, True),
    "std": (np.std, True),
    "logsumexp": (_logsumexp, True),
}


def reductions() -> Iterator[Case]:
    x = sample((2, 3, 4))
    for name, (oracle, to_float) in REDUCTIONS.items():
        for axis in (None, 0, 1, -1, (0, 2), (-1, -3), ()):
            for keepdims in (False, True):
                if axis == () and name in ("var", "std", "logsumexp"):
                    continue
                options = {"axis": axis, "keepdims": keepdims}
                yield Case(name, [given(x, "float32")], oracle, options, gradient=not keepdims)
        yield Case(name, [given(x, "float32"), [0, 1]], lambda x, axes, f=oracle: f(x, tuple(axes)))
        yield Case(name, [fixed(2.5, "float32")], oracle)
        for dtype in ("float16", "float64"):
            yield Case(name, [given(x, dtype)], oracle, {"axis": 1})
        for dtype in ("int32", "int64"):
            yield Case(
                name,
                [given(integers((3, 4)), dtype)],
                oracle,
                {"axis": 1},
                dtype="float32" if to_float else None,
            )
    for name in ("sum", "prod"):
        oracle, _ = REDUCTIONS[name]
        for dtype, out in (
            ("bool", "int32"),
            ("int8", "int32"),
            ("uint8", "uint32"),
            ("uint32", "uint32"),
            ("int16", "int32"),
        ):
            yield Case(name, [given(integers((3, 4), 0, 4), dtype)], oracle, {"axis": 1}, dtype=out)
        yield Case(
            name, [given(integers((3, 4), 0, 2), "bool")], oracle, {"axis": ()}, dtype="int32"
        )
    for name in ("max", "min"):
        oracle, _ = REDUCTIONS[name]
        for dtype in ("bool", "int8", "uint8", "uint32", "int16"):
            yield Case(name, [given(integers((3, 4), 0, 4), dtype)], oracle, {"axis": 0})
    zeros = given([[2.0, 0.0, 3.0], [0.0, 0.0, 1.0]], "float32")
    yield Case("prod", [zeros], np.prod, {"axis": 1}, gradient=True, note="zeros")


def empty() -> Iterator[Case]:
    nothing = fixed(np.zeros((0, 3)), "float32")
    for name in ("sum", "prod"):
        yield Case(name, [nothing], getattr(np, name), note="nothing")
        yield Case(name, [nothing], getattr(np, name), {"axis": 0}, note="nothing")
        yield Case(name, [nothing], getattr(np, name), {"axis": 1}, note="nothing")
    yield Case("max", [nothing], np.max, {"axis": 1}, note="nothing")
    for name in ("all", "any"):
        yield Case(name, [fixed(np.zeros((0, 3)), "bool")], getattr(np, name), note="nothing")
        yield Case(name, [fixed(np.zeros((0, 3)), "bool")], getattr(np, name), {"axis": 0})
    yield Case("cumsum", [nothing], np.cumsum, {"axis": 0}, note="nothing")
    yield Case("count_nonzero", [nothing], np.count_nonzero, dtype="int32", note="nothing")
    low = given([[-np.inf, -np.inf], [1.0, np.inf], [1000.0, 1001.0]], "float32")
    yield Case("logsumexp", [low], _logsumexp, {"axis": 1}, note="edges")


def truth() -> Iterator[Case]:
    for name in ("all", "any"):
        for axis in (None, 0, -1, (0, 1)):
            for keepdims in (False, True):
                yield Case(
                    name,
                    [given(booleans((3, 4)))],
                    getattr(np, name),
                    {"axis": axis, "keepdims": keepdims},
                )
        for values in (np.ones((2, 3)), np.zeros((3, 2)), np.eye(3)):
            yield Case(
                name, [given(values, "float32")], getattr(np, name), {"axis": 1}, dtype="bool"
            )
        yield Case(
            name,
            [given([[0, 300], [256, 256]], "int64")],
            getattr(np, name),
            {"axis": 1},
            dtype="bool",
        )
    for axis in (None, 0, (0, 1)):
        for dtype in ("float32", "int32", "bool"):
            yield Case(
                "count_nonzero",
                [given(integers((4, 3), -1, 2), dtype)],
                np.count_nonzero,
                {"axis": axis},
                dtype="int32",
            )


def averages() -> Iterator[Case]:
    x, w = given(sample((3, 4)), "float32"), given(sample((3, 4), 0.2, 1.0), "float32")
    for axis in (None, 0, 1, -1):
        yield Case("average", [x], np.average, {"axis": axis}, gradient=True)
        yield Case("average", [x, axis, w], np.average, gradient=True, note=str(axis))
    column = fixed([0.5, 1.0, 2.0, 0.25], "float32")
    yield Case("average", [x, 1, column], np.average, gradient=True, note="one axis")
    yield Case("average", [given([1, 2, 4], "int32")], np.average, dtype="float32")


def norms() -> Iterator[Case]:
    x = given(sample((3, 4)), "float32")
    for ord_ in (None, 1, 2, np.inf, -np.inf):
        for axis in (0, 1, -1):
            yield Case("norm", [x, ord_, axis], _norm, gradient=True, note=f"{ord_}{axis}")
    for axis in (None, (0, 1)):
        yield Case("norm", [x], _norm, {"axis": axis}, gradient=True)
    yield Case("norm", [x, "fro"], _norm, {"axis": (0, 1)}, gradient=True)
    yield Case("norm", [x], _norm, {"axis": 1, "keepdims": True})
    yield Case("norm", [given(sample((2, 3, 2)), "float32")], _norm, note="of rank 3")
    yield Case("norm", [given([3, 4], "int32")], _norm, dtype="float32")


ORDER = {"argmax": lambda x, dtype: 2, "argmin": lambda x, dtype: 1}


def searching() -> Iterator[Case]:
    ties = given([[1.0, 3.0, 3.0], [2.0, 0.0, 0.0]], "float32")
    for name in ("argmax", "argmin"):
        for axis in (None, 0, 1, -1):
            for keepdims in (False, True):
                yield Case(
                    name,
                    [ties],
                    getattr(np, name),
                    {"axis": axis, "keepdims": keepdims},
                    dtype="int32",
                )
        for dtype in ("float16", "float64", "int8", "uint8", "int32", "int64", "bool", "uint32"):
            yield Case(
                name,
                [given(integers((3, 4), 0, 5), dtype)],
                getattr(np, name),
                {"axis": 1},
                dtype="int32",
            )
        yield Case(
            name,
            [given([3.0, 1.0, 4.0], "float32")],
            ORDER[name],
            {"dtype": "int64"},
            dtype="int64",
        )
        yield Case(name, [fixed(2.0, "float32")], getattr(np, name), dtype="int32")


def _top_k(x: Any, k: int) -> list[Any]:
    order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    return [np.take_along_axis(x, order, -1), order]


def sorting() -> Iterator[Case]:
    x = given(sample((3, 5)), "float32")
    for k in (1, 3, 5, 0):
        yield Case("top_k", [x, k], _top_k, dtype=("float32", "int32"), note=str(k), gradient=k > 0)
    for dtype in ("float16", "float64", "int32", "int64"):
        yield Case("top_k", [given([[3, 9, 1, 7]], dtype), 2], _top_k, dtype=(dtype, "int32"))
    for axis in (None, 0, 1, -1):
        yield Case("cumsum", [x], np.cumsum, {"axis": axis}, gradient=True)
    for dtype in ("float16", "float64", "int8", "int32", "int64", "uint8"):
        yield Case(
            "cumsum",
            [given(integers((3, 2), 0, 4), dtype)],
            lambda x, axis: np.cumsum(x, axis, dtype=x.dtype),
            {"axis": 0},
        )
    yield Case("cumsum", [given(booleans((4,)))], np.cumsum, dtype="int32")


CASES = [
    *reductions(),
    *empty(),
    *truth(),
    *averages(),
    *norms(),
    *searching(),
    *sorting(),
]
