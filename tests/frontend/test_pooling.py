"""Pooling and resampling layers, and `ops.image`: as Keras, compiled, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxtape as ot
from onnxtape.errors import ShapeError
from tests.frontend.op_cases.pooling import ORACLES
from tests.reference import parity

layers = ot.layers


@pytest.mark.parametrize("name", parity.names("pooling"))
def test_pooling_as_keras(name: str) -> None:
    parity.check("pooling", name, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", parity.names("resampling"))
def test_resampling_as_keras(name: str) -> None:
    # TensorFlow takes bicubic weights from a table of 1024 places, unless it antialiases.
    parity.check("resampling", name, rtol=1e-5, atol=5e-3 if name == "bicubic" else 5e-6)


def image(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


@st.composite
def poolings(draw: Any) -> tuple[Any, ...]:
    rank = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank))
    padding = draw(st.sampled_from(["valid", "same"]))
    window = [draw(st.integers(1, n if padding == "valid" else 4)) for n in sizes]
    strides = draw(st.none() | st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    return (draw(st.integers(1, 2)), *sizes, 2), window, strides, padding


@settings(max_examples=40, deadline=None)
@given(poolings(), st.sampled_from(["max_pool", "average_pool"]))
def test_pooling_by_numpy(pooling: tuple[Any, ...], op: str) -> None:
    shape, *arguments = pooling
    x = image(*shape)
    found = getattr(ot.ops, op)(x, *arguments)
    expected = ORACLES[op](x, *arguments)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(poolings())
def test_gradients_of_pooling_keep_the_sum(pooling: tuple[Any, ...]) -> None:
    """Every window passes on exactly what it got; a window's maximum is reached where it went."""
    shape, *arguments = pooling
    x = ot.Variable(np.round(image(*shape)))
    for op in ("max_pool", "average_pool"):
        with ot.GradientTape() as tape:
            y = getattr(ot.ops, op)(x, *arguments)
            weights = image(*y.shape)
            value = ot.ops.sum(y * weights)
        gradient = np.asarray(tape.gradient(value, x))
        np.testing.assert_allclose(gradient.sum(), weights.sum(), rtol=1e-4, atol=1e-4)
        # Both are linear in x along the gradient: <gradient, x> = <weights, y>.
        inner = float(np.sum(gradient * x.numpy()))
        assert inner == pytest.approx(float(np.sum(np.asarray(y) * weights)), rel=1e-4, abs=1e-4)


MADE: list[tuple[Any, tuple[int | None, ...]]] = [
    (lambda: layers.MaxPooling2D(), (None, None, None, 2)),
    (lambda: layers.MaxPooling2D(3, 2, "same"), (None, None, None, 2)),
    (lambda: layers.MaxPooling2D(), (None, 6, 8, 2)),
    (lambda: layers.MaxPooling2D(), (None, 7, 9, 2)),
    (lambda: layers.AveragePooling2D(2), (None, None, 8, 2)),
    (lambda: layers.AveragePooling2D(2), (None, 6, 9, 2)),
    (lambda: layers.AveragePooling1D(3, 1, "same"), (None, None, 2)),
    (lambda: layers.MaxPooling3D(data_format="channels_first"), (None, 2, 4, 4, None)),
    (lambda: layers.GlobalMaxPooling2D(), (None, None, None, 2)),
    (lambda: layers.GlobalAveragePooling1D(keepdims=True), (None, None, 2)),
    (lambda: layers.Cropping2D(((1, 0), (0, 2))), (None, None, 6, 2)),
    (lambda: layers.ZeroPadding2D((1, 2)), (None, None, 6, 2)),
    (lambda: layers.UpSampling1D(3), (None, None, 2)),
    (lambda: layers.UpSampling2D((2, 3)), (None, None, 6, 2)),
    (lambda: layers.UpSampling2D(2, interpolation="bilinear"), (None, None, 6, 2)),
    (lambda: layers.UpSampling3D(2), (None, 2, 3, 4, 2)),
    (lambda: layers.Resizing(5, 4), (None, None, None, 2)),
    (lambda: layers.Resizing(5, 4, "bicubic"), (None, 7, 6, 2)),
    (lambda: layers.Resizing(3, 4, antialias=True), (None, None, 6, 2)),
]


@pytest.mark.parametrize(("make", "shape"), MADE, ids=lambda v: "" if callable(v) else str(v))
def test_compiled_for_every_size(make: Any, shape: tuple[int | None, ...]) -> None:
    """Outputs and gradients of one compiled step are those of eager mode."""
    layer = make()

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            value = ot.ops.sum(y * y)
        return y, tape.gradient(value, x)

    signature = [ot.TensorSpec(shape, "float32")]
    compiled = ot.function(step, input_signature=signature, fallback="error")
    for unknown in (6, 7):
        x = ot.Tensor(np.round(image(*(unknown if d is None else d for d in shape)), 1))
        for found, expected in zip(compiled(x), step(x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    assert compiled.trace_count == 1


def test_empty_batches() -> None:
    x = ot.Tensor(np.zeros((0, 4, 6, 2), np.float32))
    for layer in (
        layers.MaxPooling2D(),
        layers.MaxPooling2D(3, 1),
        layers.AveragePooling2D(2),
        layers.UpSampling2D(),
        layers.Resizing(3, 5),
    ):
        with ot.GradientTape() as tape:
            tape.watch(x)
            value = ot.ops.sum(layer(x))
        assert tape.gradient(value, x).shape == x.shape


def test_second_derivatives() -> None:
    x = ot.Variable(image(1, 4, 4, 1))
    for layer in (layers.MaxPooling2D(), layers.AveragePooling2D(2), layers.UpSampling2D()):
        with ot.GradientTape() as outer:
            with ot.GradientTape() as inner:
                y = layer(x)
                value = ot.ops.sum(y * y * y)
            slope = inner.gradient(value, x)
            norm = ot.ops.sum(slope * slope)
        found = np.asarray(outer.gradient(norm, x))
        assert np.isfinite(found).all()
        assert np.abs(found).max() > 0.1


def test_infinite_maxima_win_and_nan_gets_nothing() -> None:
    x = ot.Variable(np.asarray([[[np.inf], [np.inf], [1.0], [np.nan], [3.0], [2.0]]], np.float32))
    with ot.GradientTape() as tape:
        value = ot.ops.sum(layers.MaxPooling1D(2)(x))
    gradient = np.asarray(tape.gradient(value, x))[0, :, 0]
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[[0, 1, 3, 4, 5]], [1, 0, 0, 1, 0])


def test_aliases() -> None:
    for kind, alias in [("Max", "Max"), ("Average", "Avg")]:
        for rank in (1, 2, 3):
            for whole in ("", "Global"):
                short, long = f"{whole}{alias}Pool{rank}D", f"{whole}{kind}Pooling{rank}D"
                assert getattr(layers, short) is getattr(layers, long)


def test_attributes() -> None:
    pool = layers.MaxPooling2D(3)
    assert (pool.pool_size, pool.strides) == ((3, 3), (3, 3))
    assert (pool.padding, pool.data_format) == ("valid", "channels_last")
    assert layers.Cropping1D(2).cropping == (2, 2)
    assert layers.Cropping2D((1, 2)).cropping == ((1, 1), (2, 2))
    assert layers.ZeroPadding3D(((0, 1), 2, (3, 3))).padding == ((0, 1), (2, 2), (3, 3))
    assert layers.UpSampling1D(3).size == 3
    assert layers.UpSampling2D().size == (2, 2)


BAD_ARGUMENTS: list[tuple[Any, str]] = [
    (lambda: layers.MaxPooling2D((2, 2, 2)), r"pool_size takes one number or 2, not \(2, 2, 2\)"),
    (lambda: layers.MaxPooling2D(2, strides=0), r"strides takes numbers from 1 on"),
    (lambda: layers.AveragePooling1D(2, padding="full"), r"AveragePooling1D: padding is 'valid'"),
    (lambda: layers.GlobalMaxPooling2D("last"), r"data_format is 'channels_last' or"),
    (lambda: layers.Cropping2D((1, 2, 3)), r"cropping takes a number, or 2 numbers or pairs"),
    (lambda: layers.Cropping1D((1, 2, 3)), r"cropping takes a number or a pair, not \(1, 2, 3\)"),
    (lambda: layers.ZeroPadding2D(-1), r"padding takes no negative numbers, as in -1"),
    (lambda: layers.UpSampling2D(0), r"size takes numbers from 1 on, not 0"),
    (
        lambda: layers.UpSampling2D(2, interpolation="area"),
        r"interpolation is one of .* not 'area'",
    ),
    (lambda: ot.ops.image.resize(image(4, 4, 1), (2, 2), "area"), r"resize: interpolation is one"),
    (lambda: ot.ops.image.resize(image(4, 4, 1), (2,)), r"resize: size is \(height, width\)"),
    (
        lambda: ot.ops.image.resize(image(4, 4, 1), (2, 2), fill_mode="reflect"),
        r"resize: fill_mode is 'constant', not 'reflect'",
    ),
    (
        lambda: layers.Resizing(2, 2, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True)(
            image(4, 4, 1)
        ),
        r"take crop_to_aspect_ratio or pad_to_aspect_ratio, not both",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS)
def test_arguments_that_make_no_sense(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


BAD_SHAPES: list[tuple[Any, str]] = [
    (lambda: layers.MaxPooling2D()(image(2, 4, 4)), r"takes inputs of rank 4 .* not \(2, 4, 4\)"),
    (lambda: layers.GlobalMaxPooling1D()(image(2, 4)), r"takes inputs of rank 3"),
    (
        lambda: ot.ops.max_pool(image(1, 2, 5, 1), 3),
        r"max_pool: a window of \(3, 3\) is larger than the inputs \(1, 2, 5, 1\).*same",
    ),
    (lambda: ot.ops.average_pool(image(2, 3), 2), r"average_pool takes inputs of rank 3"),
    (
        lambda: layers.Cropping2D(2)(image(1, 4, 5, 1)),
        r"cropping \(2, 2\) leaves nothing of axis 1",
    ),
    (lambda: ot.ops.image.resize(image(4, 4), (2, 2)), r"resize takes an image \(rank 3\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD_SHAPES)
def test_shapes_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()


def test_sizes_that_have_to_be_known() -> None:
    def refuse(call: Any, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            ot.function(call).get_concrete_function(ot.TensorSpec((None, None, None, 1)))

    refuse(
        lambda x: ot.ops.max_pool(x, 2, 3, "same"),
        r'padding="same" with strides larger than the window needs inputs whose size is known',
    )
    refuse(
        lambda x: ot.ops.image.resize(x, (2, 3), crop_to_aspect_ratio=True),
        r"needs images whose size is known where the aspect ratio counts",
    )


def test_models_know_their_shapes() -> None:
    """What layers make is known for any batch, so that the next layer can be built."""
    x = ot.Input((6, 8, 3))
    assert layers.MaxPooling2D()(x).shape[1:] == (3, 4, 3)
    assert layers.AveragePooling2D(3, 2, "same")(x).shape[1:] == (3, 4, 3)
    assert layers.GlobalAveragePooling2D()(x).shape[1:] == (3,)
    assert layers.UpSampling2D((2, 3))(x).shape[1:] == (12, 24, 3)
    assert layers.UpSampling2D(2, interpolation="bilinear")(x).shape[1:] == (12, 16, 3)
    assert layers.Resizing(5, 4, pad_to_aspect_ratio=True)(x).shape[1:] == (5, 4, 3)
    assert layers.Cropping2D(1)(x).shape[1:] == (4, 6, 3)
    assert layers.ZeroPadding2D(1)(x).shape[1:] == (8, 10, 3)
