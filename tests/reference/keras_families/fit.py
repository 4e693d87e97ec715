"""`compile`, `fit`, `evaluate`, `predict` and callbacks: logs of a few epochs, unshuffled."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, gradients, numpy

N = 22


def _x(seed: int = 1, features: int = 5) -> Any:
    return array((N, features), seed)


def _classes(count: int = 3) -> Any:
    return np.argmax(_x()[:, :count], axis=1).astype(np.int32)


def _mlp(k: Any, outputs: int = 3, activation: str | None = "softmax", **options: Any) -> Any:
    model = k.Sequential(
        [
            k.Input((5,)),
            k.layers.Dense(6, activation="tanh", **options),
            k.layers.Dense(outputs, activation=activation),
        ]
    )
    fill(model, 3)
    return model


def _history(k: Any, model: Any, *args: Any, epochs: int = 3, **options: Any) -> Arrays:
    """Fit in batches of 8, the last one smaller; the logs of all epochs, and the weights."""
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": epochs, **options}
    history = model.fit(*args, **options).history
    found: Arrays = {f"logs/{name}": np.array(v, np.float32) for name, v in history.items()}
    for i, weight in enumerate(model.weights):
        found[f"weight.{i}"] = numpy(weight)
    return found


def _sparse(k: Any) -> Arrays:
    model = _mlp(k)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    found = _history(k, model, _x(), _classes(), validation_split=0.3)
    scores = model.evaluate(_x(), _classes(), batch_size=8, verbose=0)
    found["evaluate"] = np.array(scores, np.float32)
    found["predict"] = numpy(model.predict(_x(), batch_size=8, verbose=0))
    found["train_on_batch"] = np.array(model.train_on_batch(_x(), _classes()), np.float32)
    found["test_on_batch"] = np.array(model.test_on_batch(_x(), _classes()), np.float32)
    found["predict_on_batch"] = numpy(model.predict_on_batch(_x()))
    return found


def _binary(k: Any) -> Arrays:
    model = _mlp(k, 1, "sigmoid")
    model.compile(k.optimizers.SGD(0.5), "binary_crossentropy", metrics=["acc", "mse"])
    y = (_x()[:, 0] > 0.3).astype(np.float32)
    return _history(k, model, _x(), y, validation_data=(_x(2), y))


def _categorical(k: Any) -> Arrays:
    model = _mlp(k)
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    one_hot = np.eye(3, dtype=np.float32)[_classes()]
    return _history(k, model, _x(), one_hot, class_weight={0: 0.5, 2: 3.0})


def _weighted(k: Any) -> Arrays:
    model = _mlp(k, 2, None)
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mae"])
    weights = array((N,), 7, 0.1, 2.0)
    valid = (_x(2), array((N, 2), 8), weights)
    return _history(
        k, model, _x(), array((N, 2), 5), sample_weight=weights, validation_data=valid,
        validation_freq=2, epochs=4,
    )  # fmt: skip


# With several outputs, batches are of one size: in a smaller last batch Keras weights the outputs'
# losses by the batch size or not, as TensorFlow happens to have traced the step.


def _two_outputs(k: Any) -> Any:
    a, b = k.Input((5,), name="first"), k.Input((4,), name="second")
    hidden = k.layers.Dense(6, activation="tanh")(k.layers.concatenate([a, b]))
    p = k.layers.Dense(3, activation="softmax", name="kind")(hidden)
    q = k.layers.Dense(1, name="size")(hidden)
    model = k.Model([a, b], [p, q])
    fill(model, 3)
    return model


def _lists(k: Any) -> Arrays:
    model = _two_outputs(k)
    model.compile(
        "adam",
        loss=["sparse_categorical_crossentropy", "mse"],
        loss_weights=[1.0, 0.3],
        metrics=[["accuracy"], ["mae"]],
    )
    x, y = [_x(), _x(2, 4)], [_classes(), array((N, 1), 5)]
    found = _history(
        k, model, x, y, validation_split=0.3, batch_size=5, validation_batch_size=7
    )  # fmt: skip
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    found.update({f"evaluate/{name}": np.float32(v) for name, v in scores.items()})
    for i, part in enumerate(model.predict(x, verbose=0)):
        found[f"predict.{i}"] = numpy(part)
    return found


def _dicts(k: Any) -> Arrays:
    model = _two_outputs(k)
    model.compile(
        "adam",
        loss={"kind": "sparse_categorical_crossentropy", "size": "mse"},
        loss_weights={"kind": 2.0, "size": 0.5},
        metrics={"size": ["mae", "mse"]},
    )
    x = {"first": _x(), "second": _x(2, 4)}
    y = {"kind": _classes(), "size": array((N, 1), 5)}
    return _history(k, model, x, y, batch_size=11)


def _dict_outputs(k: Any) -> Arrays:
    a = k.Input((5,))
    hidden = k.layers.Dense(6, activation="tanh")(a)
    outputs = {"p": k.layers.Dense(2)(hidden), "q": k.layers.Dense(1)(hidden)}
    model = k.Model(a, outputs)
    fill(model, 3)
    model.compile("sgd", loss={"p": "mse", "q": "mae"}, metrics={"p": ["mae"], "q": ["mse"]})
    return _history(
        k, model, _x(), {"p": array((N, 2), 5), "q": array((N, 1), 6)},
        batch_size=11,
    )  # fmt: skip


def _one_loss(k: Any) -> Arrays:
    """One loss for all outputs."""
    a = k.Input((5,))
    model = k.Model(a, [k.layers.Dense(2, name="u")(a), k.layers.Dense(1, name="v")(a)])
    fill(model, 3)
    model.compile("sgd", loss="mse")
    return _history(k, model, _x(), [array((N, 2), 5), array((N, 1), 6)], batch_size=11)


def _regularized(k: Any) -> Arrays:
    model = _mlp(k, 2, None, kernel_regularizer="l2", activity_regularizer="l1")
    model.compile("sgd", "mse", metrics=["mse"])
    return _history(k, model, _x(), array((N, 2), 5), validation_split=0.3)


def _add_loss(k: Any) -> Arrays:
    class Penalized(k.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = k.layers.Dense(2)

        def call(self, x: Any) -> Any:
            y = self.dense(x)
            self.add_loss(0.1 * k.ops.sum(k.ops.square(y)))
            return y

    model = Penalized()
    model(_x())
    fill(model, 3)
    model.compile("sgd")
    return _history(k, model, _x())


def _custom_step(k: Any) -> Arrays:
    """A `train_step` of one's own, with metrics that the model holds."""

    class Custom(k.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = k.layers.Dense(1)
            self.tracker = k.metrics.Mean(name="loss")
            self.mae = k.metrics.MeanAbsoluteError(name="mae")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        @property
        def metrics(self) -> Any:
            return [self.tracker, self.mae]

        def train_step(self, data: Any) -> Any:
            x, y = data
            variables = self.trainable_variables
            values: dict[str, Any] = {}

            def loss() -> Any:
                values["y"] = self(x, training=True)
                values["loss"] = k.ops.mean(k.ops.square(values["y"] - y))
                return values["loss"]

            if k.__name__ == "keras":
                import tensorflow

                with tensorflow.GradientTape() as tape:
                    target = loss()
            else:
                with k.GradientTape() as tape:
                    target = loss()
            self.optimizer.apply(tape.gradient(target, variables), variables)
            self.tracker.update_state(values["loss"])
            self.mae.update_state(y, values["y"])
            return {m.name: m.result() for m in self.metrics}

    model = Custom()
    model(_x())
    fill(model, 3)
    model.compile(optimizer="adam")
    return _history(k, model, _x(), array((N, 1), 5))


def _compute_loss(k: Any) -> Arrays:
    """`compute_loss` and `compute_metrics` of one's own."""

    class Custom(k.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = k.layers.Dense(1)
            self.largest = k.metrics.Mean(name="largest")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            return k.ops.mean(k.ops.abs(y_pred - y)) + (0.0 if training else 1.0)

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            results = super().compute_metrics(x, y, y_pred, sample_weight)
            self.largest.update_state(k.ops.max(y_pred))
            results["largest"] = self.largest.result()
            return results

    model = Custom()
    model(_x())
    fill(model, 3)
    model.compile(optimizer="sgd", metrics=["mse"])
    y = array((N, 1), 5)
    return _history(k, model, _x(), y, validation_data=(_x(2), y))


def _learning_rates(k: Any) -> Arrays:
    model = _mlp(k, 2, None)
    model.compile(k.optimizers.SGD(0.4), "mse")
    callbacks = [
        k.callbacks.LearningRateScheduler(lambda epoch, rate: rate * (0.5 if epoch == 2 else 1.0)),
        k.callbacks.ReduceLROnPlateau("loss", 0.2, patience=1, min_delta=0.05, cooldown=1,
                                      min_lr=0.001),
    ]  # fmt: skip
    return _history(k, model, _x(), array((N, 2), 5), epochs=9, callbacks=callbacks)


def _early_stopping(k: Any) -> Arrays:
    """A learning rate that grows, so that the loss does too."""
    model = _mlp(k, 2, None)
    model.compile(k.optimizers.SGD(0.05), "mse")
    stopping = k.callbacks.EarlyStopping(
        "val_loss", patience=2, restore_best_weights=True, start_from_epoch=1
    )
    callbacks = [
        k.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 1.8),
        stopping,
    ]
    found = _history(
        k, model, _x(), array((N, 2), 5), epochs=20, validation_split=0.3, callbacks=callbacks
    )
    found["stopped"] = np.array([stopping.stopped_epoch, stopping.best_epoch])
    return found


def _steps(k: Any) -> Arrays:
    """A generator, in epochs of fewer steps than it has."""

    def batches() -> Any:
        while True:
            for start in range(0, N, 6):
                yield _x()[start : start + 6], array((N, 2), 5)[start : start + 6]

    model = _mlp(k, 2, None)
    model.compile("sgd", "mse")
    return _history(k, model, batches(), batch_size=None, steps_per_epoch=3)


def _averages(k: Any) -> Arrays:
    """Validation with the moving averages of the weights."""
    model = _mlp(k, 2, None)
    model.compile(k.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.6), "mse")
    return _history(
        k, model, _x(), array((N, 2), 5), validation_split=0.3,
        callbacks=[k.callbacks.SwapEMAWeights()],
    )  # fmt: skip


def _gradient_of_loss(k: Any) -> Arrays:
    """`compute_loss` outside of `fit`."""
    model = _mlp(k, 2, None)
    model.compile("sgd", "mse")
    y = k.ops.convert_to_tensor(array((N, 2), 5))
    x = k.ops.convert_to_tensor(_x())
    found = gradients(
        k, lambda: model.compute_loss(x=x, y=y, y_pred=model(x)), model.trainable_variables[:2]
    )
    return {f"gradient.{i}": g for i, g in enumerate(found) if g is not None}


PROGRAMS: dict[str, Program] = {
    "sparse": _sparse,
    "binary": _binary,
    "categorical": _categorical,
    "weighted": _weighted,
    "lists": _lists,
    "dicts": _dicts,
    "dict_outputs": _dict_outputs,
    "one_loss": _one_loss,
    "regularized": _regularized,
    "add_loss": _add_loss,
    "custom_step": _custom_step,
    "compute_loss": _compute_loss,
    "learning_rates": _learning_rates,
    "early_stopping": _early_stopping,
    "steps": _steps,
    "averages": _averages,
    "gradient_of_loss": _gradient_of_loss,
}
