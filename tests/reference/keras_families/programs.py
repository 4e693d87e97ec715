"""Whole programs that users of Keras write: several models, losses, outputs, cells of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, numpy


def _tape(k: Any) -> Any:
    if k.__name__ != "keras":
        return k.GradientTape
    import tensorflow

    return tensorflow.GradientTape


def _history(history: Any) -> Arrays:
    return {f"logs/{name}": np.array(v, np.float32) for name, v in history.history.items()}


def _siamese(k: Any) -> Arrays:
    """One network for two inputs, a distance of one's own, a contrastive loss."""
    layers, ops = k.layers, k.ops

    class Distance(layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, pair: Any) -> Any:
            x, y = pair
            total = ops.sum(ops.square(x - y), axis=1, keepdims=True)
            return ops.sqrt(ops.maximum(total, 1e-7))

    def contrastive(y_true: Any, y_pred: Any) -> Any:
        apart = ops.square(ops.maximum(1.0 - y_pred, 0.0))
        return ops.mean((1 - y_true) * ops.square(y_pred) + y_true * apart)

    image = k.Input((12, 12, 1))
    x = layers.BatchNormalization()(image)
    x = layers.AveragePooling2D(2)(layers.Conv2D(4, 3, activation="tanh")(x))
    x = layers.BatchNormalization()(layers.Flatten()(x))
    embedding = k.Model(image, layers.Dense(5, activation="tanh")(x))
    first, second = k.Input((12, 12, 1)), k.Input((12, 12, 1))
    distance = Distance()([embedding(first), embedding(second)])
    top = layers.Dense(1, activation="sigmoid")(layers.BatchNormalization()(distance))
    model = k.Model([first, second], top)
    fill(model, 2)
    model.compile(loss=contrastive, optimizer="RMSprop", metrics=["accuracy"])
    pairs = [array((24, 12, 12, 1), i, 0.0, 1.0) for i in range(2)]
    y = (np.arange(24) % 3 == 0).astype(np.float32)
    history = model.fit(pairs, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return _history(history) | {"prediction": np.asarray(model.predict(pairs, verbose=0))}


def _several_outputs(k: Any) -> Arrays:
    """Outputs in a dict, with losses, weights and metrics of their own, two of them of classes."""
    layers, ops = k.layers, k.ops

    class Bounded(k.losses.Loss):  # type: ignore[misc, name-defined]
        def __init__(self, delta: float = 1.0, name: str = "bounded", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.delta = delta

        def call(self, y_true: Any, y_pred: Any) -> Any:
            error = ops.abs(y_true - y_pred)
            far = self.delta * (error - 0.5 * self.delta)
            return ops.mean(ops.where(error < self.delta, 0.5 * error * error, far), axis=-1)

    class Near(k.metrics.Metric):  # type: ignore[misc, name-defined]
        def __init__(self, name: str = "near", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.hits = self.add_weight(shape=(), initializer="zeros", name="hits")
            self.count = self.add_weight(shape=(), initializer="zeros", name="count")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            near = ops.all(ops.abs(y_true - y_pred) < 1.0, axis=-1)
            self.hits.assign_add(ops.sum(ops.cast(near, "float32")))
            self.count.assign_add(ops.cast(ops.shape(y_pred)[0], "float32"))

        def result(self) -> Any:
            return self.hits / self.count

    title, body = k.Input((6,), dtype="int32", name="title"), k.Input((None, 5), name="body")
    x = layers.concatenate([layers.LSTM(4)(layers.Embedding(20, 3)(title)), layers.GRU(3)(body)])
    x = layers.Dense(8, activation="gelu")(x)
    outputs = {
        "urgent": layers.Dense(1, name="urgent")(x),
        "kind": layers.Dense(4, activation="softmax", name="kind")(x),
        "place": layers.Dense(2, name="place")(x),
    }
    model = k.Model([title, body], outputs)
    fill(model, 3)
    model.compile(
        optimizer=k.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        loss={
            "urgent": k.losses.BinaryCrossentropy(from_logits=True),
            "kind": "categorical_crossentropy",
            "place": Bounded(0.7),
        },
        loss_weights={"urgent": 1.0, "kind": 0.2, "place": 0.5},
        metrics={"kind": ["accuracy"], "place": [Near(), "mae"]},
        weighted_metrics={"urgent": [k.metrics.BinaryAccuracy(threshold=0.0, name="share")]},
    )
    n = 30
    x = {
        "title": np.random.default_rng(0).integers(0, 20, (n, 6)).astype(np.int32),
        "body": array((n, 7, 5), 4),
    }
    y = {
        "urgent": (array((n, 1), 5) > 0).astype(np.float32),
        "kind": np.eye(4, dtype=np.float32)[np.arange(n) % 4],
        "place": array((n, 2), 6),
    }
    weights = {name: array((n,), 7 + i, 0.1, 1.0) for i, name in enumerate(y)}
    history = model.fit(
        x, y, sample_weight=weights, epochs=3, batch_size=10, shuffle=False, verbose=0,
        validation_split=1 / 3,
        callbacks=[
            k.callbacks.EarlyStopping("val_kind_accuracy", mode="max", restore_best_weights=True)
        ],
    )  # fmt: skip
    found = _history(history)
    found["layers"] = np.array([layer.name for layer in model.layers[-3:]])
    predicted = model.predict(x, verbose=0)
    return found | {name: np.asarray(part) for name, part in predicted.items()}


def _distillation(k: Any) -> Arrays:
    """A `compute_loss` of one's own, and a `call` without `training`."""
    layers, ops = k.layers, k.ops

    class Block(layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, filters: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.convolution = layers.Conv2D(filters, 3, padding="same")
            self.normalization = layers.BatchNormalization()
            self.projection = layers.Conv2D(filters, 1)

        def call(self, x: Any, training: bool | None = None) -> Any:
            y = self.normalization(self.convolution(x), training=training)
            return ops.relu(y + self.projection(x))

    def network(width: int) -> Any:
        image = k.Input((8, 8, 3))
        x = Block(2 * width)(layers.MaxPooling2D()(Block(width)(image)))
        return k.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))

    class Distiller(k.Model):  # type: ignore[misc, name-defined]
        def __init__(self, student: Any, teacher: Any) -> None:
            super().__init__()
            self.student, self.teacher = student, teacher
            self.by_label = k.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.by_teacher = k.losses.KLDivergence()

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            taught = self.teacher(x, training=False)
            soft = [ops.softmax(logits / 5.0, axis=1) for logits in (taught, y_pred)]
            return 0.1 * self.by_label(y, y_pred) + 0.9 * 25.0 * self.by_teacher(*soft)

        def call(self, x: Any) -> Any:
            return self.student(x)

    teacher, student = network(6), network(3)
    fill(teacher, 4)
    fill(student, 5)
    model = Distiller(student, teacher)
    model.compile(
        optimizer=k.optimizers.AdamW(1e-2, weight_decay=1e-3),
        metrics=[k.metrics.SparseCategoricalAccuracy()],
    )
    x, y = array((24, 8, 8, 3), 6, 0.0, 1.0), np.arange(24) % 5
    found = _history(model.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0))
    found["evaluation"] = np.array(model.evaluate(x, y, verbose=0), np.float32)
    # What a class looks at in an image.
    inner = k.Model(student.inputs, [student.layers[3].output, student.output])
    with _tape(k)() as tape:
        features, logits = inner(k.ops.convert_to_tensor(x[:2]))
        chosen = logits[:, 2]
    gradient = tape.gradient(chosen, features)
    found["map"] = numpy(ops.sum(features * ops.mean(gradient, axis=(1, 2), keepdims=True), -1))
    return found


def _cells(k: Any) -> Arrays:
    """Recurrent cells of one's own: alone, in both directions, stacked, with two states."""
    layers, ops = k.layers, k.ops

    class Minimal(layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, input_shape: Any) -> None:
            self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
            self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")
            self.built = True

        def call(self, inputs: Any, states: Any) -> Any:
            y = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent))
            return y, [y]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    class Gated(layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.state_size, self.output_size = [units, units], units
            self.dense = layers.Dense(2 * units)

        def build(self, input_shape: Any) -> None:
            self.dense.build((None, input_shape[-1] + self.output_size))
            self.built = True

        def call(self, inputs: Any, states: Any) -> Any:
            gate, new = ops.split(self.dense(ops.concatenate([inputs, states[0]], -1)), 2, axis=-1)
            kept = ops.sigmoid(gate) * states[1] + (1 - ops.sigmoid(gate)) * ops.tanh(new)
            return ops.tanh(kept), [ops.tanh(kept), kept]

    k.saving.get_custom_objects()["Minimal"] = Minimal
    x = k.Input((None, 5))
    y = layers.RNN(Minimal(4), return_sequences=True)(x)
    y = layers.Bidirectional(layers.RNN(Minimal(3), return_sequences=True))(y)
    y = layers.RNN([Minimal(4), Minimal(2)], return_sequences=True)(y)
    last, first_state, second_state = layers.RNN(Gated(3), return_state=True)(y)
    top = layers.Dense(1)(layers.concatenate([last, first_state, second_state]))
    model = k.Model(x, top)
    fill(model, 6)
    model.compile(k.optimizers.RMSprop(1e-2), "mse")
    found: Arrays = {}
    batches = [array((4, 3 + i % 3, 5), i) for i in range(9)]
    for epoch in range(2):
        history = model.fit(
            ((batch, batch.sum((1, 2))[:, None]) for batch in batches), steps_per_epoch=9, verbose=0
        )
        found[f"loss.{epoch}"] = np.array(history.history["loss"], np.float32)
    found["prediction"] = np.asarray(model.predict(batches[2], verbose=0))
    return found


def _patches(k: Any) -> Arrays:
    """A small vision transformer, after Keras's example."""
    layers, ops = k.layers, k.ops

    class Patches(layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, images: Any) -> Any:
            patches = ops.image.extract_patches(images, size=4)
            return ops.reshape(patches, (ops.shape(images)[0], 9, 48))

    class Encoder(layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.projection = layers.Dense(units=8)
            self.places = layers.Embedding(input_dim=9, output_dim=8)

        def call(self, patches: Any) -> Any:
            numbers = ops.expand_dims(ops.arange(start=0, stop=9, step=1), axis=0)
            return self.projection(patches) + self.places(numbers)

    image = k.Input((12, 12, 3))
    x = Encoder()(Patches()(layers.Rescaling(2.0, offset=-1.0)(image)))
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([layers.MultiHeadAttention(num_heads=2, key_dim=4)(y, y), x])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        for units in (16, 8):
            y = layers.Dense(units, activation=k.activations.gelu)(y)
        x = layers.Add()([y, x])
    x = layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(x))
    model = k.Model(image, layers.Dense(4)(x))
    fill(model, 7)
    model.compile(
        k.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4),
        k.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[k.metrics.SparseTopKCategoricalAccuracy(2, name="top-2")],
    )
    x, y = array((24, 12, 12, 3), 8, 0.0, 1.0), np.arange(24)[:, None] % 4
    history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return _history(history) | {"prediction": np.asarray(model.predict(x[:4], verbose=0))}


PROGRAMS: dict[str, Program] = {
    "siamese": _siamese,
    "several_outputs": _several_outputs,
    "distillation": _distillation,
    "cells": _cells,
    "patches": _patches,
}
