"""Models by `pickle`, `copy.deepcopy` and `copy.copy`."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops

L = ot.layers
X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
Y = X.sum(1, keepdims=True)


def shared_layers() -> Any:
    """A layer used twice, operations and a constant between layers, a model inside."""
    x = ot.Input((6,), name="x")
    shared = L.Dense(6, activation="tanh", name="shared")
    h = L.Dropout(0.1)(shared(shared(x))) + ops.relu(x) * np.full(6, 2.0, np.float32)
    inner = ot.Sequential([ot.Input((6,)), L.Dense(3), L.BatchNormalization()], name="inner")
    tops = [L.Dense(1, name="one")(inner(h)), L.Dense(1, name="two")(ops.stop_gradient(h))]
    return ot.Model(x, tops, name="whole")


def a_model_in_a_model() -> Any:
    x = ot.Input((6,))
    return ot.Model({"given": x}, {"made": shared_layers()(x)[0] + 1.0})


class OfTensors(ot.Model):
    """A subclass whose constructor makes the tensors."""

    def __init__(self, units: int) -> None:
        x = ot.Input((6,))
        dense = L.Dense(units)
        super().__init__(x, L.Dense(1)(dense(x)))
        self.again = dense


class Own(ot.Model):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ot.Sequential([L.Dense(4), L.Dense(1)])
        self.tracker = ot.metrics.Mean(name="tracker")

    def call(self, x: Any) -> Any:
        return self.stack(x)


MODELS: dict[str, Callable[[], Any]] = {
    "functional": shared_layers,
    "nested": a_model_in_a_model,
    "subclass of tensors": lambda: OfTensors(4),
    "subclass": Own,
    "sequential": lambda: ot.Sequential([L.Dense(4, kernel_regularizer="l2"), L.Dense(1)]),
    "recurrent": lambda: ot.Sequential(
        [ot.Input((6,)), L.Reshape((3, 2)), L.Bidirectional(L.LSTM(3)), L.Dense(1)]
    ),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


def outputs(model: Any, name: str) -> list[Any]:
    made = model({"given": X} if name == "nested" else X)
    return [np.asarray(y) for y in (made.values() if isinstance(made, dict) else _listed(made))]


def _listed(made: Any) -> list[Any]:
    return made if isinstance(made, list) else [made]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_computes_the_same(name: str, way: str) -> None:
    model = MODELS[name]()
    expected = outputs(model, name)
    made = WAYS[way](model)
    for found, array in zip(outputs(made, name), expected, strict=True):
        np.testing.assert_array_equal(found, array)
    assert type(made).__name__ == type(model).__name__
    assert [v.path for v in made.weights] == [v.path for v in model.weights]
    assert [layer.name for layer in made.layers] == [layer.name for layer in model.layers]
    # A shallow copy shares the layers, all others have weights of their own.
    assert (made.weights[0] is model.weights[0]) == (way == "copy")
    made.weights[0].assign(ops.zeros_like(made.weights[0]))
    changed = np.any(outputs(model, name)[0] != expected[0])
    assert changed == (way == "copy")


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", ["functional", "subclass of tensors", "subclass", "sequential"])
def test_a_copy_trains_on_as_its_model(name: str, way: str) -> None:
    model = MODELS[name]()
    model.compile(ot.optimizers.Adam(1e-2), "mse")
    y = [Y, Y] if name == "functional" else Y

    def losses(trained: Any) -> Any:
        ot.set_seed(1)
        return trained.fit(X, y, epochs=2, shuffle=False, verbose=0).history["loss"]

    losses(model)
    made = WAYS[way](model)
    assert losses(made) == losses(model)
    for copied, variable in zip(made.optimizer.variables, model.optimizer.variables, strict=True):
        assert copied is not variable
        np.testing.assert_array_equal(copied.numpy(), variable.numpy())


def test_a_pickle_is_read_by_another_process(tmp_path: Path) -> None:
    model = shared_layers()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "x.npy", X)
    program = (
        "import pickle, sys, numpy as np\n"
        "model = pickle.load(open('model.pickle', 'rb'))\n"
        "np.save('y.npy', model(np.load('x.npy'))[0])\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(X)[0])


def test_a_copy_is_built_upon() -> None:
    made = copy.deepcopy(shared_layers())
    head = ot.Model(made.input, L.Dense(2)(made.get_layer("shared").output))
    assert head(X).shape == (16, 2)
    again = made.from_config(made.get_config())
    assert [v.path for v in again.weights] == [v.path for v in made.weights]
