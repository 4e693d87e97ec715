"""Layers: what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import ShapeError
from tests.frontend.samples import x32

# Dense -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (1, 4), (0, 4), (4,)])
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_dense(shape: tuple[int, ...], use_bias: bool, mode: str) -> None:
    layer = ot.layers.Dense(3, activation="tanh", use_bias=use_bias)
    layer.build((None, 4))
    kernel, bias = x32(4, 3, seed=1), x32(3, seed=2) if use_bias else 0
    layer.set_weights([kernel, bias][: 1 + use_bias])

    def call(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = layer(x)
            loss = ops.sum(y)
        return y, tape.gradient(loss, layer.trainable_weights)

    x = x32(*shape)
    y, gradients = (ot.function(call, fallback="error") if mode == "compiled" else call)(x)
    expected = np.tanh(x.astype(np.float64) @ kernel + bias)
    np.testing.assert_allclose(y.numpy(), expected, rtol=2e-6, atol=1e-6)
    slopes = (1 - expected**2).reshape(-1, 3)
    np.testing.assert_allclose(
        gradients[0].numpy(), x.reshape(-1, 4).T @ slopes, rtol=1e-5, atol=1e-5
    )
    if use_bias:
        np.testing.assert_allclose(gradients[1].numpy(), slopes.sum(0), rtol=1e-5, atol=1e-5)


def test_dense_serves_every_batch_size_with_one_trace() -> None:
    layer = ot.layers.Dense(3)
    signature = [ot.TensorSpec((None, 4))]
    step = ot.function(lambda x: layer(x), input_signature=signature, fallback="error")
    for size in (5, 1, 0, 7):
        x = x32(size, 4)
        expected = x @ layer.kernel.numpy() if layer.built else None
        found = step(x).numpy()
        if expected is not None:
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    assert step.trace_count == 1


def test_dense_starts_as_keras_does() -> None:
    layer = ot.layers.Dense(300)
    layer.build((None, 200))
    kernel = layer.kernel.numpy()
    limit = np.sqrt(6 / 500)
    assert kernel.shape == (200, 300)
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 5 * limit / np.sqrt(3 * kernel.size)
    np.testing.assert_array_equal(layer.bias.numpy(), np.zeros(300))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float64", "float16"])
def test_inputs_are_cast_to_the_layers_dtype(dtype: str) -> None:
    layer = ot.layers.Dense(2, kernel_initializer="ones")
    x = np.array([[1, 0, 1], [1, 1, 1]]).astype(dtype)
    y = layer(x)
    assert y.dtype == layer.kernel.dtype == "float32"
    np.testing.assert_array_equal(y.numpy(), [[2, 2], [3, 3]])


def test_layers_in_float64() -> None:
    layer = ot.layers.Dense(2, kernel_initializer="ones", dtype="float64")
    y = layer(np.full((1, 3), 1 / 3))
    assert y.dtype == layer.bias.dtype == "float64"
    np.testing.assert_allclose(y.numpy(), 1.0, rtol=1e-15)


def test_dense_refusals() -> None:
    with pytest.raises(ValueError, match=r"a positive number of units, not 0"):
        ot.layers.Dense(0)
    with pytest.raises(ValueError, match=r"no activation is called 'rellu'; there are celu, elu"):
        ot.layers.Dense(1, activation="rellu")
    with pytest.raises(ValueError, match=r"no initializer is called 'glorot'; there are zeros"):
        ot.layers.Dense(1, kernel_initializer="glorot")
    layer = ot.layers.Dense(3, name="head")
    with pytest.raises(ShapeError, match=r"last dimension is known, not \(None, None\)|\(\?, \?\)"):
        layer.build((None, None))
    layer.build((None, 4))
    for shape in ((2, 5), (5,), ()):
        with pytest.raises(ShapeError, match=r"Dense 'head' .* is 4, but got") as refusal:
            layer(np.zeros(shape, np.float32))
        assert "test_layers.py" in str(refusal.value)
        assert "in layer 'head'" in str(refusal.value)


# The layers without weights ----------------------------------------------------------------------

SHAPES: dict[str, tuple[Callable[[], Any], tuple[int, ...], tuple[int, ...]]] = {
    "Flatten": (ot.layers.Flatten, (3, 2, 5), (3, 10)),
    "Flatten rank 1": (ot.layers.Flatten, (3,), (3, 1)),
    "Reshape": (lambda: ot.layers.Reshape((5, 2)), (3, 2, 5), (3, 5, 2)),
    "Reshape -1": (lambda: ot.layers.Reshape((-1,)), (3, 2, 5), (3, 10)),
    "Reshape to scalars": (lambda: ot.layers.Reshape(()), (3, 1), (3,)),
    "Identity": (ot.layers.Identity, (3, 2), (3, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    make, given, expected = SHAPES[name]
    layer, x = make(), x32(*given)
    np.testing.assert_array_equal(layer(x).numpy(), x.reshape(expected))
    step = ot.function(
        lambda x: layer(x), input_signature=[ot.TensorSpec((None, *given[1:]))], fallback="error"
    )
    for size in (3, 1, 4):
        x = x32(size, *given[1:])
        np.testing.assert_array_equal(step(x).numpy(), x.reshape(size, *expected[1:]))
    assert step.trace_count == 1
    out = layer(ot.Input(given[1:]))
    assert out.shape == (None, *expected[1:])
    assert layer.weights == []
    assert layer.count_params() == 0


def test_reshape_keeps_the_number_of_elements() -> None:
    with pytest.raises(ShapeError, match=r"reshape: \(3, 2\) has no shape \(3, 5\)"):
        ot.layers.Reshape((5,))(x32(3, 2))


def test_an_activation_is_a_name_a_function_or_nothing() -> None:
    x = x32(2, 3)
    for activation, expected in (
        ("relu", np.maximum(x, 0)),
        (ops.square, x * x),
        (lambda x: x + 1, x + 1),
        (None, x),
    ):
        layer = ot.layers.Activation(activation)
        np.testing.assert_allclose(np.asarray(layer(ot.Tensor(x))), expected, rtol=1e-6)
    with pytest.raises(TypeError, match=r"cannot make an activation of 3"):
        ot.layers.Activation(3)


def test_rescaling() -> None:
    layer = ot.layers.Rescaling(1 / 255, offset=-1.0)
    x = np.array([[0, 255, 51]], np.uint8)
    np.testing.assert_allclose(layer(x).numpy(), [[-1, 0, -0.8]], atol=1e-7)
    vector = ot.layers.Rescaling([1.0, 2.0], offset=[0.0, 5.0])
    np.testing.assert_array_equal(vector(np.ones((2, 2), np.float32)).numpy(), [[1, 7]] * 2)


# Dropout -----------------------------------------------------------------------------------------


def test_dropout_acts_while_training_only() -> None:
    layer, x = ot.layers.Dropout(0.5), np.ones((100, 10), np.float32)
    np.testing.assert_array_equal(layer(x).numpy(), x)
    np.testing.assert_array_equal(layer(x, training=False).numpy(), x)
    dropped = layer(x, training=True).numpy()
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert 400 < (dropped == 0).sum() < 600
    np.testing.assert_array_equal(ot.layers.Dropout(0)(x, training=True).numpy(), x)
    np.testing.assert_array_equal(ot.layers.Dropout(1)(x, training=True).numpy(), 0 * x)


def test_dropout_draws_from_the_global_stream_or_its_own() -> None:
    x = np.ones((30,), np.float32)
    own, other, shared = (ot.layers.Dropout(0.5, seed=s) for s in (3, 3, None))
    first = own(x, training=True).numpy()
    ot.set_seed(3)
    np.testing.assert_array_equal(shared(x, training=True).numpy(), first)
    np.testing.assert_array_equal(other(x, training=True).numpy(), first)
    assert not np.array_equal(own(x, training=True).numpy(), first)
    assert [v.path for v in own.variables] == ["dropout/seed_generator"]
    assert own.weights == []
    assert shared.variables == []


def test_dropout_differs_between_the_steps_of_a_compiled_function() -> None:
    layer, x = ot.layers.Dropout(0.5, seed=1), np.ones((6, 10), np.float32)
    step = ot.function(lambda x: layer(x, training=True), fallback="error")
    compiled = [step(x).numpy() for _ in range(3)]
    assert len({c.tobytes() for c in compiled}) == 3
    eager = ot.layers.Dropout(0.5, seed=1)
    for expected in compiled:
        np.testing.assert_array_equal(eager(x, training=True).numpy(), expected)


def test_dropouts_noise_shape() -> None:
    layer = ot.layers.Dropout(0.5, noise_shape=(None, 1, 4))
    dropped = layer(np.ones((20, 3, 4), np.float32), training=True).numpy()
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    step = ot.function(
        lambda x: layer(x, training=True),
        input_signature=[ot.TensorSpec((None, 3, 4))],
        fallback="error",
    )
    assert step(np.ones((2, 3, 4), np.float32)).shape == (2, 3, 4)
    assert step.trace_count == 1


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_dropouts_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate lies between 0 and 1"):
        ot.layers.Dropout(rate)
