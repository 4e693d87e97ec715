"""Which variables are trained is part of what a trace depends on."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import layers
from tests.frontend.onnx_graphs import mlp

X = np.random.default_rng(0).standard_normal((8, 3), dtype=np.float32)
Y = np.random.default_rng(1).standard_normal((8, 2), dtype=np.float32)


def perceptron() -> ot.Sequential:
    model = ot.Sequential([layers.Dense(4, "tanh"), layers.Dense(2)])
    model.build((None, 3))
    weights = np.random.default_rng(2)
    model.set_weights([weights.standard_normal(v.shape) for v in model.weights])
    return model


def training_of(model: Any, optimizer: Any) -> Any:
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(ot.ops.square(model(x) - y))
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    return step


def test_freezing_and_thawing_between_steps_is_what_it_is_eagerly() -> None:
    compiled, plain = perceptron(), perceptron()
    step = ot.function(training_of(compiled, ot.optimizers.Adam(0.1)))
    eager = training_of(plain, ot.optimizers.Adam(0.1))
    traces = []
    for frozen in (None, 1, 1, None, 0, 1, None, 0):
        for model in (compiled, plain):
            for i, layer in enumerate(model.layers):
                layer.trainable = i != frozen
        before = [w.copy() for w in compiled.get_weights()]
        np.testing.assert_allclose(step(X, Y), eager(X, Y), rtol=1e-5)
        for ours, theirs in zip(compiled.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        moved = [
            not np.array_equal(*pair) for pair in zip(before, compiled.get_weights(), strict=True)
        ]
        assert moved == [frozen != 0] * 2 + [frozen != 1] * 2
        traces.append(step.trace_count)
    # A trace for each set of trained weights, which is found again.
    assert traces == [1, 2, 2, 2, 3, 3, 3, 3]


def test_one_variable_can_be_frozen() -> None:
    model = perceptron()
    step = ot.function(training_of(model, ot.optimizers.SGD(0.1)))
    step(X, Y)
    kernel = model.layers[1].weights[0]
    kernel.trainable = False
    before = kernel.numpy()
    step(X, Y)
    step(X[:4], Y[:4])
    np.testing.assert_array_equal(kernel.numpy(), before)


def test_weights_made_by_the_first_step_can_be_frozen() -> None:
    model = ot.Sequential([layers.Dense(4), layers.Dense(2)])
    step = ot.function(training_of(model, ot.optimizers.SGD(0.1)))
    step(X, Y)
    model.layers[1].trainable = False
    before = model.layers[1].get_weights()
    step(X, Y)
    np.testing.assert_array_equal(model.layers[1].get_weights()[0], before[0])


def test_set_trainable_of_an_onnx_model_after_the_first_step(tmp_path: Any) -> None:
    path = tmp_path / "mlp.onnx"
    path.write_bytes(mlp().SerializeToString())
    model = ot.load_onnx(path)
    names = model.weight_names
    step = ot.function(training_of(model, ot.optimizers.SGD(0.1)))
    x = np.random.default_rng(0).standard_normal((4, 4), dtype=np.float32)
    y = np.zeros(model(x).shape, np.float32)
    step(x, y)
    model.set_trainable([names[-1]])
    before = model.trained_weights()
    step(x, y)
    after = model.trained_weights()
    assert [name for name in names if not np.array_equal(before[name], after[name])] == [names[-1]]


@pytest.mark.parametrize("signature", [None, [ot.TensorSpec([None, 3]), ot.TensorSpec([None, 2])]])
def test_what_changes_nothing_is_not_traced_again(signature: Any) -> None:
    model, other = perceptron(), perceptron()
    step = ot.function(training_of(model, ot.optimizers.SGD(0.1)), input_signature=signature)
    step(X, Y)
    model.trainable = True
    other.trainable = False
    model.weights[0].trainable = True
    step(X, Y)
    step(x=X, y=Y)
    assert step.trace_count == 1
    model.layers[0].trainable = False
    model.layers[0].trainable = True
    step(X, Y)
    assert step.trace_count == 1
    model.layers[0].trainable = False
    concrete = step.get_concrete_function()
    assert step.trace_count == 2
    step(X, Y)
    assert step.get_concrete_function(X, Y) is concrete
    assert step.trace_count == 2


def test_a_step_that_freezes_and_thaws_a_part_itself_is_traced_once() -> None:
    model = perceptron()
    optimizer = ot.optimizers.SGD(0.1)
    inner = training_of(model, optimizer)

    @ot.function
    def step(x: Any, y: Any) -> Any:
        model.layers[1].trainable = False
        loss = inner(x, y)
        model.layers[1].trainable = True
        return loss

    optimizer.build(model.trainable_variables)
    before = model.get_weights()
    for _ in range(3):
        step(X, Y)
    after = model.get_weights()
    assert step.trace_count == 1
    np.testing.assert_array_equal(before[2], after[2])
    assert not np.array_equal(before[0], after[0])


def test_a_compiled_method_still_goes_with_its_model() -> None:
    class Trained(ot.Sequential):
        @ot.function
        def fitted(self, x: Any) -> Any:
            with ot.GradientTape() as tape:
                loss = ot.ops.sum(self(x))
            return tape.gradient(loss, self.trainable_variables)

    model = Trained([layers.Dense(2)])
    assert len(model.fitted(X)) == 2
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
