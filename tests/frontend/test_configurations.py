"""Configurations of models, and what cannot be one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import onnxtape as ot


@ot.utils.register_keras_serializable(package="tests")
class Doubled(ot.layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 2.0


def _operators() -> Any:
    """Operations outside layers, with constants, and a gradient that is stopped."""
    x = ot.Input((3,), name="x")
    h = ot.layers.Dense(3, name="a")(x * 2.0 + np.array([1.0, 2.0, 3.0], np.float32))
    y = ot.ops.stop_gradient(h) + ot.ops.concatenate([h, x], axis=-1)[:, 1:4]
    return ot.Model(x, Doubled(name="b")(y), name="operators")


def test_operators_outside_layers_and_registered_classes() -> None:
    model = _operators()
    other = ot.models.model_from_json(model.to_json())
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    other.set_weights(model.get_weights())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(other(x).numpy(), model(x).numpy())
    assert json.loads(other.to_json()) == json.loads(model.to_json())


def test_layers_by_configuration() -> None:
    layer = ot.layers.Dense(3, activation="relu", kernel_regularizer=ot.regularizers.L2(0.1))
    again = ot.layers.deserialize(json.loads(json.dumps(ot.layers.serialize(layer))))
    assert (again.name, again.units) == (layer.name, 3)
    again.build((None, 2))
    assert again.kernel.regularizer.get_config() == {"l2": pytest.approx(0.1)}


def test_sequential_of_a_model() -> None:
    stack = ot.Sequential([ot.Input((3,)), _operators(), ot.layers.Dense(1)])
    again = ot.Sequential.from_config(stack.get_config())
    assert [type(layer).__name__ for layer in again.layers] == ["Functional", "Dense"]
    assert again.input_shape == (None, 3)


def test_subclasses() -> None:
    class Own(ot.Model):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units

    class Named(ot.Model):
        """Functional, with a step of its own."""

    assert Own.from_config(Own(3, name="own").get_config()).units == 3
    x = ot.Input((3,))
    model = Named(x, ot.layers.Dense(2)(x))
    again = Named.from_config(model.get_config())
    assert isinstance(again, Named)
    assert again.output_shape == (None, 2)


def test_an_unknown_class_is_named() -> None:
    config = {"module": "elsewhere", "class_name": "Unknown", "config": {}}

    class Cell(ot.layers.Layer):
        state_size = 3

    with pytest.raises(ValueError, match=r"no class is called 'Cell'.*register_keras_serializable"):
        ot.layers.RNN.from_config(ot.layers.RNN(Cell()).get_config())
    with pytest.raises(ValueError, match=r"no class is called 'Unknown': give custom_objects="):
        ot.layers.deserialize(config)


def test_two_layers_of_one_name() -> None:
    x = ot.Input((3,))
    y = ot.layers.Dense(3, name="same")(x)
    model = ot.Model(x, ot.layers.Dense(3, name="same")(y), name="model")
    with pytest.raises(ValueError, match="model 'model' has two layers named 'same'"):
        model.get_config()


def test_variables_outside_of_layers() -> None:
    x, scale = ot.Input((3,)), ot.Variable(2.0)
    model = ot.Model(x, x * scale)
    with pytest.raises(ValueError, match="variable outside of layers has no configuration"):
        model.get_config()
