"""Takes models of Keras, trains them with onnxtape, and gives the weights back; prints JSON.

The backend is KERAS_BACKEND's.
"""

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import onnxtape as ot


def perceptron() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(3)]
    )


def convolutions() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(trainable=False),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


def branches() -> Any:
    """Two inputs, and a layer used twice."""
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    shared = keras.layers.Dense(4, "tanh")
    joined = keras.layers.Concatenate()([shared(left), shared(right)])
    return keras.Model([left, right], keras.layers.Dense(3)(joined))


MODELS: dict[str, Callable[[], Any]] = {
    "perceptron": perceptron,
    "convolutions": convolutions,
    "branches": branches,
}


def numpy(tensor: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def check(name: str) -> dict[str, Any]:
    """How far apart the two are before, while and after training."""
    keras.utils.set_random_seed(0)
    theirs = MODELS[name]()
    weights = theirs.get_weights()
    random = np.random.default_rng(0)
    xs = [random.normal(size=(4, *x.shape[1:])).astype("f") for x in theirs.inputs]
    given = xs if len(xs) > 1 else xs[0]
    y = random.normal(size=(4, theirs.outputs[0].shape[-1])).astype("f")
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model = ot.from_keras(theirs)
    same = all(map(np.array_equal, weights, theirs.get_weights()))
    before = np.abs(np.asarray(model(*xs)) - numpy(theirs(given))).max()

    optimizer = ot.optimizers.SGD(0.01)

    @ot.function(fallback="error")
    def step(xs: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean((model(*xs) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    ours = [float(step(xs, y)) for _ in range(5)]
    trained = model.to_keras_weights()
    theirs.compile(keras.optimizers.SGD(0.01), "mse")
    # As in inference, like the exported graph: without dropout.
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    expected = [float(theirs.train_on_batch(given, y)) for _ in range(5)]
    wanted = theirs.get_weights()
    theirs.set_weights(trained)
    after = np.abs(np.asarray(model(*xs)) - numpy(theirs(given))).max()
    return {
        "before": float(before),
        "losses": [ours, expected],
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(trained, wanted, strict=True)),
        "after": float(after),
        "left as it was": bool(same),
        "trained": [v.path for v in model.trainable_variables],
        "notes": [str(note.message) for note in noted if "exporter" in str(note.message)],
        "other batch": list(model(*[x[:1] for x in xs]).shape) == [1, y.shape[-1]],
    }


if __name__ == "__main__":
    json.dump({name: check(name) for name in sys.argv[1:]}, sys.stdout)
