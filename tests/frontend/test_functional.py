"""Models of the functional API."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import ShapeError
from tests.frontend.samples import x32
from tests.frontend.test_models import affine, close

Dense = ot.layers.Dense


def both(model: Any, *inputs: Any) -> list[Any]:
    """What the model gives eagerly; compiled for every batch size, it gives the same."""
    given = inputs[0] if len(inputs) == 1 else list(inputs)
    eager = flat(model(given))
    specs = [ot.TensorSpec((None, *x.shape[1:]), x.dtype) for x in inputs]
    step = ot.function(
        lambda parts: model(parts[0] if len(parts) == 1 else parts),
        input_signature=[specs],
        fallback="error",
    )
    for size in (len(inputs[0]), 1):
        compiled = flat(step([x[:size] for x in inputs]))
        for a, b in zip(eager, compiled, strict=True):
            close(b, np.asarray(a)[:size])
    assert step.trace_count == 1
    return eager


def flat(tree: Any) -> list[Any]:
    """The leaves of dicts, lists and tuples."""
    if not isinstance(tree, (dict, list, tuple)):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree
    return [leaf for part in parts for leaf in flat(part)]


def test_several_inputs_and_outputs() -> None:
    a, b = ot.Input((3,), name="a"), ot.Input((2,), name="b")
    left, right, top = Dense(4, name="left"), Dense(4, name="right"), Dense(1, name="top")
    hidden = ops.relu(left(a) + right(b))
    model = ot.Model([a, b], [top(hidden), ops.mean(hidden, axis=1)])
    assert [x.shape for x in model.outputs] == [(None, 1), (None,)]
    x, y = x32(5, 3), x32(5, 2)
    expected = np.maximum(affine(x, left) + affine(y, right), 0)
    first, second = both(model, x, y)
    close(first, affine(expected, top))
    close(second, expected.mean(1))


def test_dicts_go_in_by_key_and_come_out_as_they_were() -> None:
    a, b = ot.Input((3,), name="a"), ot.Input((3,), name="b")
    model = ot.Model({"first": a, "second": b}, {"difference": a - b, "both": (a, b)})
    x, y = x32(2, 3), x32(2, 3, seed=1)
    for given in ({"first": x, "second": y}, {"second": y, "first": x}, [x, y]):
        found = model(given)
        assert list(found) == ["difference", "both"]
        close(found["difference"], x - y)
        assert isinstance(found["both"], tuple)
        close(found["both"][1], y)
    with pytest.raises(ValueError, match=r"model 'functional' was given no input 'second'"):
        model({"first": x})
    step = ot.function(lambda batch: model(batch)["difference"], fallback="error")
    close(step({"second": y, "first": x}), x - y)


def test_operations_between_layers() -> None:
    x = ot.Input((4, 6))
    scale = ot.Variable(np.float32(2.0), name="scale")
    rows = ops.reshape(x, (ops.shape(x)[0], -1, 3))
    y = ops.transpose(rows[:, ::-1] * scale, (0, 2, 1)) @ np.ones((8, 2), np.float32)
    big = y + np.arange(1000, dtype=np.float32).reshape(500, 2)[:3]
    model = ot.Model(x, ops.concatenate([big, -big], axis=-1))
    value = x32(3, 4, 6)
    expected = value.reshape(3, -1, 3)[:, ::-1].transpose(0, 2, 1) @ np.ones((8, 2))

    def check(factor: float) -> None:
        whole = expected * factor + np.arange(6).reshape(3, 2)
        close(both(model, value)[0], np.concatenate([whole, -whole], -1))

    check(2.0)
    # The model reads the variable when it is called, not when it was made.
    scale.assign(3.0)
    check(3.0)


def test_gradients_reach_variables_and_inputs_of_a_functional_model() -> None:
    x = ot.Input((3,))
    scale = ot.Variable(np.float32(2.0))
    model = ot.Model(x, ops.square(x) * scale)
    value = ot.Tensor(x32(2, 3))
    with ot.GradientTape(persistent=True) as tape:
        tape.watch(value)
        total = ops.sum(model(value))
    close(tape.gradient(total, value), 4 * value.numpy())
    close(tape.gradient(total, scale), (value.numpy() ** 2).sum())


def test_a_shared_layer_has_one_set_of_weights_and_the_sum_of_gradients() -> None:
    a, b = ot.Input((3,)), ot.Input((3,))
    shared = Dense(2, use_bias=False)
    model = ot.Model([a, b], shared(a) + 10.0 * shared(b))
    assert len(model.weights) == 1
    x, y = x32(4, 3), x32(4, 3, seed=1)
    close(both(model, x, y)[0], (x + 10 * y) @ shared.kernel.numpy())
    with ot.GradientTape() as tape:
        total = ops.sum(model([x, y]))
    close(tape.gradient(total, shared.kernel), (x + 10 * y).sum(0)[:, None] * np.ones(2))


def test_models_nest_and_share() -> None:
    x = ot.Input((3,))
    encoder = ot.Model(x, Dense(2, name="code")(x), name="encoder")
    classifier = ot.Sequential([ot.Input((3,)), encoder, Dense(5, name="head")])
    twice = ot.Model([a := ot.Input((3,)), b := ot.Input((3,))], encoder(a) - encoder(b))
    assert len(classifier.weights) == 4
    assert twice.weights == encoder.weights == classifier.weights[:2]
    value, other = x32(2, 3), x32(2, 3, seed=1)
    code = encoder.get_layer("code")
    close(both(twice, value, other)[0], affine(value, code) - affine(other, code))
    encoder.set_weights([np.zeros((3, 2)), np.ones(2)])
    close(classifier(value), affine(np.ones((2, 2)), classifier.layers[1]))


def test_a_model_from_the_middle_of_another() -> None:
    x = ot.Input((3,), name="x")
    first, second = Dense(4, name="first"), Dense(2, name="second")
    hidden = first(x)
    whole = ot.Model(x, second(hidden))
    head = ot.Model(hidden, second(hidden))
    features = ot.Model(whole.inputs, whole.layers[1](x))
    assert [v.path for v in head.weights] == ["second/kernel", "second/bias"]
    assert head.input_specs.shape == (None, 4)
    value = x32(2, 3)
    close(both(head, features(value).numpy())[0], np.asarray(whole(value)))


def test_a_gradient_may_stop_in_a_functional_model() -> None:
    x = ot.Input((3,))
    first, second = Dense(2, name="first"), Dense(2, name="second")
    hidden = first(x)
    model = ot.Model(x, second(ops.stop_gradient(hidden)) + 0.0 * hidden)
    value = x32(4, 3)
    close(both(model, value)[0], affine(affine(value, first), second))
    stopped = ot.Model(x, second(ops.stop_gradient(hidden)))
    with ot.GradientTape() as tape:
        total = ops.sum(stopped(value))
    gradients = tape.gradient(total, [first.kernel, second.kernel])
    assert gradients[0] is None
    assert gradients[1] is not None


def test_an_output_may_be_an_input() -> None:
    x = ot.Input((3,))
    model = ot.Model(x, [x, ot.layers.Identity()(x), ot.layers.Dropout(0.5)(x)])
    for found in both(model, x32(2, 3)):
        close(found, x32(2, 3))


def test_training_in_functional_models() -> None:
    x = ot.Input((50,))
    model = ot.Model(x, ot.layers.Dropout(0.5)(x))
    ones = np.ones((2, 50), np.float32)
    close(model(ones), ones)
    assert set(np.unique(model(ones, training=True).numpy())) == {0.0, 2.0}
    # What a call inside the model says, counts.
    always = ot.Model(x, ot.layers.Dropout(0.5)(x, training=True))
    never = ot.Model(x, ot.layers.Dropout(0.5)(x, training=False))
    assert 0.0 in always(ones).numpy()
    close(never(ones, training=True), ones)
    outer = ot.Sequential([ot.Input((50,)), model, ot.layers.Dropout(0.5)])
    assert set(np.unique(outer(ones, training=True).numpy())) == {0.0, 4.0}
    close(outer(ones), ones)


def test_inputs() -> None:
    x = ot.Input((3, None), dtype="int64", name="tokens")
    assert (x.shape, x.dtype) == ((None, 3, None), "int64")
    assert ot.Input((2,), batch_size=5).shape == (5, 2)
    assert ot.Input(batch_shape=(4, 2)).shape == (4, 2)
    assert ot.Input(()).shape == (None,)
    for given in ({}, {"shape": (2,), "batch_shape": (1, 2)}):
        with pytest.raises(ValueError, match=r"Input takes either shape .* or batch_shape"):
            ot.Input(**given)
    model = ot.Model(x, ops.cast(x, "float32"))
    assert (model.input_specs.name, model.input_specs.dtype) == ("tokens", "int64")


def test_what_a_functional_model_refuses() -> None:
    a, b = ot.Input((3,), name="a"), ot.Input((3,), name="b")
    with pytest.raises(ValueError, match=r"depend on Input 'b', which is not among its inputs"):
        ot.Model(a, a + b)
    with pytest.raises(
        TypeError, match=r"Model's outputs must be tensors that began with ot\.Input"
    ):
        ot.Model(a, ot.Tensor([1.0]))
    with pytest.raises(TypeError, match=r"Model's inputs must be tensors"):
        ot.Model([], a)
    model = ot.Model([a, b], a + b, name="sum")
    with pytest.raises(ValueError, match=r"model 'sum' takes 2 inputs, but 1 were given"):
        model(x32(2, 3))
    with pytest.raises(
        ShapeError, match=r"'sum' takes \(None, 3\) for its input 'b', not \(2, 4\)"
    ):
        model([x32(2, 3), x32(2, 4)])
    with pytest.raises(ShapeError, match=r"'sum' takes \(None, 3\) for its input 'a', not \(3,\)"):
        model([x32(3), x32(2, 3)])


def test_values_are_not_there_while_a_model_is_made() -> None:
    x = ot.Input((3,))
    for ask in (lambda: bool(x > 0), lambda: x.numpy(), lambda: float(x), lambda: np.asarray(x)):
        with pytest.raises(ot.errors.TracingError, match=r"tensor of the functional API has no"):
            ask()
    with pytest.raises(ShapeError, match=r"MatMul"):
        x @ np.ones((4, 2), np.float32)
