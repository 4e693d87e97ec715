"""`fit` and its callbacks beyond the numbers that Keras gives: counts, files, data, mistakes."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 4)).astype("f")
Y = (X.sum(1) > 0).astype("int64")


def compiled(**options: Any) -> Any:
    ot.set_seed(0)
    model = ot.Sequential([ot.Input((4,)), ot.layers.Dense(8, "relu"), ot.layers.Dense(2)])
    loss = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(ot.optimizers.SGD(0.1), loss, metrics=["accuracy"], **options)
    return model


def logs(model: Any, *args: Any, **options: Any) -> dict[str, list[float]]:
    found: dict[str, list[float]] = model.fit(*args, **{"verbose": 0, **options}).history
    return found


@pytest.mark.parametrize("form", ["dataset", "generator", "tensors", "loader"])
def test_every_form_of_data_gives_the_same_numbers(form: str) -> None:
    expected = logs(compiled(), X, Y, batch_size=32, shuffle=False, epochs=2)
    pairs = [(X[i : i + 32], Y[i : i + 32]) for i in range(0, 70, 32)]
    options: dict[str, Any] = {"epochs": 2, "shuffle": False}
    if form == "dataset":
        data: Any = (ot.data.Dataset.from_tensor_slices((X, Y)).batch(32),)
    elif form == "generator":
        data = ((pair for _ in range(2) for pair in pairs),)
        options["steps_per_epoch"] = 3
    elif form == "loader":

        class Loader:
            """As PyTorch's: it can be gone through any number of times."""

            def __iter__(self) -> Any:
                return iter(pairs)

            def __len__(self) -> int:
                return len(pairs)

        data = (Loader(),)
    else:
        data = (ot.convert_to_tensor(X), ot.convert_to_tensor(Y))
        options["batch_size"] = 32
    found = logs(compiled(), *data, **options)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


def test_early_stopping_takes_the_best_weights_back() -> None:
    model = compiled()
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.5])
    weights: list[Any] = []

    class Scores(ot.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["score"] = next(losses)
            weights.append(model.get_weights())

    stop = ot.callbacks.EarlyStopping("score", patience=2, mode="min", restore_best_weights=True)
    found = logs(model, X, Y, epochs=5, callbacks=[Scores(), stop])
    assert len(found["loss"]) == 4
    assert (stop.best_epoch, stop.stopped_epoch) == (1, 3)
    for now, best in zip(model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(now, best)


@pytest.mark.parametrize(
    ("metric", "monitor", "larger"),
    [
        ("accuracy", "accuracy", True),
        (ot.metrics.SparseCategoricalAccuracy(name="share"), "val_share", True),
        (ot.metrics.SparseCategoricalCrossentropy(from_logits=True, name="ce"), "val_ce", False),
    ],
)
def test_callbacks_know_whether_more_of_a_metric_is_better(
    metric: Any, monitor: str, larger: bool
) -> None:
    model = compiled()
    loss = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=[metric])
    kept = ot.callbacks.EarlyStopping(monitor, patience=10, restore_best_weights=True)
    found = logs(model, X, Y, validation_split=0.3, epochs=4, callbacks=[kept])[monitor]
    assert kept.best == (max(found) if larger else min(found))


def test_the_rate_changes_without_another_trace() -> None:
    model = compiled()
    schedule = ot.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    found = logs(model, X, Y, epochs=3, callbacks=[schedule])
    np.testing.assert_allclose(found["learning_rate"], [0.05, 0.025, 0.0125], rtol=1e-6)


def test_a_rate_is_reduced_on_a_plateau() -> None:
    model = compiled()

    class Flat(ot.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["flat"] = 1.0

    reduce = ot.callbacks.ReduceLROnPlateau("flat", factor=0.1, patience=2, mode="min")
    found = logs(model, X, Y, epochs=5, callbacks=[Flat(), reduce])
    np.testing.assert_allclose(found["learning_rate"], [0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_files_that_callbacks_write(tmp_path: Path) -> None:
    model = compiled()
    callbacks = [
        ot.callbacks.ModelCheckpoint(
            tmp_path / "{epoch:02d}-{loss:.2f}.safetensors", save_weights_only=True
        ),
        ot.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    found = logs(model, X, Y, epochs=2, callbacks=callbacks)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        *[f"{i + 1:02d}-{loss:.2f}.safetensors" for i, loss in enumerate(found["loss"])],
        "log.csv",
    ]
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    np.testing.assert_allclose([float(row["loss"]) for row in rows], found["loss"], rtol=1e-6)
    fresh = compiled()
    fresh.load_weights(tmp_path / names[1])
    for loaded, trained in zip(fresh.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, trained)


def test_training_ends_where_the_loss_is_no_number() -> None:
    x = X.copy()
    x[40] = np.nan
    seen: list[int] = []
    watch = ot.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    callbacks = [ot.callbacks.TerminateOnNaN(), watch]
    logs(compiled(), x, Y, batch_size=16, shuffle=False, epochs=3, callbacks=callbacks)
    assert seen == [0, 1, 2]


def test_train_step_may_be_written_anew() -> None:
    class Doubled(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = ot.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with ot.GradientTape() as tape:
                loss = 2 * ot.ops.mean((self(x) - y) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"doubled": loss}

    model = Doubled()
    model.compile("sgd", "mse")
    found = logs(model, X, X.sum(1, keepdims=True), epochs=5, batch_size=70)
    assert list(found) == ["doubled"]
    assert found["doubled"][-1] < found["doubled"][0]


def test_a_layer_that_is_not_used_is_named_at_the_users_line() -> None:
    class Unused(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = ot.layers.Dense(1), ot.layers.Dense(1, name="other")
            self.other.build((None, 4))

        def call(self, x: Any) -> Any:
            return self.used(x)

    model = Unused()
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="no gradient reaches other/kernel, other/bias") as caught:
        model.fit(X, X[:, :1], batch_size=70, verbose=0)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_call_without_training_is_one_at_rest_as_in_keras() -> None:
    class Resting(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = ot.layers.Dense(1)
            self.dropout = ot.layers.Dropout(0.9, name="drop")

        def call(self, x: Any) -> Any:
            return self.dropout(self.dense(x))

    class Training(Resting):
        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.dropout(self.dense(x))

    for kind in (Resting, Training):
        model = kind()
        model.compile(ot.optimizers.SGD(0.0), "mse")
        data = (X, X[:, :1])
        model(X)
        if kind is Resting:
            with pytest.warns(
                UserWarning, match=r"Resting.call takes no argument 'training', so 'dr"
            ):
                loss = model.fit(*data, batch_size=70, verbose=0).history["loss"][0]
        else:
            loss = model.fit(*data, batch_size=70, verbose=0).history["loss"][0]
        rested = model.evaluate(*data, batch_size=70, verbose=0)
        assert (loss == pytest.approx(rested)) == (kind is Resting)


def test_mistakes() -> None:
    model = ot.Sequential([ot.Input((4,)), ot.layers.Dense(2)])
    with pytest.raises(ValueError, match="compile"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match=r"70(?s:.*)60"):
        compiled().fit(X, Y[:60], verbose=0)
    with pytest.raises(TypeError, match="LambdaCallback"):
        compiled().fit(X, Y, verbose=0, callbacks=[lambda epoch: None])


def test_a_model_as_a_picture(tmp_path: Path) -> None:
    x = ot.Input((4,), name="numbers")
    hidden = ot.layers.Dense(8, name="hidden")(x)
    both = ot.layers.Add(name="sum")([hidden, ot.layers.Dense(8, name="skip")(x)])
    model = ot.Model(x, ot.layers.Dense(2, name="scores")(both))
    path = tmp_path / "model.svg"
    ot.plot_model(model, path, show_shapes=True)
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    shown = " ".join(root.itertext())
    for name in ("numbers", "hidden", "skip", "sum", "scores", "(None, 8)"):
        assert name in shown


def test_a_dict_of_one_entry_stays_a_dict() -> None:
    inputs = ot.Input((4,), name="features")
    outputs = {
        "kind": ot.layers.Dense(3, name="kind")(inputs),
        "other": ot.layers.Dense(1, name="other")(inputs),
    }
    seen = []

    class Watched(ot.Model):
        def train_step(self, data: Any) -> Any:
            seen.append(data)
            return super().train_step(data)

    model = Watched({"features": inputs}, outputs)
    # Keras lets targets be given for the outputs with a loss only.
    model.compile("sgd", {"kind": ot.losses.SparseCategoricalCrossentropy(from_logits=True)})
    x, y = np.ones((8, 4), np.float32), np.zeros(8, np.int64)
    with pytest.warns(UserWarning, match="no gradient reaches other/"):
        history = model.fit({"features": x}, {"kind": y}, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    assert [list(part) for part in seen[0]] == [["features"], ["kind"]]


def test_names_of_metrics() -> None:
    model = ot.Sequential([ot.Input((2,)), ot.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert model.metrics_names == ["loss"]
    model.compile("sgd", "mse", metrics=["mae"])
    assert model.metrics_names == ["loss", "compile_metrics"]


def test_metrics_by_name_do_not_make_fit_trace_twice() -> None:
    def calls(metrics: list[str]) -> int:
        counted = []
        inputs = ot.Input((4,))
        h = ot.layers.Lambda(lambda x: counted.append(x) or x)(inputs)
        model = ot.Model(inputs, ot.layers.Dense(3)(h))
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=metrics)
        model.fit(np.ones((8, 4), np.float32), np.zeros(8, np.int64), verbose=0)
        return len(counted)

    assert calls(["accuracy", "sparse_top_k_categorical_accuracy"]) == calls([])
