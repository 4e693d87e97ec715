"""Attention layers, embeddings and the layers that make noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("attention"))
def test_as_keras(name: str) -> None:
    parity.check("attention", name, rtol=5e-5, atol=1e-5)


def sample(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_attention_compiles_once_for_every_batch_and_length() -> None:
    layer = ot.layers.MultiHeadAttention(2, 4)

    def step(x: Any, mask: Any) -> Any:
        with ot.GradientTape() as tape:
            y = layer(x, x, attention_mask=mask, use_causal_mask=True)
            loss = ot.ops.sum(y * y)
        return y, tape.gradient(loss, layer.trainable_variables)

    signature = [ot.TensorSpec((None, None, 6), "float32"), ot.TensorSpec((None, None, None), bool)]
    compiled = ot.function(step, input_signature=signature, fallback="error")
    for batch, length in ((2, 3), (1, 5), (3, 1)):
        x = sample((batch, length, 6), length)
        mask = np.random.default_rng(length).random((batch, length, length)) < 0.7
        (y, grads), (expected, slopes) = compiled(x, mask), step(x, mask)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        for grad, slope in zip(grads, slopes, strict=True):
            np.testing.assert_allclose(grad, slope, rtol=1e-3, atol=1e-4)
    assert compiled.trace_count == 1


def test_attention_in_a_functional_model() -> None:
    query, value = ot.Input((3, 6)), ot.Input((None, 5))
    layer = ot.layers.MultiHeadAttention(2, 4, output_shape=3)
    model = ot.Model([query, value], layer(query, value))
    arrays = [sample((2, 3, 6)), sample((2, 4, 5))]
    np.testing.assert_allclose(model(arrays), layer(*arrays), rtol=1e-5, atol=1e-6)


def test_dropped_attention_weights_are_drawn_anew() -> None:
    x = sample((2, 3, 4))
    layer = ot.layers.MultiHeadAttention(1, 4, dropout=0.5, seed=3)
    first, second, rest = (layer(x, x, training=t).numpy() for t in (True, True, False))
    assert not np.allclose(first, second)
    assert not np.allclose(first, rest)
    ones = ot.layers.Attention(dropout=0.5, seed=3)
    assert not np.allclose(ones([x, x], training=True), ones([x, x]))


def test_a_table_s_gradient_is_added_row_by_row() -> None:
    layer = ot.layers.Embedding(5, 2)

    @ot.function(fallback="error")
    def step(places: Any) -> Any:
        with ot.GradientTape() as tape:
            y = ot.ops.sum(layer(places) * 3.0)
        return tape.gradient(y, layer.embeddings)

    layer.build()
    places = np.array([1, 4, 1])
    np.testing.assert_array_equal(
        step(places), np.array([[0, 0], [6, 6], [0, 0], [0, 0], [3, 3]], np.float32)
    )
    ops = [node.op_type for node in step.get_concrete_function(places).model.graph.node]
    assert "ScatterND" in ops
    assert "ScatterElements" not in ops


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ot.layers.Embedding(0, 2), "input_dim is a positive whole number, not 0"),
        (lambda: ot.layers.MultiHeadAttention(0, 2), "positive number of heads, not 0"),
        (lambda: ot.layers.MultiHeadAttention(1, 2, flash_attention=True), "no flash attention"),
        (lambda: ot.layers.GroupQueryAttention(2, 3, 2), "3 query heads cannot share 2 key heads"),
        (lambda: ot.layers.Attention(score_mode="sum"), "'dot' or 'concat', not 'sum'"),
        (lambda: ot.layers.Attention()(sample((2, 3, 4))), r"takes a list: \[query, value\] or"),
        (lambda: ot.layers.GaussianNoise(2.0), "lies between 0 and 1, not at 2.0"),
        (lambda: ot.layers.GaussianDropout(1.0), r"lies in \[0, 1\), not at 1.0"),
        (lambda: ot.layers.AlphaDropout(-0.1), r"lies in \[0, 1\), not at -0.1"),
        (lambda: ot.layers.SpatialDropout2D(0.1, "first"), "'channels_last' or 'channels_first'"),
    ],
)
def test_arguments_that_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ot.layers.MultiHeadAttention(1, 2, attention_axes=(3,), name="m")(
            *[sample((2, 3, 4, 5))] * 2),
         r"'m': attention_axes are axes between the batch's and the last one, \[1, 2\] here, not"
         r" \(3,\)"),
        (lambda: ot.layers.MultiHeadAttention(1, 2, name="m")(
            *[sample((2, 3, 4, 5))] * 2, use_causal_mask=True),
         r"'m' attends along several axes, which have no order for use_causal_mask"),
        (lambda: ot.layers.MultiHeadAttention(1, 2, name="m")(
            *[sample((2, 3, 4, 5))] * 2, attention_mask=np.ones((2, 12, 12), bool)),
         r"'m': attention_mask ends in the attended axes of queries and keys, 2 each, and begins "
         r"with the batch's; its shape is \(2, 12, 12\)"),
        (lambda: ot.layers.MultiHeadAttention(1, 2, name="m")(sample((2, 3)), sample((2, 3))),
         r"MultiHeadAttention 'm' takes a query of shape \(batch, length, a known size\), not"),
        (lambda: ot.ops.dot_product_attention(*[sample((2, 3, 4))] * 3),
         r"query has shape \(2, 3, 4\); it takes \(batch, length, heads, size\)"),
        (lambda: ot.ops.dot_product_attention(sample((2, 3, 3, 4)), *[sample((2, 3, 2, 4))] * 2),
         "3 query heads cannot share 2 key heads"),
        (lambda: ot.layers.SpatialDropout1D(0.1, name="s")(sample((2, 3)), training=True),
         r"SpatialDropout1D 's' takes inputs of rank 3, not of shape \(2, 3\)"),
    ],
)  # fmt: skip
def test_shapes_that_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ot.errors.ShapeError, match=message):
        call()


NOISE: dict[str, Any] = {
    "gaussian_noise": lambda seed=None: ot.layers.GaussianNoise(0.5, seed=seed),
    "gaussian_dropout": lambda seed=None: ot.layers.GaussianDropout(0.2, seed=seed),
    "alpha_dropout": lambda seed=None: ot.layers.AlphaDropout(0.2, seed=seed),
    "spatial_dropout": lambda seed=None: ot.layers.SpatialDropout1D(0.2, seed=seed),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_comes_only_in_training_and_from_the_seed(name: str) -> None:
    x = np.ones((8, 4, 16), np.float32)
    np.testing.assert_array_equal(NOISE[name]()(x), x)
    first, same = NOISE[name](seed=5), NOISE[name](seed=5)
    compiled = ot.function(lambda x: same(x, training=True), fallback="error")
    for _ in range(2):
        drawn = first(x, training=True).numpy()
        assert not np.array_equal(drawn, x)
        np.testing.assert_allclose(compiled(x), drawn, rtol=1e-5, atol=1e-6)


def test_what_the_noises_are_like() -> None:
    x = np.full((200, 500), 2.0, np.float32)
    added = ot.layers.GaussianNoise(0.5, seed=1)(x, training=True).numpy() - x
    assert abs(added.mean()) < 0.01
    assert abs(added.std() - 0.5) < 0.01
    factor = ot.layers.GaussianDropout(0.2, seed=1)(x, training=True).numpy() / x
    assert abs(factor.mean() - 1.0) < 0.01
    assert abs(factor.std() - 0.5) < 0.01


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = sample((400, 500))
    y = ot.layers.AlphaDropout(0.3, seed=1)(x, training=True).numpy()
    assert abs(y.mean()) < 0.01
    assert abs(y.std() - 1.0) < 0.01
    values, counts = np.unique(y, return_counts=True)
    # What is dropped takes one value: a * floor + b of Klambauer et al., section 3.
    floor, rate = -1.7580993408473766, 0.3
    a = ((1 - rate) * (1 + rate * floor**2)) ** -0.5
    assert values[counts.argmax()] == pytest.approx(a * floor * (1 - rate), rel=1e-5)
    assert counts.max() / y.size == pytest.approx(rate, abs=0.01)
    rows = ot.layers.AlphaDropout(0.3, noise_shape=(None, 1), seed=1)(x, training=True).numpy()
    assert set((rows == values[counts.argmax()]).mean(1)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("layer", "shape", "over"),
    [
        (lambda: ot.layers.SpatialDropout1D(0.5, seed=1), (8, 5, 6), (1,)),
        (lambda: ot.layers.SpatialDropout2D(0.5, seed=1), (8, 2, 3, 6), (1, 2)),
        (lambda: ot.layers.SpatialDropout2D(0.5, "channels_first", seed=1), (8, 6, 2, 3), (2, 3)),
        (lambda: ot.layers.SpatialDropout3D(0.5, seed=1), (8, 2, 2, 3, 6), (1, 2, 3)),
    ],
)
def test_whole_channels_are_dropped(layer: Any, shape: Any, over: Any) -> None:
    y = layer()(np.ones(shape, np.float32), training=True).numpy()
    channels = y.mean(over)
    assert set(channels.ravel()) == {0.0, 2.0}
    np.testing.assert_array_equal(y.std(over), np.zeros_like(channels))


def test_axes_of_unknown_sizes_are_attended_along() -> None:
    layer = ot.layers.MultiHeadAttention(2, 3, attention_axes=(2,))
    x = sample((2, 3, 4, 6))
    expected = layer(x, x).numpy()
    spec = ot.TensorSpec((None, None, None, 6), "float32")
    step = ot.function(lambda x: layer(x, x), input_signature=[spec], fallback="error")
    np.testing.assert_allclose(step(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    rows = layer(x.reshape(6, 1, 4, 6), x.reshape(6, 1, 4, 6)).numpy()
    np.testing.assert_allclose(rows.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
