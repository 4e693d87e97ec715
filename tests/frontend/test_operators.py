"""Python's operators and NumPy's functions on tensors, variables and symbolic dimensions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot

ARITHMETIC: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
]
COMPARISONS: list[Callable[[Any, Any], Any]] = [
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
]
LOGIC: list[Callable[[Any, Any], Any]] = [operator.and_, operator.or_, operator.xor]

X = np.array([[1.0, 2.5, 3.0], [0.5, 2.0, 4.0]], np.float32)
Y = np.array([2.0, 2.5, 1.5], np.float32)
KINDS: dict[str, Callable[[Any], Any]] = {"tensor": ot.Tensor, "variable": ot.Variable}


def name_of(function: Any) -> str:
    return function.__name__


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ARITHMETIC + COMPARISONS, ids=name_of)
def test_binary(function: Callable[[Any, Any], Any], kind: str) -> None:
    x, y = KINDS[kind](X), KINDS[kind](Y)
    pairs: list[tuple[Any, Any, Any]] = [
        (x, y, function(X, Y)),
        (x, Y, function(X, Y)),
        (X, y, function(X, Y)),
        (x, 2, function(X, 2)),
        (2.5, y, function(2.5, Y)),
        (x, [1.0, 2.0, 3.0], function(X, np.float32([1, 2, 3]))),
        ([1.0, 2.0, 3.0], y, function(np.float32([1, 2, 3]), Y)),
        (x, np.float32(2), function(X, np.float32(2))),
        (np.float32(2), x, function(np.float32(2), X)),
    ]
    for left, right, expected in pairs:
        found = function(left, right)
        assert isinstance(found, ot.Tensor)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
        step = ot.function(function, fallback="error")
        np.testing.assert_allclose(np.asarray(step(left, right)), expected, rtol=1e-6)


@pytest.mark.parametrize("function", LOGIC, ids=name_of)
def test_logic(function: Callable[[Any, Any], Any]) -> None:
    for x, y in (
        (np.array([True, True, False, False]), np.array([True, False, True, False])),
        (np.array([12, 5, -1], np.int32), np.array([10, 3, 7], np.int32)),
    ):
        for left, right in ((ot.Tensor(x), y), (ot.Tensor(x), ot.Tensor(y))):
            np.testing.assert_array_equal(function(left, right).numpy(), function(x, y))
    assert function(ot.Tensor([6]), 3).numpy().tolist() == [function(6, 3)]
    assert function(3, ot.Tensor([6])).numpy().tolist() == [function(3, 6)]


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_products(kind: str) -> None:
    a, b = X, np.ascontiguousarray(X.T)
    for left, right in ((KINDS[kind](a), b), (a, KINDS[kind](b)), (KINDS[kind](a), KINDS[kind](b))):
        np.testing.assert_allclose((left @ right).numpy(), a @ b, rtol=1e-6)


def test_unary() -> None:
    x = ot.Tensor(X - 2)
    np.testing.assert_array_equal((-x).numpy(), 2 - X)
    np.testing.assert_array_equal((+x).numpy(), X - 2)
    np.testing.assert_array_equal(abs(x).numpy(), np.abs(X - 2))
    np.testing.assert_array_equal((~ot.Tensor([True, False])).numpy(), [False, True])


def test_none_is_no_value() -> None:
    x = ot.Tensor(X)
    for value in (x, ot.Variable(X)):
        assert (value == None) is False  # noqa: E711
        assert (value != None) is True  # noqa: E711


def test_tensors_and_variables_are_keys_by_identity() -> None:
    x, y = ot.Tensor([1.0]), ot.Tensor([1.0])
    assert len({x: 1, y: 2}) == 2
    assert {x: 1}[x] == 1


@pytest.mark.parametrize(
    "function",
    [np.add, np.subtract, np.multiply, np.divide, np.floor_divide, np.remainder, np.power,
     np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal],
)  # fmt: skip
def test_numpys_functions_become_operations(function: np.ufunc) -> None:
    for left, right in ((ot.Tensor(X), Y), (X, ot.Tensor(Y)), (X, ot.Variable(Y))):
        found = function(left, right)
        assert isinstance(found, ot.Tensor)
        np.testing.assert_allclose(found.numpy(), function(X, Y), rtol=1e-6)
    step = ot.function(lambda x: function(X, x), fallback="error")
    np.testing.assert_allclose(step(Y).numpy(), function(X, Y), rtol=1e-6)


def test_numpys_other_functions_take_the_value() -> None:
    found = np.hypot(ot.Tensor(X), Y)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, np.hypot(X, Y))
    assert np.add.reduce(ot.Tensor(Y)) == Y.sum()
    np.testing.assert_array_equal(np.concatenate([ot.Tensor(Y), Y]), np.concatenate([Y, Y]))


def test_gradients_flow_through_numpys_functions_and_reflected_operators() -> None:
    w = ot.Variable(Y)
    with ot.GradientTape() as tape:
        total = ot.ops.sum(np.multiply(X, w) - (1.0 - w) / 2.0)
    np.testing.assert_allclose(tape.gradient(total, w).numpy(), X.sum(0) + 1, rtol=1e-6)


def test_symbolic_dimensions_count() -> None:
    @ot.function(input_signature=[ot.TensorSpec((None, 3))], fallback="error")
    def sizes(x: Any) -> Any:
        batch = x.shape[0]
        number = ot.ops.cast(batch, "float32")
        return [batch + 1, 2 * batch, batch - x.shape[1], batch // 2, batch % 2, batch / 4, number]

    for size in (4, 1):
        found = sizes(np.zeros((size, 3), np.float32))
        values = [size + 1, 2 * size, size - 3, size // 2, size % 2, size / 4, size]
        assert [t.item() for t in found] == values
        assert [t.dtype.name for t in found] == ["int64"] * 5 + ["float32"] * 2
    assert sizes.trace_count == 1


def test_what_has_no_place_in_arithmetic() -> None:
    for other in ("text", None, object()):
        with pytest.raises(TypeError):
            ot.Tensor(X) + other


@pytest.mark.parametrize("kind", KINDS)
def test_methods_and_further_operators(kind: str) -> None:
    x = KINDS[kind](X)
    np.testing.assert_array_equal(x.T, X.T)
    np.testing.assert_array_equal(x.reshape(3, 2), X.reshape(3, 2))
    np.testing.assert_array_equal(x.reshape((-1,)), X.reshape(-1))
    np.testing.assert_array_equal(x.reshape(6), X.reshape(6))
    assert x.astype("int32").dtype == "int32"
    for found, expected in zip(divmod(x, 2), divmod(X, 2), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(divmod(7.5, x), divmod(7.5, X), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(round(x), np.round(X))
    np.testing.assert_allclose(round(x / 3, 1), np.round(X / 3, 1), rtol=1e-6)


def test_shifts() -> None:
    bits = np.array([1, -5, 12], np.int32)
    x = ot.Tensor(bits)
    for found, expected in (
        (x << 2, bits << 2),
        (x >> 1, bits >> 1),
        (3 << ot.Tensor([1, 2]), np.array([6, 12])),
        (-9 >> ot.Tensor([1, 2]), np.array([-5, -3])),
        (bits << ot.Tensor([1, 1, 1]), bits << 1),
    ):
        assert isinstance(found, ot.Tensor)
        assert found.dtype == "int32"
        np.testing.assert_array_equal(found, expected)


def test_methods_compiled() -> None:
    step = ot.function(lambda x: (x.T.reshape(-1).astype("float64"), divmod(x, 2.0)[1]))
    flat, rest = step(X)
    np.testing.assert_array_equal(flat, X.T.reshape(-1))
    np.testing.assert_array_equal(rest, X % 2)
    assert step.fallback_reason is None
