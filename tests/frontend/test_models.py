"""Models: sequential, functional, subclassed; how they share, nest, freeze and are summarized."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import ShapeError, VariableError
from tests.frontend.op_cases.case import sample

Array = np.ndarray[Any, Any]
Dense = ot.layers.Dense


def x32(*shape: int, seed: int = 0) -> Array:
    return sample(shape, seed=seed).astype(np.float32)


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


# Functional --------------------------------------------------------------------------------------


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


# summary; the text itself is compared with Keras's in test_keras.py -------------------------------


def summary(model: Any) -> str:
    texts: list[str] = []
    model.summary(print_fn=texts.append)
    assert len(texts) == 1
    return texts[0]


def rows(text: str) -> list[list[str]]:
    """The table's cells."""
    lines = [line for line in text.splitlines() if line.startswith(("│", "┃"))]
    return [
        [cell.strip() for cell in line.strip("│┃").split("┃" if "┃" in line else "│")]
        for line in lines
    ]


def test_summary_of_a_functional_model() -> None:
    a, b = ot.Input((3,), name="a"), ot.Input((2,), name="b")
    model = ot.Model([a, b], Dense(1, name="top")(Dense(2, name="left")(a) + b), name="joined")
    assert rows(summary(model)) == [
        ["Layer (type)", "Output Shape", "Param #"],
        ["a (InputLayer)", "(None, 3)", "0"],
        ["left (Dense)", "(None, 2)", "8"],
        ["b (InputLayer)", "(None, 2)", "0"],
        ["top (Dense)", "(None, 1)", "3"],
    ]


def test_summary_of_a_subclassed_model() -> None:
    model = TwoHeads()
    assert rows(summary(model))[1] == ["dense (Dense)", "?", "0 (unbuilt)"]
    model(x32(1, 4))
    text = summary(model)
    # As in Keras: of the call that built it.
    assert rows(text)[1:3] == [
        ["dense (Dense)", "(1, 4)", "20"],
        ["dense_1 (Dense)", "(1, 1)", "5"],
    ]
    assert " Total params: 31 (124.00 B)" in text
    assert " Trainable params: 30 (120.00 B)" in text
    assert " Non-trainable params: 1 (4.00 B)" in text


def test_shapes_in_the_summary_of_a_subclassed_model() -> None:
    class Several(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = ot.layers.LSTM(3, return_state=True, name="recurrent")
            self.unused = Dense(1, name="unused")

        def call(self, x: Any) -> Any:
            return self.recurrent(x)

    model = Several()
    model(np.ones((4, 5, 2), np.float32))
    model(np.ones((1, 6, 2), np.float32))
    texts = [row[1] for row in rows(summary(model))[1:]]
    assert " ".join(texts[:2]) == "((4, 3), (4, 3), (4, 3))"
    assert texts[2] == "?"
    other = Several()
    other.build((None, 5, 2))
    assert rows(summary(other))[1][1].startswith("((None, 3), (None, 3)")


def test_what_the_optimizer_holds_is_in_the_summary_once_it_is_built() -> None:
    model = two_layers()
    model.compile("adam", "mse")
    assert "Optimizer" not in summary(model)
    x = np.ones((2, *model.input_shape[1:]), np.float32)
    model.fit(x, model.predict(x, verbose=0), verbose=0)
    # As in Keras: a mean and a square for each of 21 weights, the count and the rate.
    assert " Optimizer params: 44 (180.00 B)" in summary(model)
    assert " Total params: 65 (264.00 B)" in summary(model)


def test_layers_behind_a_dict_are_in_the_order_of_its_names_as_in_keras() -> None:
    inputs = {name: ot.Input((2,), name=name) for name in ("b", "a")}
    outputs = {name: Dense(1, name=name)(x) for name, x in zip("zy", inputs.values(), strict=True)}
    model = ot.Model(inputs, outputs)
    assert [v.path for v in model.weights] == ["y/kernel", "y/bias", "z/kernel", "z/bias"]
    made = model({name: np.ones((1, 2), np.float32) for name in "ab"})
    assert list(made) == ["z", "y"]


def test_the_state_of_metrics_is_listed_apart() -> None:
    """As in Keras, where `metrics_variables` has them."""

    class Tracked(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.tracker = ot.metrics.Mean(name="own")
            self.dense = Dense(2, name="dense")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Tracked()
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), verbose=0)
    for listed in (model.variables, model.weights, model.trainable_variables):
        assert [v.name for v in listed] == ["kernel", "bias"]
    assert model.non_trainable_variables == []
    assert [v.path for v in model.metrics_variables] == [
        "loss/total",
        "loss/count",
        "mean_absolute_error/total",
        "mean_absolute_error/count",
        "own/total",
        "own/count",
    ]
    assert model.dense.metrics_variables == []


def test_summary_goes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    two_layers().summary()
    printed = capsys.readouterr().out
    assert 'Model: "sequential"' in printed
    assert " Total params: 21 (84.00 B)" in printed


@pytest.mark.parametrize(
    ("count", "text"),
    [(100, "400.00 B"), (256, "1.00 KB"), (2**18, "1.00 MB"), (3 * 2**17, "1.50 MB")],
)
def test_sizes_in_a_summary(count: int, text: str) -> None:
    model = ot.Sequential([ot.Input((1,)), Dense(count, use_bias=False)])
    assert f"Total params: {count:,} ({text})" in summary(model)


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
