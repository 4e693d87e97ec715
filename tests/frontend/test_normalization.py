"""Layers and operations that normalize."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

import onnxtape as ot
from onnxtape.engine import emit
from tests.frontend.onnx_graphs import model_of, tensors
from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("normalization"))
def test_as_keras(name: str) -> None:
    parity.check("normalization", name, rtol=5e-5, atol=1e-5)


def sample(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(np.float32)


def trained(layer: Any, x: Any) -> Any:
    """Three compiled or eager steps of SGD; the weights afterwards."""
    layer(x[:1])
    optimizer = ot.optimizers.SGD(0.1)

    def step(batch: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(ot.ops.sin(layer(batch, training=True)))
        grads = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply(grads, layer.trainable_variables)
        return loss

    return step


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (4, 2, 2, 3)])
def test_batch_statistics_move_inside_a_compiled_step(shape: tuple[int, ...]) -> None:
    """As eagerly, for batches of several sizes, in one trace."""
    layers = [ot.layers.BatchNormalization(momentum=0.5) for _ in range(2)]
    eager, step = (trained(layer, sample(shape)) for layer in layers)
    signature = [ot.TensorSpec((None, *shape[1:]), "float32")]
    compiled = ot.function(step, input_signature=signature, fallback="error")
    for i in range(4):
        x = sample((shape[0] - i % 2, *shape[1:]), i)
        np.testing.assert_allclose(eager(x), compiled(x), rtol=1e-4, atol=1e-6)
    assert compiled.trace_count == 1
    for a, b in zip(layers[0].weights, layers[1].weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)
    mean = layers[1].moving_mean.numpy()
    assert np.all(np.abs(mean) > 0.1), "the moving mean did not move"


def test_moving_statistics_are_state_that_training_leaves_alone() -> None:
    layer = ot.layers.BatchNormalization()
    layer(sample((4, 3)))
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [w.name for w in layer.trainable_weights] == ["gamma", "beta"]
    assert [w.role for w in layer.non_trainable_weights] == ["buffer", "buffer"]


def test_moving_statistics_are_momentum_times_old_plus_the_rest_of_the_batchs() -> None:
    layer, x = ot.layers.BatchNormalization(momentum=0.9), sample((7, 3))
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * x.mean(0), rtol=1e-5)
    # Divided by the count, as Keras does; PyTorch would divide by one less.
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * x.var(0), rtol=1e-5)


def test_a_frozen_layer_rests_inside_a_compiled_step() -> None:
    layer, x = ot.layers.BatchNormalization(), sample((4, 3))
    layer(x)
    layer.trainable = False
    y = ot.function(lambda x: layer(x, training=True), fallback="error")(x)
    np.testing.assert_allclose(y, x / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ot.layers.BatchNormalization(),
        lambda: ot.layers.LayerNormalization(),
        lambda: ot.layers.LayerNormalization(axis=1),
        lambda: ot.layers.GroupNormalization(3),
        lambda: ot.layers.RMSNormalization(),
        lambda: ot.layers.UnitNormalization(),
    ],
)
def test_functional_models_and_compiled_calls_agree_with_eager_ones(make: Any) -> None:
    layer = make()
    x = ot.Input((4, 6))
    model = ot.Model(x, layer(x))
    value = sample((3, 4, 6))
    expected = layer(value).numpy()
    np.testing.assert_allclose(model(value), expected, rtol=1e-5, atol=1e-6)
    signature = [ot.TensorSpec((None, 4, 6), "float32")]
    compiled = ot.function(lambda x: model(x), input_signature=signature, fallback="error")
    np.testing.assert_allclose(compiled(value), expected, rtol=1e-5, atol=1e-6)


def test_float16_layers_normalize_in_float32() -> None:
    x = (sample((64, 4)) * 100).astype(np.float16)
    wide = x.astype(np.float32)
    z = (wide - wide.mean(0)) / wide.std(0)
    y = ot.layers.BatchNormalization(dtype="float16")(x, training=True)
    assert y.dtype == "float16"
    np.testing.assert_allclose(y.numpy(), z, atol=5e-3)
    y = ot.layers.LayerNormalization(dtype="float16")(x)
    rows = wide - wide.mean(1, keepdims=True)
    np.testing.assert_allclose(y.numpy(), rows / rows.std(1, keepdims=True), atol=5e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_zero_vectors_stay_zero_and_have_no_nan(dtype: str) -> None:
    x = ot.Variable(np.zeros((2, 3), dtype))
    with ot.GradientTape() as tape:
        y = ot.ops.normalize(x)
    np.testing.assert_array_equal(y, np.zeros((2, 3)))
    assert not np.any(np.isnan(tape.gradient(y, x)))


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: ot.layers.BatchNormalization(name="b"), (3,), "BatchNormalization 'b' takes a "
         r"batch of channels, not inputs of shape \(3,\)"),
        (lambda: ot.layers.BatchNormalization(axis=4, name="b"), (2, 3), "axis 4 is out of range"),
        (lambda: ot.layers.GroupNormalization(4, name="g"), (2, 6), "GroupNormalization 'g' cannot "
         "divide 6 channels into 4 groups"),
    ],
)  # fmt: skip
def test_what_layers_refuse(make: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ot.errors.ShapeError, match=message):
        make()(np.ones(shape, np.float32))


def test_layers_need_the_sizes_of_their_weights() -> None:
    with pytest.raises(ot.errors.ShapeError, match=r"'l' needs inputs of a known size along axes"):
        ot.layers.LayerNormalization(name="l")(ot.Input((4, None)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ot.layers.BatchNormalization(synchronized=True), "no replicas"),
        (
            lambda: ot.layers.BatchNormalization(renorm=True, renorm_clipping={"r": 1.0}),
            "bounds 'rmax', 'rmin', 'dmax', not 'r'",
        ),
        (
            lambda: ot.layers.BatchNormalization(
                renorm=True, renorm_clipping={"rmin": 2.0, "rmax": 1.0}
            ),
            r"rmax \(1.0\) is below rmin \(2.0\)",
        ),
        (
            lambda: ot.layers.BatchNormalization(renorm=True, renorm_clipping={"dmax": -1.0}),
            "dmax is a size, not -1.0",
        ),
        (lambda: ot.layers.GroupNormalization(0), r"positive number of groups \(or -1\), not 0"),
        (lambda: ot.ops.normalize([1.0], order=0), "order is a whole number from 1 on, not 0"),
        (lambda: ot.ops.moments([1.0], [0], synchronized=True), "needs replicas"),
    ],
)
def test_arguments_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_operations_name_shapes_that_do_not_fit() -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(
        ot.errors.ShapeError, match=r"weight of shape \(4,\) does not fit axes \(1,\)"
    ):
        ot.ops.layer_normalization(x, np.ones(4, np.float32))
    with pytest.raises(ot.errors.ShapeError, match=r"vector of shape \(2,\) does not fit axis 1"):
        ot.ops.batch_normalization(x, np.ones(2), np.ones(2), -1)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_normalization_without_statistics_gets_them_where_it_has_not_run(
    compiled: bool,
) -> None:
    """As models from elsewhere have it: one output. Eagerly, the statistics are made again."""
    x, scale = sample((3, 4)), np.full(4, 0.5, np.float32)

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            (y,) = emit("LayerNormalization", [x, ot.Tensor(scale)], {"epsilon": 1e-3})
            loss = ot.ops.sum(ot.ops.sin(y))
        return tape.gradient(loss, x)

    t = ot.Tensor(x)
    with ot.GradientTape() as tape:
        tape.watch(t)
        loss = ot.ops.sum(ot.ops.sin(ot.ops.layer_normalization(t, scale, epsilon=1e-3)))
    expected = tape.gradient(loss, t)
    if not compiled:
        np.testing.assert_allclose(step(t), expected, rtol=1e-5, atol=1e-6)
        return
    run = ot.function(step, fallback="error")
    np.testing.assert_allclose(run(t), expected, rtol=1e-5, atol=1e-6)
    nodes = run.get_concrete_function(t).model.graph.node
    assert "ReduceMean" not in [node.op_type for node in nodes]


def test_one_step_in_inference_and_twice_in_training() -> None:
    """The gradient is the sum of its parts': ONNX Runtime writes over statistics that it is given.

    A model from elsewhere, where the running statistics are the operator's own outputs.
    """
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=4).astype("f") for name in ("scale", "bias", "mean")}
    weights["variance"] = np.float32([0.5, 1, 2, 3])
    proto = model_of(
        [helper.make_node("BatchNormalization", ["x", *weights], ["logits"])], tensors(**weights)
    )
    batches = rng.normal(size=(3, 8, 4)).astype("f")

    def loss_of(model: Any, which: int) -> Any:
        y = model(batches[which], training=which > 0)
        return ot.ops.sum(y**3)

    def gradient_of(*parts: int) -> Any:
        model = ot.load_onnx(proto, trainable=["scale", "bias"])

        @ot.function(fallback="error")
        def step() -> Any:
            with ot.GradientTape() as tape:
                loss = sum(loss_of(model, part) for part in parts)
            return tape.gradient(loss, model.trainable_variables)

        return np.stack([np.asarray(g) for g in step()]), model

    parts = [gradient_of(i)[0] for i in range(3)]
    together, model = gradient_of(0, 1, 2)
    np.testing.assert_allclose(together, np.sum(parts, 0), rtol=1e-4)
    mean, variance = weights["mean"], weights["variance"]
    for batch in batches[1:]:
        mean, variance = (
            0.9 * old + 0.1 * new for old, new in ((mean, batch.mean(0)), (variance, batch.var(0)))
        )
    found = {v.path: v for v in model.variables}
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["variance"], variance, rtol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_an_infinity_in_one_batch_does_not_reach_the_next_ones(plain: bool, compiled: bool) -> None:
    """The moving statistics are lost, as in Keras; training does not read them."""
    layer = ot.layers.BatchNormalization(center=not plain, scale=not plain)
    layer.build((None, 3))

    def gradient(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = ot.ops.sum(layer(x, training=True) ** 3)
        return tape.gradient(y, x)

    run = ot.function(gradient, fallback="error") if compiled else gradient
    x = ot.convert_to_tensor(np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32))
    expected = np.array(run(x))
    run(ot.convert_to_tensor(np.full((8, 3), np.inf, np.float32)))
    assert not np.isfinite([w.numpy() for w in layer.weights[-2:]]).any()
    for _ in range(2):
        np.testing.assert_allclose(run(x), expected, rtol=1e-5, atol=1e-6)
