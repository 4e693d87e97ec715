"""Operations that take functions, and those that give no tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import ShapeError

X = np.array([[1.0, -2.0, 0.5], [3.0, 1.5, -1.0], [0.2, 4.0, 2.0]], np.float32)


def affine(first: Any, second: Any) -> Any:
    """x -> a x + b, then another: associative, but not commutative."""
    (a, b), (c, d) = first, second
    return a * c, b * c + d


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan_is_the_loop(size: int, reverse: bool) -> None:
    random = np.random.default_rng(size)
    a, b = (random.uniform(-1, 1, (2, size)).astype(np.float32) for _ in range(2))
    found = ops.associative_scan(affine, (a, b), reverse=reverse, axis=1)
    places = range(size)[::-1] if reverse else range(size)
    total, expected = None, [np.zeros_like(a), np.zeros_like(a)]
    for i in places:
        step = (a[:, i], b[:, i])
        total = step if total is None else affine(total, step)
        expected[0][:, i], expected[1][:, i] = total
    for result, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(result.numpy(), value, rtol=1e-5, atol=1e-6)


def test_associative_scan_needs_one_known_size() -> None:
    with pytest.raises(ShapeError, match="associative_scan needs tensors of one size"):
        ops.associative_scan(affine, (X, X[:2]))


def test_associative_scan_compiled_with_its_gradient() -> None:
    def total(x: Any) -> Any:
        return ops.sum(ops.associative_scan(lambda a, b: a * b, x, axis=0) * X)

    expected = ot.grad(total)(ot.Tensor(X)).numpy()
    # d/dx_i of the products from i on.
    products = np.cumprod(X, 0)
    by_hand = np.stack([(products[i:] * X[i:]).sum(0) / X[i] for i in range(3)])
    np.testing.assert_allclose(expected, by_hand, rtol=1e-5)
    step = ot.function(lambda x: ot.grad(total)(x), fallback="error")
    np.testing.assert_allclose(step(X).numpy(), expected, rtol=1e-6)


def test_vectorized_map() -> None:
    found = ops.vectorized_map(lambda pair: ops.sum(pair[0]) * pair[1], (X, X[:, 0]))
    np.testing.assert_allclose(found.numpy(), X.sum(1) * X[:, 0], rtol=1e-6)


def test_custom_gradient() -> None:
    @ops.custom_gradient
    def doubled(x: Any) -> Any:
        return x * 1.0, lambda upstream: upstream * 2.0

    np.testing.assert_array_equal(ot.grad(lambda x: ops.sum(doubled(x)))(ot.Tensor(X)), X * 0 + 2)


def test_jvp() -> None:
    value, slope = ops.jvp(ops.sin, (X,), (np.ones_like(X),))
    np.testing.assert_allclose(value.numpy(), np.sin(X), rtol=1e-6)
    np.testing.assert_allclose(slope.numpy(), np.cos(X), rtol=1e-5, atol=1e-6)
    value, slope, aux = ops.jvp(lambda x: (x * x, "seen"), (X,), (X,), has_aux=True)
    np.testing.assert_allclose(slope.numpy(), 2 * X * X, rtol=1e-6)
    assert aux == "seen"


def test_what_gives_no_tensor() -> None:
    tensor = ot.Tensor(X)
    array = ops.convert_to_numpy(tensor)
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, X)
    assert ops.dtype(tensor) == "float32"
    assert ops.dtype([1, 2]) == "int32"
    assert ops.is_tensor(tensor)
    assert not ops.is_tensor(X)
