"""Programs that readers of Keras's guides write next, with their details, over many steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, numpy

STEPS = 50


def _tape_and_function(k: Any) -> tuple[Any, Any]:
    if k.__name__ != "keras":
        return k.GradientTape, k.function
    import tensorflow

    return tensorflow.GradientTape, tensorflow.function


def _classes(n: int = 40) -> tuple[Any, Any]:
    """Points of three classes that can be told apart."""
    y = np.arange(n) % 3
    return array((n, 4), 1) * 0.5 + np.eye(3, 4, dtype=np.float32)[y] * 2, y


def _history(history: Any) -> Arrays:
    return {f"logs/{name}": np.array(v, np.float32) for name, v in history.history.items()}


def _weights(model: Any) -> Arrays:
    return {f"weight.{i}": numpy(w) for i, w in enumerate(model.weights)}


def _strings(k: Any) -> Arrays:
    """Names for everything, class weights, validation by split, eager steps."""
    model = k.Sequential([k.Input((4,)), k.layers.Dense(8, "relu"), k.layers.Dense(3, "softmax")])
    fill(model, 1)
    found = {}
    x, y = _classes()
    for eager in (False, True):
        model.compile(
            optimizer="adam",
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            run_eagerly=eager,
        )
        history = model.fit(
            x,
            y,
            batch_size=8,
            epochs=5,
            validation_split=0.2,
            class_weight={0: 1.0, 1: 2.0, 2: 0.5},
            shuffle=False,
            verbose=0,
        )
        found |= {f"{eager}/{n}": v for n, v in _history(history).items()}
        found[f"{eager}/epochs"] = np.array(history.epoch)
        found[f"{eager}/names"] = np.array(list(history.history))
    return found | _weights(model)


def _own_metrics(k: Any) -> Arrays:
    """A metric and a loss as classes of one's own, and functions, with sample weights."""

    class Positives(k.metrics.Metric):  # type: ignore[misc, name-defined]
        def __init__(self, name: str = "positives", **kwargs: Any) -> None:
            super().__init__(name=name, **kwargs)
            self.count = self.add_weight(name="count", initializer="zeros")
            self.calls = self.add_variable((), "zeros", dtype="int32", name="calls")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            values = k.ops.cast(k.ops.greater(y_pred, 0), "float32")
            if sample_weight is not None:
                values = values * k.ops.cast(k.ops.reshape(sample_weight, (-1, 1)), "float32")
            self.count.assign_add(k.ops.sum(values))
            self.calls.assign_add(1)

        def result(self) -> Any:
            return self.count / k.ops.cast(self.calls, "float32")

        def reset_state(self) -> None:
            self.count.assign(0.0)
            self.calls.assign(0)

    class Pinball(k.losses.Loss):  # type: ignore[misc, name-defined]
        def __init__(self, tau: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.tau = tau

        def call(self, y_true: Any, y_pred: Any) -> Any:
            error = y_true - y_pred
            return k.ops.mean(k.ops.maximum(self.tau * error, (self.tau - 1) * error), axis=-1)

    def bias(y_true: Any, y_pred: Any) -> Any:
        return k.ops.mean(y_pred - y_true, axis=-1)

    model = k.Sequential([k.Input((4,)), k.layers.Dense(6, "tanh"), k.layers.Dense(2)])
    fill(model, 2)
    model.compile(
        k.optimizers.Adam(0.01),
        Pinball(0.7, name="pinball"),
        metrics=[Positives(), bias],
        weighted_metrics=[Positives(name="weighted")],
    )
    x, y, w = array((40, 4), 1), array((40, 2), 2), array((40,), 3, 0.0, 2.0)
    history = model.fit(
        x, y, sample_weight=w, batch_size=10, epochs=4, shuffle=False, verbose=0,
        validation_data=(x[:12], y[:12], w[:12]), validation_batch_size=5,
    )  # fmt: skip
    found = _history(history) | _weights(model)
    found["evaluate"] = np.array(model.evaluate(x, y, batch_size=7, verbose=0), np.float32)
    return found


def _own_model(k: Any) -> Arrays:
    """A subclassed model whose `train_step` keeps its own trackers, as in Keras's examples."""
    tape_of, _ = _tape_and_function(k)

    class Autoencoder(k.Model):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.encoder = k.Sequential([k.layers.Dense(3, activation="relu")])
            self.decoder = k.layers.Dense(4)
            self.total = k.metrics.Mean(name="total")
            self.reconstruction = k.metrics.Mean(name="reconstruction")

        @property
        def metrics(self) -> Any:
            return [self.total, self.reconstruction]

        def call(self, x: Any) -> Any:
            return self.decoder(self.encoder(x))

        def train_step(self, data: Any) -> Any:
            if isinstance(data, tuple):
                data = data[0]
            with tape_of() as tape:
                found = self(data, training=True)
                squares = k.ops.sum(k.ops.square(data - found), axis=-1)
                reconstruction = k.ops.mean(squares)
                penalty = 1e-2 * k.ops.sum(k.ops.abs(self.decoder.kernel))
                total = reconstruction + penalty
            grads = tape.gradient(total, self.trainable_weights)
            self.optimizer.apply_gradients(zip(grads, self.trainable_weights, strict=True))
            self.total.update_state(total)
            self.reconstruction.update_state(reconstruction)
            return {"total": self.total.result(), "reconstruction": self.reconstruction.result()}

    model = Autoencoder()
    x = array((30, 4), 1)
    model(x)
    fill(model, 2)
    model.compile(optimizer=k.optimizers.Adam(0.01))
    history = model.fit(x, epochs=5, batch_size=10, shuffle=False, verbose=0)
    return _history(history) | _weights(model)


def _rates(k: Any) -> Arrays:
    """Schedules in a loop of one's own: the rate is read, set and configured."""
    tape_of, function = _tape_and_function(k)
    model = k.Sequential([k.Input((4,)), k.layers.Dense(5, "tanh"), k.layers.Dense(3)])
    fill(model, 3)
    loss_fn = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = _classes()
    found: dict[str, Any] = {}
    for name, rate in (
        ("cosine", k.optimizers.schedules.CosineDecay(0.05, 20, alpha=0.1, warmup_target=0.1,
                                                      warmup_steps=5)),
        ("piecewise", k.optimizers.schedules.PiecewiseConstantDecay([5, 10], [0.1, 0.05, 0.01])),
        ("number", 0.02),
    ):  # fmt: skip
        optimizer = k.optimizers.SGD(rate, momentum=0.9, nesterov=True)
        losses, rates = [], []

        @function  # type: ignore[untyped-decorator]
        def step(x: Any, y: Any, optimizer: Any = optimizer) -> Any:
            with tape_of() as tape:
                loss = loss_fn(y, model(x, training=True))
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
            return loss

        for i in range(STEPS // 2):
            if name == "number" and i == 10:
                optimizer.learning_rate = 0.005
            losses.append(float(step(x, y)))
            rates.append(float(k.ops.convert_to_numpy(optimizer.learning_rate)))
        config = optimizer.get_config()
        config.pop("name")
        rate = config.pop("learning_rate")
        found[f"{name}/config"] = np.array(repr(sorted(config.items())))
        found[f"{name}/rate"] = np.array(
            repr(rate if isinstance(rate, float) else rate["class_name"])
        )
        found[f"{name}/losses"] = np.array(losses, np.float32)
        found[f"{name}/rates"] = np.array(rates, np.float32)
        found[f"{name}/iterations"] = numpy(optimizer.iterations)
    return found


def _decay_and_averages(k: Any) -> Arrays:
    """Weight decay with exclusions, moving averages that overwrite, accumulation, clipping."""
    x, y = _classes()
    found: Arrays = {}
    for name, optimizer, exclude in (
        ("adamw", k.optimizers.AdamW(0.02, weight_decay=0.1), ["bias", "gamma", "beta"]),
        ("ema", k.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.8,
                                  ema_overwrite_frequency=3), None),
        ("ema_last", k.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9), None),
        ("accumulated", k.optimizers.RMSprop(0.01, gradient_accumulation_steps=2,
                                             global_clipnorm=0.5), None),
    ):  # fmt: skip
        model = k.Sequential(
            [
                k.Input((4,)),
                k.layers.Dense(6, use_bias=False),
                k.layers.BatchNormalization(),
                k.layers.ReLU(),
                k.layers.Dense(3),
            ]
        )
        fill(model, 3)
        if exclude:
            optimizer.exclude_from_weight_decay(var_names=exclude)
        model.compile(
            optimizer,
            k.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["sparse_categorical_accuracy"],
        )
        history = model.fit(x, y, batch_size=10, epochs=4, shuffle=False, verbose=0)
        found |= {f"{name}/{n}": v for n, v in (_history(history) | _weights(model)).items()}
    return found


def _sequences(k: Any) -> Arrays:
    """An encoder and a decoder of LSTMs with masks and states, and attention with masks."""
    source, target = k.Input((None,), dtype="int32"), k.Input((None,), dtype="int32")
    embedded = k.layers.Embedding(9, 4, mask_zero=True)(source)
    sequence, h, c = k.layers.LSTM(5, return_sequences=True, return_state=True)(embedded)
    decoded = k.layers.Embedding(7, 4, mask_zero=True)(target)
    decoded = k.layers.LSTM(5, return_sequences=True)(decoded, initial_state=[h, c])
    attended = k.layers.MultiHeadAttention(2, 3)(decoded, sequence)
    summed = k.layers.LayerNormalization()(k.layers.Add()([decoded, attended]))
    causal = k.layers.MultiHeadAttention(2, 2)(summed, summed, use_causal_mask=True)
    model = k.Model([source, target], k.layers.Dense(7, name="words")(causal))
    fill(model, 4)
    rng = np.random.default_rng(5)
    s, t = rng.integers(1, 9, (20, 6)), rng.integers(1, 7, (20, 5))
    for i in range(20):
        s[i, 3 + i % 3 :] = 0
        t[i, 2 + i % 4 :] = 0
    model.compile(
        # On TensorFlow, Keras's Adam squares each row's gradients of an embedding alone.
        k.optimizers.SGD(0.1, momentum=0.5),
        k.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
        weighted_metrics=["accuracy"],
    )
    history = model.fit([s, t], t, batch_size=5, epochs=4, shuffle=False, verbose=0)
    return _history(history) | {"predict": model.predict([s[:3], t[:3]], verbose=0)}


def _frozen(k: Any) -> Arrays:
    """BatchNormalization frozen and thawed between compilations; statistics as they stand."""
    inputs = k.Input((8, 8, 2))
    h = k.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inputs)
    h = k.layers.BatchNormalization(momentum=0.8, name="norm")(h)
    h = k.layers.Activation("relu")(h)
    h = k.layers.GlobalAveragePooling2D()(h)
    model = k.Model(inputs, k.layers.Dense(1, activation="sigmoid")(h))
    fill(model, 5)
    x, y = array((24, 8, 8, 2), 1), (array((24, 1), 2) > 0).astype(np.float32)
    found = {}
    for name, trainable in (("all", True), ("frozen", False), ("again", True)):
        model.get_layer("norm").trainable = trainable
        model.get_layer("conv").trainable = trainable
        model.compile("sgd", "binary_crossentropy", metrics=["accuracy", "AUC"])
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        found |= {f"{name}/{n}": v for n, v in (_history(history) | _weights(model)).items()}
    return found


def _dtypes(k: Any) -> Arrays:
    """Weights of several dtypes, NumPy arrays among tensors, operations on variables."""
    tape_of, function = _tape_and_function(k)

    class Mixed(k.layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 3), initializer="ones", name="kernel")
            self.table = self.add_weight(
                shape=(3,), dtype="float64", initializer="zeros", trainable=False, name="table"
            )
            self.calls = self.add_weight(
                shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls"
            )
            self.built = True

        def call(self, x: Any, training: bool = False) -> Any:
            self.calls.assign_add(1)
            if training:
                self.table.assign(0.5 * self.table + k.ops.cast(k.ops.mean(x), "float64"))
            shift = np.arange(3, dtype=np.float32)
            return k.ops.matmul(x, self.kernel) + shift + k.ops.cast(self.table, "float32")

    layer = Mixed()
    layer(k.ops.zeros((1, 4)))
    optimizer = k.optimizers.Adagrad(0.1)
    targets = array((6, 3), 2)

    @function  # type: ignore[untyped-decorator]
    def step(x: Any) -> Any:
        with tape_of() as tape:
            y = layer(x, training=True)
            loss = k.ops.mean((y - targets) ** 2) + 0.1 * k.ops.norm(layer.kernel)
        grads = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply(grads, layer.trainable_variables)
        return {"loss": loss, "largest": k.ops.max(k.ops.abs(layer.kernel), axis=0)}

    results = [step(k.ops.convert_to_tensor(array((6, 4), i))) for i in range(20)]
    return {
        "losses": np.array([numpy(r["loss"]) for r in results]),
        "largest": numpy(results[-1]["largest"]),
        "table": numpy(layer.table),
        "calls": numpy(layer.calls),
        "dtypes": np.array([str(w.dtype) for w in layer.weights]),
        "where": numpy(k.ops.where(layer.kernel > 0, layer.kernel, 0.0)),
        "stacked": numpy(k.ops.stack([layer.kernel, layer.kernel * 2], axis=-1)),
    }


def _streams(k: Any) -> Arrays:
    """Batches from a generator, with steps per epoch and validation steps."""
    model = k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="softmax")])
    fill(model, 1)

    def batches() -> Any:
        i = 0
        while True:
            y = (np.arange(6) + i) % 3
            yield array((6, 4), i), np.eye(3, dtype=np.float32)[y]
            i += 1

    model.compile(
        k.optimizers.Adam(0.02),
        k.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=[k.metrics.CategoricalAccuracy(name="acc"), k.metrics.TopKCategoricalAccuracy(2)],
    )
    fixed = array((15, 4), 7), np.eye(3, dtype=np.float32)[np.arange(15) % 3]
    history = model.fit(
        batches(), steps_per_epoch=4, epochs=3, verbose=0, validation_data=fixed,
        validation_steps=2, validation_batch_size=3,
    )  # fmt: skip
    found = _history(history) | _weights(model)
    found["names"] = np.array(list(history.history))
    found["evaluate"] = np.array(model.evaluate(batches(), steps=3, verbose=0), np.float32)
    return found


PROGRAMS: dict[str, Program] = {
    "strings": _strings,
    "own_metrics": _own_metrics,
    "own_model": _own_model,
    "rates": _rates,
    "decay_and_averages": _decay_and_averages,
    "sequences": _sequences,
    "frozen": _frozen,
    "dtypes": _dtypes,
    "streams": _streams,
}
