"""Layers and models made again from their configurations, which have been JSON in between."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, numpy


def _json(config: Any) -> Any:
    return json.loads(json.dumps(config))


def _again(k: Any, model: Any, inputs: Any, custom: Any = None) -> Arrays:
    """What a model made again is like, and what it makes of the inputs with other weights."""
    other = type(model).from_config(_json(model.get_config()), custom_objects=custom)
    fill(other, 3)
    tree = inputs if isinstance(inputs, dict) else [k.ops.convert_to_tensor(x) for x in inputs]
    made = other(tree if isinstance(tree, dict) or len(tree) > 1 else tree[0])
    leaves = made.values() if isinstance(made, dict) else made
    outputs = leaves if isinstance(made, (list, dict)) else [made]
    shared = {id(w) for w in model.weights} & {id(w) for w in other.weights}
    return {
        "names": np.array([layer.name for layer in other.layers]),
        "types": np.array([type(layer).__name__ for layer in other.layers]),
        "shapes": np.array([str(tuple(w.shape)) for w in other.weights]),
        "trainable": np.array([len(other.trainable_weights), len(shared)]),
        "name": np.array(other.name),
    } | {f"output.{i}": numpy(t) for i, t in enumerate(outputs)}


def _sequential(k: Any) -> Arrays:
    model = k.Sequential(
        [
            k.Input((4, 4, 2), name="image"),
            k.layers.Conv2D(3, 2, padding="same", activation="relu", name="conv"),
            k.layers.BatchNormalization(epsilon=1e-4, name="norm"),
            k.layers.Flatten(name="flat"),
            k.layers.Dense(2, kernel_regularizer="l2", kernel_initializer="he_normal", name="out"),
        ],
        name="stack",
    )
    model.layers[0].trainable = False
    return _again(k, model, [array((2, 4, 4, 2), 1)])


def _unbuilt(k: Any) -> Arrays:
    model = k.Sequential([k.layers.Dense(3, name="a"), k.layers.Dense(2, name="b")], name="later")
    other = k.Sequential.from_config(_json(model.get_config()))
    other.build((None, 4))
    fill(other, 2)
    return {"output": numpy(other(k.ops.convert_to_tensor(array((2, 4), 1))))}


def _shared(k: Any) -> Arrays:
    """One layer called twice, several inputs and outputs, a call with a keyword."""
    left, right = k.Input((4,), name="left"), k.Input((4,), name="right")
    dense = k.layers.Dense(3, activation="tanh", name="dense")
    a, b = dense(left), dense(right)
    both = k.layers.Concatenate(name="both")([a, b])
    dropped = k.layers.Dropout(0.5, name="drop")(both, training=False)
    outputs = [k.layers.Dense(2, name="first")(dropped), k.layers.Add(name="sum")([a, b])]
    model = k.Model([left, right], outputs, name="shared")
    return _again(k, model, [array((2, 4), 1), array((2, 4), 2)])


def _dicts(k: Any) -> Arrays:
    """Inputs and outputs in dicts."""
    inputs = {"x": k.Input((4,), name="x"), "y": k.Input((4,), name="y")}
    h = k.layers.Add(name="add")([inputs["x"], inputs["y"]])
    outputs = {"one": k.layers.Dense(2, name="one")(h), "two": k.layers.Dense(1, name="two")(h)}
    model = k.Model(inputs, outputs, name="dicts")
    return _again(k, model, {"x": array((2, 4), 1), "y": array((2, 4), 2)})


def _nested(k: Any) -> Arrays:
    """Models in models, wrappers and recurrent layers."""
    inside = k.Sequential(
        [k.Input((5, 3)), k.layers.TimeDistributed(k.layers.Dense(4, name="each"), name="steps")],
        name="inside",
    )
    x = k.Input((5, 3), name="x")
    attended = k.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    h = inside(attended)
    h = k.layers.Bidirectional(k.layers.GRU(2, return_sequences=True, name="gru"), name="both")(h)
    tail = k.Input((5, 4), name="tail_input")
    tower = k.Model(tail, k.layers.LSTM(3, name="lstm")(tail), name="tower")
    model = k.Model(x, tower(h), name="whole")
    return _again(k, model, [array((2, 5, 3), 1)])


def _custom(k: Any) -> Arrays:
    """Classes of the user's own: a layer, with a function for its activation."""

    class Scaled(k.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, factor: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.factor = factor

        def build(self, input_shape: Any) -> None:
            self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.scale * self.factor

        def get_config(self) -> Any:
            return {**super().get_config(), "factor": self.factor}

    x = k.Input((4,), name="x")
    model = k.Model(x, k.layers.Dense(2, name="out")(Scaled(2.0, name="scaled")(x)), name="own")
    stack = k.Sequential([k.Input((4,)), Scaled(3.0, name="scaled")], name="stack")
    data = [array((2, 4), 1)]
    return {
        **{f"model/{n}": v for n, v in _again(k, model, data, {"Scaled": Scaled}).items()},
        **{f"stack/{n}": v for n, v in _again(k, stack, data, {"Scaled": Scaled}).items()},
    }


def _keys(k: Any) -> Arrays:
    """The keys of layers' configurations, and their plain values."""
    layers = [
        k.layers.Dense(3, activation="relu", name="a"),
        k.layers.Conv2D(3, 2, name="b"),
        k.layers.Conv2DTranspose(3, (2, 1), strides=2, padding="same", name="c"),
        k.layers.Embedding(5, 3, mask_zero=True, name="d"),
        k.layers.Dropout(0.3, seed=1, name="e"),
        k.layers.LayerNormalization(name="f"),
        k.layers.MaxPooling2D(name="g"),
        k.layers.Reshape((2, -1), name="i"),
        k.layers.LeakyReLU(name="j"),
        k.layers.ZeroPadding2D(2, name="l"),
    ]
    plain = (bool, int, float, str)
    found = {}
    for layer in layers:
        config = _json(layer.get_config())
        values = {n: v for n, v in config.items() if isinstance(v, plain) and n != "name"}
        found[type(layer).__name__] = np.array(repr(sorted(values.items())))
        found[f"{type(layer).__name__}.dtype"] = np.array(config["dtype"]["config"]["name"])
    dense = layers[0].get_config()
    found["initializer"] = np.array(dense["kernel_initializer"]["class_name"])
    return found


PROGRAMS: dict[str, Program] = {
    "sequential": _sequential,
    "unbuilt": _unbuilt,
    "shared": _shared,
    "dicts": _dicts,
    "nested": _nested,
    "custom": _custom,
    "keys": _keys,
}
