"""Cases of `ops.creation`. Stopped gradients are checked in test_ops_table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample

FLOAT32 = np.dtype("float32")


def _full(shape: Any, value: Any, dtype: Any = None) -> Any:
    return np.full(shape, value)


def _filled(value: float) -> Any:
    return lambda shape, dtype=None: np.full(shape, value)


def _like(value: float) -> Any:
    return lambda x, dtype=None: np.full_like(x, value)


def filled() -> Iterator[Case]:
    for name, value in (("zeros", 0), ("ones", 1)):
        for shape in ((2, 3), (), (0, 4), 5, [2, 2]):
            yield Case(name, [shape], _filled(value), dtype="float32", note=str(shape))
        for dtype in ("float16", "float64", "int32", "int64", "bool", "uint8"):
            yield Case(name, [(2,)], _filled(value), {"dtype": dtype}, dtype=dtype)
        for dtype in ("float32", "float16", "int32", "bool"):
            x = given(integers((3, 2)), dtype)
            yield Case(f"{name}_like", [x], _like(value))
            yield Case(f"{name}_like", [x], _like(value), {"dtype": "int64"}, dtype="int64")
        yield Case(f"{name}_like", [fixed(3.5, "float32")], _like(value))
        yield Case(f"{name}_like", [given(np.zeros((0, 2)), "float32")], _like(value))
    yield Case("full", [(2, 3), 7], _full, dtype="float32")
    yield Case("full", [(2,), 7], _full, {"dtype": "int64"}, dtype="int64")
    yield Case("full", [(), 2.5], _full, dtype="float32")
    yield Case("full", [(3, 2), fixed([1.5, 2.5], "float32")], _full, gradient=True)
    like = lambda x, value, dtype=None: np.full(x.shape, value)  # noqa: E731
    yield Case("full_like", [given(sample((3, 2)), "float32"), 2.5], like)
    yield Case(
        "full_like", [given(sample((3, 2)), "float32"), 3], like, {"dtype": "int32"}, dtype="int32"
    )


def _arange(*bounds: Any, dtype: Any = None) -> Any:
    return np.arange(*bounds)


def ranges() -> Iterator[Case]:
    for bounds in ((5,), (2, 9), (9, 2, -3), (0,), (5, 2), (-3, 4, 2)):
        yield Case("arange", bounds, _arange, dtype="int32", note=str(bounds))
        yield Case(
            "arange", bounds, _arange, {"dtype": "float32"}, dtype="float32", note=str(bounds)
        )
    for bounds in ((5.0,), (0, 0.3, 0.1), (0.0, 1.0, 0.1), (1.0, 0.0, -0.25), (0, 100, 0.7)):
        yield Case("arange", bounds, _arange, dtype="float32", note=str(bounds))
    for dtype in ("float16", "float64", "int64", "int8", "uint8"):
        yield Case("arange", [4], _arange, {"dtype": dtype}, dtype=dtype)
    yield Case("arange", [2**40, 2**40 + 3], _arange, {"dtype": "int64"}, dtype="int64")
    for dtype in ("int32", "int64", "float32", "float64"):
        yield Case("arange", [fixed(4, dtype)], _arange, note="tensor")
    yield Case("arange", [0, fixed(4, "int64"), 2], _arange, dtype="int64", note="tensor")
    yield Case("linspace", [0, 1], np.linspace, dtype="float32")
    yield Case("linspace", [-1.0, 3.0, 5], np.linspace, dtype="float32")
    yield Case("linspace", [2.0, 2.5, 1], np.linspace, dtype="float32")
    for args in ((3,), (2, 4), (3, 3, 1), (4, 2, -1), (0,)):
        yield Case("eye", args, np.eye, dtype="float32", note=str(args))
    yield Case("eye", [2], np.eye, {"dtype": "int64"}, dtype="int64")


def spaces() -> Iterator[Case]:
    low, high = fixed([1.0, 2.0], "float32"), fixed([[3.0], [5.0]], "float32")
    for name, oracle in (
        ("linspace", np.linspace),
        ("logspace", np.logspace),
        ("geomspace", np.geomspace),
    ):
        for endpoint in (True, False):
            options = {"endpoint": endpoint}
            yield Case(name, [1, 3.0, 5], oracle, options, dtype="float32")
            yield Case(name, [low, high, 4], oracle, options, gradient=True, tolerance=1e-5)
        yield Case(name, [low, 6.0, 3], oracle, {"axis": 1}, tolerance=1e-5)
        whole = {"dtype": "int32"}
        yield Case(name, [1, 9, 3], oracle, whole, dtype="int32")
        yield Case(
            name, [fixed(1.0, "float32"), 9, 3], oracle, {"dtype": "float64"}, dtype="float64"
        )
    yield Case("logspace", [0, 3, 4], np.logspace, {"base": 2.0}, dtype="float32")
    both = lambda *args, retstep: list(np.linspace(*args, retstep=True))  # noqa: E731
    yield Case("linspace", [low, high, 4], both, {"retstep": True})
    yield Case("linspace", [low, 6.0, 0], np.linspace)
    yield Case("linspace", [low, 6.0, 1], np.linspace, note="one")


def copies() -> Iterator[Case]:
    x = given(sample((2, 3)), "float32")
    yield Case("copy", [x], _same, gradient=True)
    yield Case("copy", [given([1, 2], "int64")], _same)
    yield Case("array", [x], _same, gradient=True)
    yield Case("array", [[1, 2]], lambda x, dtype: np.array(x), {"dtype": "int64"}, dtype="int64")
    yield Case("empty", [(2, 3)], _filled(0), dtype="float32")
    yield Case("empty", [(2,), "int32"], _filled(0), dtype="int32")
    yield Case("empty_like", [x], _like(0))
    yield Case("empty_like", [x], _like(0), {"dtype": "int32"}, dtype="int32")


def _multi_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None) -> Any:
    return _one_hot(x, num_classes, axis).max(1 if np.ndim(x) > 1 else 0)


def multi_hot() -> Iterator[Case]:
    rows = given([[0, 2, 2], [1, 9, -1]], "int32")
    yield Case("multi_hot", [rows, 4], _multi_hot, dtype="float32")
    yield Case("multi_hot", [fixed([2, 0], "int64"), 3], _multi_hot, dtype="float32")
    for dtype in ("int32", "bool", "float16"):
        yield Case("multi_hot", [rows, 3], _multi_hot, {"dtype": dtype}, dtype=dtype)


def _one_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None) -> Any:
    hot = np.asarray(x)[..., None] == np.arange(num_classes)
    return np.moveaxis(hot, -1, axis)


def one_hot() -> Iterator[Case]:
    for axis in (-1, 0, 1, -2):
        yield Case(
            "one_hot", [given([[0, 2, 1]], "int64"), 3], _one_hot, {"axis": axis}, dtype="float32"
        )
    yield Case(
        "one_hot",
        [given([0, -1, 5, 3, 2], "int32"), 3],
        _one_hot,
        dtype="float32",
        note="out of range",
    )
    yield Case("one_hot", [fixed(1, "int32"), 4], _one_hot, dtype="float32")
    yield Case("one_hot", [given(np.zeros((0,)), "int64"), 4], _one_hot, dtype="float32")
    for dtype in ("float16", "float64", "int32", "int64", "bool", "uint8"):
        yield Case("one_hot", [given([0, 2], "int64"), 3], _one_hot, {"dtype": dtype}, dtype=dtype)


def _same(x: Any, dtype: Any = None) -> Any:
    return x


def conversions() -> Iterator[Case]:
    x = given([[-1.7, 0.0, 2.9]], "float32")
    for dtype in ("float16", "float64"):
        yield Case("cast", [x, dtype], _same, dtype=dtype, gradient=dtype == "float64")
    for dtype in ("int8", "int32", "int64"):
        yield Case("cast", [x, dtype], lambda x, dtype: np.trunc(x), dtype=dtype)
    yield Case("cast", [x, "bool"], lambda x, dtype: x != 0, dtype="bool")
    yield Case("cast", [x, FLOAT32], _same, note="no change", gradient=True)
    yield Case("cast", [given([True, False]), "float32"], _same, dtype="float32")
    yield Case("cast", [given([3, -3], "int64"), "float16"], _same, dtype="float16")
    yield Case("convert_to_tensor", [x], _same, gradient=True)
    yield Case("convert_to_tensor", [x], _same, {"dtype": "float64"}, dtype="float64")
    yield Case("convert_to_tensor", [[[1, 2], [3, 4]]], np.array, dtype="int32")
    yield Case("convert_to_tensor", [[1.5, 2]], np.array, dtype="float32")
    yield Case("convert_to_tensor", [True], _same, dtype="bool")
    yield Case("convert_to_tensor", [[x, x]], np.stack, dtype="float32", note="tensors inside")
    yield Case("stop_gradient", [x], _same)
    yield Case("stop_gradient", [given([1, 2], "int32")], _same)


CASES = [
    *filled(),
    *ranges(),
    *few_compiled(spaces()),
    *one_hot(),
    *few_compiled(multi_hot()),
    *conversions(),
    *copies(),
]
