"""Models: sequential and subclassed; how they nest, train and freeze."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import ShapeError, VariableError
from tests.frontend.samples import x32

Dense = ot.layers.Dense


def affine(x: Any, layer: Any) -> Any:
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5)


# Sequential --------------------------------------------------------------------------------------


def test_a_sequential_with_an_input_is_built_at_once() -> None:
    model = ot.Sequential([ot.Input((3,)), Dense(4, activation="relu"), Dense(2)])
    assert model.built
    assert [v.path for v in model.weights] == [
        "sequential/dense/kernel",
        "sequential/dense/bias",
        "sequential/dense_1/kernel",
        "sequential/dense_1/bias",
    ]
    assert model.count_params() == 3 * 4 + 4 + 4 * 2 + 2
    assert (model.input_shape, model.output_shape) == ((None, 3), (None, 2))
    x, (first, second) = x32(5, 3), model.layers
    close(model(x), affine(np.maximum(affine(x, first), 0), second))


def test_a_sequential_without_an_input_is_built_by_its_first_call() -> None:
    model = ot.Sequential([Dense(4), Dense(2)], name="later")
    assert not model.built
    assert model.weights == []
    with pytest.raises(ValueError, match=r"inputs of model 'later' are not known yet"):
        _ = model.input_specs
    y = model(x32(5, 3))
    assert y.shape == (5, 2)
    assert model.built
    assert [v.path for v in model.weights][:2] == ["later/dense/kernel", "later/dense/bias"]
    assert model.input_specs.shape == (None, 3)
    assert model(x32(7, 3)).shape == (7, 2)
    explicit = ot.Sequential([Dense(4), Dense(2)])
    explicit.build((None, 3))
    assert explicit.count_params() == model.count_params()


def test_layers_are_added_and_taken_off() -> None:
    model = ot.Sequential(name="m")
    model.add(ot.Input((3,)))
    model.add(Dense(4))
    assert model.output_shape == (None, 4)
    model.add(Dense(2))
    assert model.output_shape == (None, 2)
    last = model.pop()
    assert last.units == 2
    assert model.output_shape == (None, 4)
    close(model(x32(2, 3)), affine(x32(2, 3), model.layers[0]))
    model.pop()
    with pytest.raises(ValueError, match=r"Sequential 'm' has no layers"):
        model.pop()


def test_what_a_sequential_takes() -> None:
    with pytest.raises(TypeError, match=r"Sequential takes layers, not int"):
        ot.Sequential([3])
    with pytest.raises(ValueError, match=r"an Input comes first .*, and only once"):
        ot.Sequential([Dense(2), ot.Input((3,))])
    with pytest.raises(ValueError, match=r"an Input comes first .*, and only once"):
        ot.Sequential([ot.Input((3,)), ot.Input((3,))])
    x = ot.Input((3,))
    with pytest.raises(TypeError, match=r"Sequential takes layers, not Tensor"):
        ot.Sequential([x * 2.0])


def test_a_sequential_in_a_sequential() -> None:
    inner = ot.Sequential([Dense(4), Dense(3)], name="inner")
    model = ot.Sequential([ot.Input((2,)), inner, Dense(1)], name="outer")
    assert [v.path for v in model.weights if v.path.endswith("kernel")] == [
        "outer/inner/dense/kernel",
        "outer/inner/dense_1/kernel",
        "outer/dense_2/kernel",
    ]
    x = x32(3, 2)
    hidden = affine(affine(x, inner.layers[0]), inner.layers[1])
    close(model(x), affine(hidden, model.layers[1]))


# Subclassed --------------------------------------------------------------------------------------


class TwoHeads(ot.Model):
    """A model with a block used twice, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Dense(4, activation="relu")
        self.heads = {"mean": Dense(1), "scale": Dense(1)}
        self.drop = ot.layers.Dropout(0.5)
        self.seen = ot.Variable(0, trainable=False, name="seen")

    def call(self, x: Any, training: bool = False) -> Any:
        self.seen.assign_add(1)
        hidden = self.drop(self.block(self.block(x)))
        return {name: head(hidden) for name, head in self.heads.items()}


def test_a_subclassed_model() -> None:
    model = TwoHeads()
    x = x32(5, 4)
    found = model(x)
    hidden = x
    for _ in range(2):
        hidden = np.maximum(affine(hidden, model.block), 0)
    close(found["mean"], affine(hidden, model.heads["mean"]))
    close(found["scale"], affine(hidden, model.heads["scale"]))
    assert [v.path for v in model.weights] == [
        "seen",
        "two_heads/dense/kernel",
        "two_heads/dense/bias",
        "two_heads/dense_1/kernel",
        "two_heads/dense_1/bias",
        "two_heads/dense_2/kernel",
        "two_heads/dense_2/bias",
    ]
    step = ot.function(lambda x: model(x, training=True), fallback="error")
    assert not np.array_equal(step(x)["mean"].numpy(), step(x)["mean"].numpy())
    assert int(model.seen) == 3
    assert model.input_specs.shape == (None, 4)


def test_layers_by_name_and_index() -> None:
    model = TwoHeads()
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "dense_2", "dropout"]
    assert model.get_layer("dense_1") is model.heads["mean"]
    assert model.get_layer(index=-1) is model.drop
    with pytest.raises(ValueError, match=r"no layer named 'x'; it has dense, dense_1, dense_2"):
        model.get_layer("x")
    with pytest.raises(ValueError, match=r"'two_heads' has 4 layers, none at 4"):
        model.get_layer(index=4)


# Training ----------------------------------------------------------------------------------------


def two_layers() -> Any:
    return ot.Sequential([ot.Input((3,)), Dense(4, activation="tanh"), Dense(1)])


def train(model: Any, steps: int = 3, compiled: bool = True, losses: bool = False) -> list[float]:
    optimizer = ot.optimizers.SGD(0.1)
    loss_fn = ot.losses.MeanSquaredError()

    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
            for extra in model.losses if losses else ():
                loss = loss + extra
        optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
        return loss

    call = ot.function(step, fallback="error") if compiled else step
    return [float(call(x32(8, 3, seed=i), x32(8, 1, seed=i))) for i in range(steps)]


@pytest.mark.parametrize("compiled", [True, False])
def test_frozen_weights_stay_as_they_are(compiled: bool) -> None:
    model = two_layers()
    first, second = model.layers
    first.trainable = False
    assert [v.path for v in model.trainable_weights] == [v.path for v in second.weights]
    assert [v.path for v in model.non_trainable_weights] == [v.path for v in first.weights]
    before = model.get_weights()
    train(model, compiled=compiled)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, False, True, True]
    model.trainable = True
    train(model, compiled=compiled)
    assert not np.array_equal(before[0], first.kernel.numpy())


def test_compiled_and_eager_training_agree() -> None:
    models = [two_layers(), two_layers()]
    models[1].set_weights(models[0].get_weights())
    losses = [train(m, compiled=c) for m, c in zip(models, (True, False), strict=True)]
    close(losses[0], losses[1])
    for a, b in zip(*[m.get_weights() for m in models], strict=True):
        close(a, b)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_models_losses_can_be_trained_with(compiled: bool) -> None:
    def model_with(factor: float) -> Any:
        def penalty(w: Any) -> Any:
            return factor * ops.sum(ops.square(w))

        return ot.Sequential([ot.Input((3,)), Dense(1, kernel_regularizer=penalty)])

    plain, strict = model_with(0.0), model_with(1.0)
    start = [np.full((3, 1), 2.0), np.zeros(1)]
    for model in (plain, strict):
        model.set_weights(start)
    first = train(plain, 1, compiled, losses=True)
    second = train(strict, 1, compiled, losses=True)
    close(second[0] - first[0], 12.0)
    # One step of 0.1 along 2 w, w = 2, on top of the data's.
    close(plain.layers[0].kernel.numpy() - strict.layers[0].kernel.numpy(), np.full((3, 1), 0.4))


def test_set_weights_speaks_of_the_model() -> None:
    model = ot.Sequential([ot.Input((3,)), Dense(1)], name="m")
    with pytest.raises(VariableError, match=r"'m' has 2 weights \(m/dense/kernel, m/dense/bias\)"):
        model.set_weights([])
    with pytest.raises(VariableError, match=r"'m/dense/kernel' has shape \(3, 1\) and cannot"):
        model.set_weights([np.zeros((1, 3)), np.zeros(1)])
    model.set_weights([np.ones((3, 1), np.float64), [2.0]])
    close(model(np.ones((1, 3), np.float32)), [[5.0]])


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "sequential": lambda layer: ot.Sequential([ot.Input((3,)), layer]),
    "functional": lambda layer: ot.Model(x := ot.Input((3,)), layer(x)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_order_of_weights_is_that_of_get_and_set(name: str) -> None:
    model = WRAPPERS[name](Dense(2))
    weights = [x32(3, 2), x32(2)]
    model.set_weights(weights)
    for stored, weight, variable in zip(model.get_weights(), weights, model.weights, strict=True):
        np.testing.assert_array_equal(stored, weight)
        np.testing.assert_array_equal(variable.numpy(), weight)


def test_a_model_made_of_arrays_says_what_they_are() -> None:
    x = np.zeros((100, 3), np.float32)
    with pytest.raises(TypeError) as caught:
        ot.Model(x, x[:, :1])
    assert str(caught.value) == (
        "Model's inputs must be tensors that began with ot.Input, not ndarray of float32(100, 3)"
    )
    with pytest.raises(TypeError, match=r"outputs must be .* ot\.Input, not none"):
        ot.Model(ot.Input((3,)), [])


@pytest.mark.parametrize("declared", [True, False])
def test_a_stack_takes_its_one_input_as_keras_does(declared: bool) -> None:
    """Images without the axis of their one channel, or with one more; and out of a list."""
    first = [ot.Input((8, 8, 1))] if declared else []
    model = ot.Sequential([*first, ot.layers.Conv2D(2, 3), ot.layers.GlobalMaxPooling2D()])
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype("f")
    expected = model(images).numpy()
    step = ot.function(model.__call__)
    for call in (model, step, step):
        for given in (images[..., 0], images[..., None], [images], (images,)):
            np.testing.assert_array_equal(call(given), expected)
    with pytest.raises(ValueError, match=r"takes one input, but 2 were given; .*np.stack"):
        model([images, images])
    np.testing.assert_array_equal(model.predict(images[..., 0], verbose=0), expected)


def test_a_stack_refuses_another_rank_than_that_of_its_input() -> None:
    model = ot.Sequential([ot.Input((4,), name="x"), ot.layers.Dense(2)])
    for shape in ((4,), (2, 3, 4)):
        wanted = re.escape(f"takes (None, 4) for its input 'x', not {shape}")
        with pytest.raises(ShapeError, match=wanted):
            model(np.ones(shape, "f"))
    with pytest.raises(ShapeError, match=r"last dimension is known, not \(\(2, 4\),\)"):
        ot.layers.Dense(2)([np.ones((2, 4), "f")])


def test_a_stack_whose_first_layer_takes_several_inputs() -> None:
    model = ot.Sequential([ot.layers.Add(), ot.layers.Dense(2, use_bias=False)])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("f")
    for _ in range(2):
        y = model([x, 2 * x])
        np.testing.assert_allclose(y, 3 * x @ model.weights[0].numpy(), rtol=1e-5)
    assert model.built
