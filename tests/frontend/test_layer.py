"""`Layer`: what every layer has, and what subclasses write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import VariableError
from tests.frontend.samples import x32


class Scale(ot.layers.Layer):
    """Multiplies by a weight and counts its calls."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.builds = 0

    def build(self, input_shape: Any) -> None:
        self.builds += 1
        self.input_shape_seen = input_shape
        self.scale = self.add_weight((input_shape[-1],), "ones", name="scale")
        self.calls = self.add_weight((), "zeros", "int64", trainable=False, name="calls")

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1)
        return x * self.scale


def test_a_layer_is_built_once_from_its_first_input() -> None:
    layer = Scale()
    assert not layer.built
    assert layer.weights == []
    with pytest.raises(ValueError, match=r"layer 'scale' has no weights yet: call it on data"):
        layer.count_params()
    layer(x32(2, 3))
    layer(x32(5, 3))
    assert layer.built
    assert layer.builds == 1
    assert layer.input_shape_seen == (2, 3)
    assert [v.path for v in layer.weights] == ["scale/scale", "scale/calls"]
    assert [v.path for v in layer.trainable_weights] == ["scale/scale"]
    assert [v.path for v in layer.non_trainable_weights] == ["scale/calls"]
    assert [v.role for v in layer.weights] == ["parameter", "buffer"]
    assert layer.count_params() == 4
    assert int(layer.calls) == 2


def test_a_layer_may_be_built_inside_a_compiled_function() -> None:
    layer = Scale()
    step = ot.function(lambda x: layer(x), fallback="error")
    for count in (1, 2, 3):
        np.testing.assert_array_equal(step(x32(count, 3)).numpy(), x32(count, 3))
        assert int(layer.calls) == count
    assert layer.builds == 1


def test_add_weights_defaults() -> None:
    layer = ot.layers.Layer(name="owner")
    kernel, bias = layer.add_weight((30, 20)), layer.add_weight((2,), "zeros", name="bias")
    count = layer.add_weight((), dtype="int32")
    assert (kernel.path, kernel.dtype, kernel.trainable) == ("owner/weight", "float32", True)
    assert 0.3 < np.abs(kernel.numpy()).max() <= np.sqrt(6 / 50)
    assert bias.path == "owner/bias"
    assert (count.dtype, count.shape, int(count)) == ("int32", (), 0)
    twice = layer.add_weight((3,), lambda shape, dtype: 2 * ops.ones(shape, dtype))
    np.testing.assert_array_equal(twice.numpy(), [2, 2, 2])
    half = ot.layers.Layer(dtype="float16").add_weight((2,), "ones")
    assert half.dtype == "float16"


def test_variables_and_layers_in_attributes_belong_to_the_layer() -> None:
    layer = ot.layers.Layer()
    layer.one = ot.Variable(1.0, name="one")
    layer.blocks = [ot.layers.Dense(1, name="a")]
    layer.blocks.append(ot.layers.Dense(1, name="b"))
    layer.nested = {"x": (ot.layers.Dense(1, name="c"), ot.Variable(2.0, name="two"))}
    layer.number, layer.name_list = 3, ["text"]
    for part in (*layer.blocks, layer.nested["x"][0]):
        part.build((None, 2))
    names = ["one", "two", "a/kernel", "a/bias", "b/kernel", "b/bias", "c/kernel", "c/bias"]
    assert [v.path for v in layer.variables] == names
    layer.same = layer.blocks[0]
    assert [v.path for v in layer.variables] == names
    layer.blocks = layer.same = None
    assert [v.path for v in layer.variables] == ["one", "two", "c/kernel", "c/bias"]
    del layer.nested
    assert [v.path for v in layer.variables] == ["one"]


def test_names() -> None:
    names = [ot.layers.Dense(1).name for _ in range(3)]
    assert names == ["dense", "dense_1", "dense_2"]
    assert ot.layers.Dense(1, name="dense").name == "dense"
    assert repr(ot.layers.Dense(1, name="out")) == "<Dense name=out, built=False>"

    class HTTPHead2D(ot.layers.Layer):
        pass

    assert HTTPHead2D().name == "http_head2d"


def test_what_a_subclass_must_do() -> None:
    class Unfinished(ot.layers.Layer):
        def __init__(self) -> None:
            pass

    class Empty(ot.layers.Layer):
        pass

    with pytest.raises(RuntimeError, match=r"Unfinished\.__init__ must call super"):
        Unfinished()(x32(1))
    with pytest.raises(NotImplementedError, match=r"Empty has no call method"):
        Empty()(x32(1))


# Weights -----------------------------------------------------------------------------------------


def test_weights_are_copied_out_and_in() -> None:
    layer, other = ot.layers.Dense(2), ot.layers.Dense(2)
    for part in (layer, other):
        part.build((None, 3))
    taken = layer.get_weights()
    other.set_weights(taken)
    for a, b in zip(layer.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    taken[0][:] = 7
    assert not (layer.kernel.numpy() == 7).any()
    assert not (other.kernel.numpy() == 7).any()


def test_set_weights_refuses_all_or_nothing() -> None:
    layer = ot.layers.Dense(2, name="d")
    with pytest.raises(VariableError, match=r"'d' has 0 weights \(not built yet\), but 2 were"):
        layer.set_weights([np.zeros((3, 2)), np.zeros(2)])
    layer.build((None, 3))
    before = layer.get_weights()
    with pytest.raises(VariableError, match=r"has 2 weights \(d/kernel, d/bias\), but 1 were"):
        layer.set_weights([np.zeros((3, 2))])
    with pytest.raises(VariableError, match=r"'d/bias' has shape \(2,\) and cannot be .* \(3,\)"):
        layer.set_weights([np.zeros((3, 2)), np.zeros(3)])
    for value, expected in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_frozen_layers_list_no_trainable_weights() -> None:
    layer = Scale()
    layer(x32(2, 3))
    layer.trainable = False
    assert not layer.trainable
    assert layer.trainable_weights == layer.trainable_variables == []
    assert [v.path for v in layer.non_trainable_weights] == ["scale/scale", "scale/calls"]
    layer.trainable = True
    assert [v.path for v in layer.trainable_weights] == ["scale/scale"]
    assert Scale(trainable=False).trainable is False


# Losses ------------------------------------------------------------------------------------------


class Penalized(ot.layers.Layer):
    """Adds the mean of its inputs to the losses."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        self.add_loss(self.factor * ops.mean(x))
        return x


class TwoPenalties(ot.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.parts = [Penalized(1.0), Penalized(10.0)]

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        self.add_loss([ops.sum(x) * 100.0])
        return x


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_losses_are_those_of_the_last_call(mode: str) -> None:
    layer = TwoPenalties()

    def call(x: Any) -> Any:
        layer(x)
        return list(layer.losses)

    step = ot.function(call, fallback="error") if mode == "compiled" else call
    for value in (2.0, 3.0, 2.0):
        found = [float(loss) for loss in step(np.full((2, 1), value, np.float32))]
        assert found == [200 * value, value, 10 * value]


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_regularizers_and_activities(mode: str) -> None:
    def half(w: Any) -> Any:
        return 0.5 * ops.sum(ops.square(w))

    layer = ot.layers.Dense(
        2, kernel_regularizer=half, bias_regularizer=ops.sum, activity_regularizer=ops.sum
    )
    layer.build((None, 3))
    kernel, bias = x32(3, 2), x32(2)
    layer.set_weights([kernel, bias])
    x = x32(5, 3)

    def call(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = layer(x)
            total = ops.sum(ops.stack(layer.losses))
        return y, list(layer.losses), tape.gradient(total, layer.trainable_weights)

    y, losses, gradients = (
        ot.function(call, input_signature=[ot.TensorSpec((None, 3))], fallback="error")
        if mode == "compiled"
        else call
    )(x)
    np.testing.assert_allclose(
        [float(loss) for loss in losses],
        [y.numpy().sum() / 5, 0.5 * (kernel**2).sum(), bias.sum()],
        rtol=1e-5,
    )
    # The activity's share: the sum over the outputs, divided by the batch size.
    share = x.mean(0)[:, None] * np.ones(2)
    np.testing.assert_allclose(gradients[0].numpy(), kernel + share, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[1].numpy(), [2, 2], rtol=1e-6)


def test_frozen_weights_have_no_regularization() -> None:
    layer = ot.layers.Dense(2, kernel_regularizer=ops.sum)
    layer.build((None, 3))
    assert len(layer.losses) == 1
    layer.trainable = False
    assert layer.losses == []


# training ----------------------------------------------------------------------------------------


class Teller(ot.layers.Layer):
    """Says which `training` reaches it."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + (1.0 if training else 0.0)


class DefaultsToTraining(ot.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Teller()

    def call(self, x: Any, training: bool = True) -> Any:
        return self.inner(x)


class Unaware(ot.layers.Layer):
    """Has no `training` argument, and passes none on."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


class Insists(ot.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Teller()

    def call(self, x: Any) -> Any:
        return self.inner(x, training=False) + 10 * self.inner(x, training=True)


def told(layer: Any, **kwargs: Any) -> float:
    return float(layer(np.zeros((), np.float32), **kwargs))


def test_training_reaches_the_layers_inside() -> None:
    assert told(Teller()) == 0
    assert told(Teller(), training=True) == 1
    assert told(Teller(), training=None) == 0
    deep = Unaware(Unaware(Teller()))
    assert told(deep) == 0
    assert told(deep, training=True) == 1
    assert told(deep) == 0
    assert told(DefaultsToTraining()) == 1
    assert told(DefaultsToTraining(), training=False) == 0
    assert told(Unaware(DefaultsToTraining())) == 1
    assert told(Unaware(DefaultsToTraining()), training=False) == 0
    assert told(Insists(), training=True) == 10
    assert told(Insists(), training=False) == 10


def test_training_is_forgotten_after_an_error() -> None:
    class Fails(ot.layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        Fails()(x32(1), training=True)
    assert told(Unaware(Teller())) == 0


# Inputs ------------------------------------------------------------------------------------------


class Sum(ot.layers.Layer):
    """Takes nested inputs and keywords."""

    def build(self, input_shape: Any) -> None:
        self.seen = input_shape

    def call(self, parts: Any, scale: Any = 1.0, **more: Any) -> Any:
        return (parts["a"] + parts["b"][0]) * scale + more.get("extra", 0.0)


def test_nested_inputs_and_keywords() -> None:
    layer = Sum()
    x, y = x32(2, 3), x32(2, 3, seed=1)
    found = layer({"a": x, "b": [y]}, scale=np.float32(2.0), extra=ot.Tensor(1.0))
    np.testing.assert_allclose(found.numpy(), (x + y) * 2 + 1, rtol=1e-6)
    assert layer.seen == {"a": (2, 3), "b": [(2, 3)]}


def test_variables_and_arrays_of_other_kinds_as_inputs() -> None:
    layer = ot.layers.Dense(1, kernel_initializer="ones")
    expected = [[6.0]]
    for x in (np.array([[1.0, 2.0, 3.0]]), ot.Variable([[1.0, 2.0, 3.0]]), ot.Tensor([[1, 2, 3]])):
        np.testing.assert_array_equal(layer(x).numpy(), expected)


def test_paths_and_add_variable() -> None:
    class Own(ot.layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense = ot.layers.Dense(2, name="inner")

        def build(self, input_shape: Any) -> None:
            self.scale = self.add_variable((2,), "ones", trainable=False, name="scale")
            self.built = True

        def call(self, x: Any) -> Any:
            return self.dense(x) * self.scale

    layer = Own(name="own")
    assert layer.path is None
    layer(np.ones((1, 3), np.float32))
    assert (layer.path, layer.dense.path) == ("own", "own/inner")
    assert layer.scale.path == "own/scale"
    np.testing.assert_array_equal(layer.scale.numpy(), [1.0, 1.0])
    assert not layer.scale.trainable
