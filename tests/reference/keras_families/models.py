"""Models as Keras's guides put them together: what is frozen, shared, subclassed, fed by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, numpy

N = 12


def _logs(k: Any, model: Any, x: Any, y: Any, **options: Any) -> Arrays:
    options = {"epochs": 2, "batch_size": 5, "shuffle": False, "verbose": 0, **options}
    history = model.fit(x, y, **options).history
    found = {f"logs/{name}": np.array(v, np.float32) for name, v in history.items()}
    return found | {f"weight.{i}": numpy(w) for i, w in enumerate(model.weights)}


def _functional(k: Any, inputs: int = 4, outputs: int = 2, seed: int = 1) -> Any:
    x = k.Input((inputs,), name="x")
    h = k.layers.Dense(3, activation="tanh", name="h")(x)
    model = k.Model(x, k.layers.Dense(outputs, name="y")(h))
    fill(model, seed)
    return model


def _evaluated(k: Any) -> Arrays:
    """Every loop over a functional model, with metrics."""
    model = _functional(k)
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    x, y = array((N, 4), 2), array((N, 2), 3)
    found = _logs(k, model, x, y, validation_split=0.25)
    found["evaluate"] = np.array(model.evaluate(x, y, verbose=0), np.float32)
    found["predict"] = model.predict({"x": x}, verbose=0)
    found["batch"] = np.array(model.train_on_batch(x, y), np.float32)
    return found


def _features(k: Any) -> Arrays:
    """Models of the insides of models."""
    stack = k.Sequential([k.Input((4,)), k.layers.Dense(3), k.layers.Dense(2)])
    fill(stack, 2)
    x = k.ops.convert_to_tensor(array((N, 4), 2))
    model = _functional(k)
    inside = k.Model(model.inputs, [layer.output for layer in model.layers])
    of_stack = k.Model(stack.inputs, [layer.output for layer in stack.layers])
    hidden = k.Model(model.input, model.get_layer("h").output)
    found = {f"inside.{i}": numpy(t) for i, t in enumerate(inside(x))}
    found |= {f"stack.{i}": numpy(t) for i, t in enumerate(of_stack(x))}
    return found | {"hidden": numpy(hidden(x))}


def _own_step(k: Any, weighted: bool) -> Arrays:
    """`train_step` as in "Customizing what happens in fit()", over `self.metrics`."""
    import importlib

    tape_of = importlib.import_module("tensorflow") if k.__name__ == "keras" else k

    class Custom(k.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            x, y, *rest = data
            weight = rest[0] if rest else None
            with tape_of.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=weight)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
                else:
                    metric.update_state(y, y_pred, sample_weight=weight)
            return {m.name: m.result() for m in self.metrics}

    inputs = k.Input((4,))
    outputs = k.layers.Dense(2)(k.layers.Dense(3, activation="tanh")(inputs))
    model = Custom(inputs, outputs)
    fill(model, 1)
    # A rate that does not blow up.
    model.compile(k.optimizers.SGD(0.05), "mse", metrics=["mae"], weighted_metrics=["mse"])
    options = {"sample_weight": array((N, 1), 5, 0.0, 1.0)} if weighted else {}
    found = _logs(k, model, array((N, 4), 2), array((N, 2), 3), **options)
    scores = model.evaluate(array((N, 4), 2), array((N, 2), 3), verbose=0)
    return found | {"evaluate": np.array(scores, np.float32)}


def _made_inside(k: Any) -> Arrays:
    """A subclass whose constructor makes the tensors itself."""

    class Inside(k.Model):  # type: ignore[misc]
        def __init__(self, units: int) -> None:
            inputs = k.Input((4,))
            super().__init__(inputs=inputs, outputs=k.layers.Dense(units)(inputs))
            self.units = units

    model = Inside(2)
    fill(model, 1)
    model.compile("sgd", "mse")
    return _logs(k, model, array((N, 4), 2), array((N, 2), 3)) | {"units": np.array(model.units)}


def _transfer(k: Any) -> Arrays:
    """A frozen base with batch normalization, then fine-tuned, as in "Transfer learning"."""
    base = k.Sequential(
        [k.Input((4,)), k.layers.Dense(3, activation="relu"), k.layers.BatchNormalization()]
    )
    base.trainable = False
    inputs = k.Input((4,))
    outputs = k.layers.Dense(1)(base(k.layers.Rescaling(0.5, offset=-1.0)(inputs), training=False))
    model = k.Model(inputs, outputs)
    fill(model, 1)
    x, y = array((N, 4), 2), (array((N, 1), 3) > 0).astype(np.float32)
    loss = k.losses.BinaryCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(0.1), loss, metrics=[k.metrics.BinaryAccuracy()])
    found = {f"frozen/{n}": v for n, v in _logs(k, model, x, y).items()}
    found["counts.frozen"] = np.array([len(model.trainable_weights), len(model.weights)])
    base.trainable = True
    # Or it would be trained in Keras, whatever `training=False` and Keras's guide say.
    base.layers[-1].trainable = False
    found["counts"] = np.array([len(model.trainable_weights), len(model.weights)])
    model.compile(k.optimizers.SGD(0.01), loss, metrics=[k.metrics.BinaryAccuracy()])
    return found | {f"tuned/{n}": v for n, v in _logs(k, model, x, y).items()}


def _siamese(k: Any) -> Arrays:
    """Two towers that are one, and a contrastive loss."""
    tower = _functional(k, 4, 3)
    left, right = k.Input((4,)), k.Input((4,))

    def distance(vectors: Any) -> Any:
        x, y = vectors
        square = k.ops.sum(k.ops.square(x - y), axis=1, keepdims=True)
        return k.ops.sqrt(k.ops.maximum(square, 1e-7))

    merged = k.layers.Lambda(distance, output_shape=(1,))([tower(left), tower(right)])
    model = k.Model([left, right], k.layers.Dense(1, activation="sigmoid")(merged))
    fill(model, 1)

    def contrastive(y_true: Any, y_pred: Any) -> Any:
        far = k.ops.square(k.ops.maximum(1.0 - y_pred, 0))
        return k.ops.mean((1 - y_true) * k.ops.square(y_pred) + y_true * far)

    model.compile(k.optimizers.RMSprop(0.01), contrastive, metrics=["accuracy"])
    y = (array((N,), 3) > 0).astype(np.float32)
    return _logs(k, model, [array((N, 4), 2), array((N, 4), 4)], y)


def _by_name(k: Any) -> Arrays:
    """Several inputs and outputs by their names, weighted."""
    image, steps = k.Input((4, 4, 2), name="image"), k.Input((None, 3), name="steps")
    x = k.layers.GlobalMaxPooling2D()(k.layers.Conv2D(3, 3)(image))
    y = k.layers.GlobalMaxPooling1D()(k.layers.Conv1D(2, 2)(steps))
    both = k.layers.concatenate([x, y])
    score, kind = k.layers.Dense(1, name="score")(both), k.layers.Dense(3, name="kind")(both)
    model = k.Model([image, steps], [score, kind])
    fill(model, 1)
    model.compile(
        k.optimizers.SGD(0.01),
        {"score": "mse", "kind": k.losses.CategoricalCrossentropy(from_logits=True)},
        metrics={"score": ["mae"], "kind": [k.metrics.CategoricalAccuracy()]},
        loss_weights={"score": 2.0, "kind": 0.5},
    )
    inputs = {"image": array((N, 4, 4, 2), 1), "steps": array((N, 5, 3), 2)}
    targets = {
        "score": array((N, 1), 3),
        "kind": np.eye(3, dtype=np.float32)[np.arange(N) % 3],
    }
    # Of one size: Keras weights the outputs' losses otherwise in a smaller last batch.
    found = _logs(k, model, inputs, targets, batch_size=6)
    scores = model.evaluate(inputs, targets, verbose=0, return_dict=True)
    return found | {f"evaluate/{n}": np.array(v, np.float32) for n, v in scores.items()}


def _ranks(k: Any) -> Arrays:
    """Inputs with a last axis of size 1 too many or too few."""
    inputs = k.Input((4, 1))
    model = k.Model(inputs, k.layers.Flatten()(inputs))
    flat = k.Input((4,))
    other = k.Model(flat, k.layers.Rescaling(2.0)(flat))
    return {
        "added": numpy(model(k.ops.convert_to_tensor(array((N, 4), 1)))),
        "dropped": numpy(other(k.ops.convert_to_tensor(array((N, 4, 1), 1)))),
    }


def _again(k: Any) -> Arrays:
    """Layers and models made again from their configurations."""
    model = _functional(k)
    clone = k.models.clone_model(model)
    stack = k.models.clone_model(
        k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="relu"), k.layers.Dense(2)])
    )
    layer = k.layers.Conv2D(3, (1, 2), padding="same", activation="relu", name="conv")
    other = layer.__class__.from_config(layer.get_config())
    x = k.ops.convert_to_tensor(array((N, 4), 2))
    fill(clone, 7)
    fill(stack, 7)
    image = k.ops.convert_to_tensor(array((1, 2, 3, 2), 2))
    other(image)
    fill(other, 7)
    found = {"clone": numpy(clone(x)), "stack": numpy(stack(x)), "conv": numpy(other(image))}
    found["own weights"] = np.array(
        [a is not b for a, b in zip(model.weights, clone.weights, strict=True)]
    )
    found["names"] = np.array([layer.name for layer in clone.layers] + [other.name])
    return found


def _shapes(k: Any) -> Arrays:
    """What layers say of their outputs' shapes."""
    found = {}
    for name, layer, shape in (
        ("conv", k.layers.Conv2D(3, 2, strides=2), (None, 9, 8, 2)),
        ("flatten", k.layers.Flatten(), (5, 2, 3)),
        ("channels_first", k.layers.Flatten(data_format="channels_first"), (5, 2, 3)),
        ("lstm", k.layers.LSTM(3, return_sequences=True), (2, 5, 4)),
        ("model", _functional(k), (7, 4)),
    ):
        made = layer.compute_output_shape(shape)
        found[name] = np.array([-1 if d is None else d for d in made])
    return found


def _utilities(k: Any) -> Arrays:
    """`utils`."""
    sequences = [[1, 2, 3, 4], [5], [], [6, 7]]
    data = np.arange(30, dtype=np.float32).reshape(15, 2)
    windows = k.utils.timeseries_dataset_from_array(
        data, data[3:, 0], sequence_length=3, sequence_stride=2, sampling_rate=2, batch_size=4
    )
    without = k.utils.timeseries_dataset_from_array(data, None, 4, batch_size=3, start_index=2)
    left, right = k.utils.split_dataset((data, data[:, 0]), left_size=0.6)
    found = {
        "categorical": k.utils.to_categorical([[1], [0], [3]]),
        "categorical_7": k.utils.to_categorical(np.asarray([1, 0, 3]), 7),
        "normalized": k.utils.normalize(data + 1, order=1),
        "padded": k.utils.pad_sequences(sequences),
        "padded_post": k.utils.pad_sequences(
            sequences, 3, dtype="float32", padding="post", truncating="post", value=-1
        ),
        "padded_mixed": k.utils.pad_sequences(sequences, 2, truncating="post"),
        "split": np.array([len(left), len(right)]),
    }
    for i, (x, y) in enumerate(windows):
        found |= {f"windows.{i}": numpy(x), f"targets.{i}": numpy(y)}
    return found | {f"without.{i}": numpy(x) for i, x in enumerate(without)}


PROGRAMS: dict[str, Program] = {
    "evaluated": _evaluated,
    "features": _features,
    "own_step": lambda k: _own_step(k, weighted=False),
    "own_step_weighted": lambda k: _own_step(k, weighted=True),
    "made_inside": _made_inside,
    "transfer": _transfer,
    "siamese": _siamese,
    "by_name": _by_name,
    "ranks": _ranks,
    "again": _again,
    "shapes": _shapes,
    "utilities": _utilities,
}
