"""Regularizers and constraints: against Keras's stored numbers, in layers, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import constraints, regularizers
from onnxtape.errors import ShapeError
from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("regularizers"))
def test_as_keras(name: str) -> None:
    parity.check("regularizers", name, rtol=2e-6, atol=1e-6)


def test_a_regularizer_in_a_compiled_step() -> None:
    model = ot.Sequential([ot.Input((2,)), ot.layers.Dense(2, kernel_regularizer="l2")])
    model.layers[0].kernel.assign([[1.0, -2.0], [3.0, 4.0]])

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
            loss = ot.ops.sum(model.losses[0])
        return y, loss, tape.gradient(loss, model.trainable_weights)

    _, loss, (kernel, bias) = step(np.ones((1, 2), np.float32))
    assert float(loss) == pytest.approx(0.3)
    np.testing.assert_allclose(kernel, 0.02 * np.float32([[1, -2], [3, 4]]), rtol=1e-6)
    assert bias is None


def test_an_activity_regularizer_by_name() -> None:
    layer = ot.layers.Activation("linear", activity_regularizer="l2")
    layer(np.float32([[3.0], [4.0]]))
    assert float(layer.losses[0]) == pytest.approx(0.01 * 25 / 2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype: str) -> None:
    x = np.array([[3.0, 4.0], [4.0, -3.0]], dtype)
    assert regularizers.L2(0.5)(x).dtype == dtype
    assert regularizers.L1L2()(x).dtype == dtype
    np.testing.assert_allclose(regularizers.OrthogonalRegularizer()(x).numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(constraints.UnitNorm(1)(x).numpy(), x / 5, rtol=1e-3)


def test_the_gradient_of_a_zero_row_is_finite() -> None:
    x = ot.Variable(np.float32([[0.0, 0.0], [1.0, 2.0], [2.0, -1.0]]))
    regularizer = regularizers.OrthogonalRegularizer()
    with ot.GradientTape() as tape:
        loss = regularizer(x)
    assert np.isfinite(tape.gradient(loss, x).numpy()).all()
    assert float(regularizer(np.ones((1, 3), np.float32))) == 0.0


def test_ones_own() -> None:
    class Sum(regularizers.Regularizer):
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __call__(self, x: Any) -> Any:
            return self.factor * ot.ops.sum(x)

    layer = ot.layers.Dense(2, kernel_regularizer=Sum(2.0), kernel_initializer="ones")
    layer.build((None, 3))
    assert float(layer.losses[0]) == 12.0
    assert Sum.from_config(Sum(2.0).get_config()).factor == 2.0
    with pytest.raises(NotImplementedError, match=r"Regularizer has no __call__"):
        regularizers.Regularizer()(1.0)
    with pytest.raises(NotImplementedError, match=r"Constraint has no __call__"):
        constraints.Constraint()(1.0)


def test_names() -> None:
    assert type(regularizers.get("orthogonal_regularizer")) is regularizers.OrthogonalRegularizer
    assert regularizers.get(regularizers.L2).l2 == 0.01
    assert regularizers.get({"class_name": "L1", "config": {"l1": 0.5}}).l1 == 0.5
    assert regularizers.get(abs) is abs
    assert regularizers.get(None) is constraints.get(None) is None
    assert constraints.get("MaxNorm").max_value == 2
    with pytest.raises(ValueError, match=r"no regularizer is called 'l3'; there are l1, l2, l1l2"):
        ot.layers.Dense(2, kernel_regularizer="l3").build((None, 2))
    with pytest.raises(ValueError, match=r"no constraint is called 'positive'; there are max_norm"):
        constraints.get("positive")
    with pytest.raises(TypeError, match=r"cannot make a regularizer of 0\.1"):
        regularizers.get(0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: regularizers.L1(-0.1), r"l1 is zero or more, and finite, not -0\.1"),
        (lambda: regularizers.L2(float("nan")), r"l2 is zero or more, and finite, not nan"),
        (lambda: regularizers.L1L2(l2=float("inf")), r"l2 is zero or more, and finite, not inf"),
        (lambda: regularizers.L2("0.1"), r"l2 is a number, not '0\.1'"),
        (lambda: regularizers.OrthogonalRegularizer(mode="both"), r"'rows' or 'columns', not 'bo"),
    ],
)
def test_arguments_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_that_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"OrthogonalRegularizer takes a matrix of known size"):
        regularizers.OrthogonalRegularizer()(np.ones((2, 2, 2), np.float32))
    with pytest.raises(ShapeError, match=r"a constraint: axis 1 is out of range"):
        constraints.MaxNorm(axis=1)(np.ones(2, np.float32))
