"""Whole models in files: what comes back, and what files that are damaged or hostile do."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import CheckpointError
from tests.frontend.test_copies import MODELS, OfTensors, Own, X, Y

L = ot.layers
CLASSES = {"OfTensors": OfTensors, "Own": Own}


@ot.saving.register_keras_serializable(package="tests")
def halved(x: Any) -> Any:
    return x / 2.0


@ot.saving.register_keras_serializable(package="tests")
class Squares(ot.losses.Loss):
    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.factor * ot.ops.mean(ot.ops.square(y_true - y_pred), axis=-1)


class Warmed(ot.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: Any) -> Any:
        return self.rate * ot.ops.minimum(ot.ops.cast(step, "float32") / 4.0, 1.0)


def targets(model: Any, x: Any) -> Any:
    made = model(x)
    given = made.values() if isinstance(made, dict) else made
    shape = [np.resize(Y, y.shape) for y in (given if isinstance(made, (list, dict)) else [made])]
    if isinstance(made, dict):
        return dict(zip(made, shape, strict=True))
    return shape if isinstance(made, list) else shape[0]


def trained(model: Any, x: Any, y: Any, epochs: int = 2) -> dict[str, list[float]]:
    history: dict[str, list[float]] = model.fit(
        x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0
    ).history
    return history


@pytest.mark.filterwarnings("ignore:no gradient reaches")
@pytest.mark.parametrize("name", MODELS)
def test_training_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    x: Any = {"given": X} if name == "nested" else X
    y = targets(model, x)
    model.compile(ot.optimizers.Adam(0.01, use_ema=True), "mse", metrics=None)
    trained(model, x, y)
    path = tmp_path / "model.onnxtape"
    model.save(path)
    other = ot.models.load_model(path, custom_objects=CLASSES)
    assert type(other).__name__ == type(model).__name__
    # Masks of dropout come from the global stream, which is no part of the model.
    ot.set_seed(5)
    expected = trained(model, x, y)
    ot.set_seed(5)
    assert trained(other, x, y) == expected
    for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def everything() -> Any:
    x = ot.Input((6,), name="x")
    h = L.Dense(4, activation=halved, kernel_initializer="identity", kernel_regularizer="l2")(x)
    h = L.Dropout(0.5, seed=3)(h)
    h = L.Normalization(mean=np.zeros(4), variance=np.ones(4))(h)
    model = ot.Model(x, {"a": L.Dense(2, name="a")(h), "b": L.Dense(1, name="b")(h)})
    optimizer = ot.optimizers.SGD(
        ot.optimizers.schedules.CosineDecay(0.1, 20), momentum=0.9, weight_decay=0.1
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(
        optimizer,
        {"a": Squares(2.0), "b": ot.losses.Huber(0.3)},
        loss_weights={"a": 0.5, "b": 1.0},
        metrics={"a": ["mae", ot.metrics.MeanMetricWrapper(halved_error, name="half")]},
    )
    return model


@ot.saving.register_keras_serializable(package="tests")
def halved_error(y_true: Any, y_pred: Any) -> Any:
    return ot.ops.abs(y_true - y_pred) / 2.0


def test_what_compile_was_given_comes_back(tmp_path: Path) -> None:
    model = everything()
    y = {"a": np.resize(Y, (16, 2)), "b": Y}
    trained(model, X, y)
    path = tmp_path / "model.onnxtape"
    ot.saving.save_model(model, path)
    other = ot.saving.load_model(path)
    expected = trained(model, X, y)
    assert "a_half" in expected
    assert trained(other, X, y) == expected
    assert int(other.optimizer.iterations.numpy()) == int(model.optimizer.iterations.numpy())
    assert other.train_function.trace_count == 1
    alone = ot.saving.load_model(path, compile=False)
    assert not alone.compiled
    alone.compile("sgd", "mse")
    path.rename(tmp_path / "again.onnxtape")
    other.load_weights(tmp_path / "again.onnxtape")
    np.testing.assert_array_equal(other.get_weights()[0], alone.get_weights()[0])


def test_schedules_of_imported_modules_and_functions_handed_over(tmp_path: Path) -> None:
    def tripled(x: Any) -> Any:
        return 3.0 * x

    model = ot.Sequential([ot.Input((6,)), L.Dense(1, activation=tripled), L.Lambda(tripled)])
    model.compile(ot.optimizers.Adam(Warmed(0.1)), "mse")
    trained(model, X, Y)
    path = tmp_path / "model.onnxtape"
    model.save(path)
    with pytest.raises(ValueError, match=r"no function is called 'tripled': give custom_objects="):
        ot.models.load_model(path)
    given = {"tripled": tripled, "Warmed": Warmed}
    other = ot.models.load_model(path, custom_objects=given)
    assert trained(other, X, Y) == trained(model, X, Y)


def test_frozen_layers_inside_a_class_stay_frozen(tmp_path: Path) -> None:
    model = Own()
    model.stack.layers[0].trainable = False
    model.compile(ot.optimizers.SGD(0.1, momentum=0.9), "mse")
    trained(model, X, Y)
    model.save(tmp_path / "model.onnxtape")
    other = ot.models.load_model(tmp_path / "model.onnxtape", CLASSES)
    assert len(other.trainable_variables) == 2
    assert trained(other, X, Y) == trained(model, X, Y)


def test_layers_that_were_built_before(tmp_path: Path) -> None:
    normalization = L.Normalization()
    normalization.adapt(X)
    base = L.Dense(4, name="base")
    base(X)
    stream = ot.random.SeedGenerator(3)
    layers = [ot.Input((6,)), normalization, base, L.Dropout(0.5, seed=stream), L.Dense(1)]
    model = ot.Sequential(layers)
    model.compile("adam", "mse")
    trained(model, X, Y)
    model.save(tmp_path / "model.onnxtape")
    other = ot.models.load_model(tmp_path / "model.onnxtape")
    assert trained(other, X, Y) == trained(model, X, Y)
    model.load_weights(tmp_path / "model.onnxtape")


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    model = everything()
    model.save(tmp_path / "a.onnxtape")
    model.save(tmp_path / "b.onnxtape")
    assert (tmp_path / "a.onnxtape").read_bytes() == (tmp_path / "b.onnxtape").read_bytes()


def test_checkpoints_of_whole_models(tmp_path: Path) -> None:
    model = ot.Sequential([ot.Input((6,)), L.Dense(1)])
    model.compile("adam", "mse")
    saving = ot.callbacks.ModelCheckpoint(tmp_path / "{epoch}.onnxtape")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[saving])
    assert sorted(os.listdir(tmp_path)) == ["1.onnxtape", "2.onnxtape"]
    first = ot.models.load_model(tmp_path / "1.onnxtape")
    first.fit(X, Y, epochs=1, verbose=0)
    np.testing.assert_allclose(first.get_weights()[0], model.get_weights()[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"call it '.*m\.safetensors', not '.*m\.onnxtape'"):
        ot.callbacks.ModelCheckpoint(tmp_path / "m.onnxtape", save_weights_only=True)
    with pytest.raises(ValueError, match=r"kept in a file '.*m\.onnxtape', not '.*m\.keras'"):
        ot.callbacks.ModelCheckpoint(tmp_path / "m.keras")


# What cannot be saved ----------------------------------------------------------------------------


def small() -> Any:
    return ot.Sequential([ot.Input((3,)), L.Dense(2, name="top")], name="small")


def test_names_and_files(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(ValueError, match=r"file 'm\.onnxtape', not 'm\.keras': Keras's own files"):
        model.save("m.keras")
    with pytest.raises(ValueError, match=r"file 'm\.onnxtape', not 'm\.h5'"):
        ot.models.load_model("m.h5")
    model.save(tmp_path / "m.onnxtape")
    with pytest.raises(FileExistsError, match="is there already, and overwrite is False"):
        model.save(tmp_path / "m.onnxtape", overwrite=False)
    with pytest.raises(ValueError, match="one file: leave zipped out"):
        model.save(tmp_path / "n.onnxtape", zipped=False)
    with pytest.raises(ValueError, match="has no weights yet: call it on data or build"):
        ot.Sequential([L.Dense(1)]).save(tmp_path / "n.onnxtape")
    with pytest.raises(CheckpointError, match="There is no saved model"):
        ot.models.load_model(tmp_path / "other.onnxtape")
    with pytest.raises(ValueError, match="skip_mismatch is for files of weights alone"):
        model.load_weights(tmp_path / "m.onnxtape", skip_mismatch=True)
    assert os.listdir(tmp_path) == ["m.onnxtape"]


def test_what_no_file_can_hold(tmp_path: Path) -> None:
    model = ot.Sequential([ot.Input((3,)), L.Lambda(lambda x: x * 2.0)], name="small")
    message = (
        r"model 'small' cannot be saved: its configuration\.config\.layers\[1\]\.config\.function "
        r"is a lambda, which has no name to be found by: write it with def"
    )
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "m.onnxtape")

    class Kept(L.Layer):
        def __init__(self, thing: Any) -> None:
            super().__init__()
            self.thing = thing

        def call(self, x: Any) -> Any:
            return x

    model = ot.Sequential([ot.Input((3,)), Kept(object())])
    with pytest.raises(ValueError, match="which no file can hold: give its class, object"):
        model.save(tmp_path / "m.onnxtape")
    assert os.listdir(tmp_path) == []


def test_losses_that_no_file_can_hold_are_left_out(tmp_path: Path) -> None:
    model = small()
    model.compile("sgd", lambda y_true, y_pred: ot.ops.mean(y_pred))
    with pytest.warns(UserWarning, match=r"as if it were not compiled.*compile was given\.loss is"):
        model.save(tmp_path / "m.onnxtape")
    assert not ot.models.load_model(tmp_path / "m.onnxtape").compiled


# Files from anybody ------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, bytes]], Any], **options: Any) -> Path:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def changed(**parts: Any) -> Callable[[dict[str, bytes]], None]:
    """Another configuration: its parts, or (a dict) the first layer's and its arguments'."""

    def change(entries: dict[str, bytes]) -> None:
        config = json.loads(entries["config.json"])
        layer = config["model"]["config"]["layers"][1]
        for name, value in parts.items():
            if name == "arguments":
                layer["config"] |= value
            elif name == "layer":
                layer |= value
            else:
                config[name] = value
        entries["config.json"] = json.dumps(config).encode()

    return change


class Trap(L.Layer):
    """What a configuration must not reach unless its module is imported."""


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "an entry more": (lambda e: e.update({"../../x": b""}), "is not a saved model: one holds"),
    "an entry less": (lambda e: e.pop("config.json"), "is not a saved model: one holds"),
    "Keras's": (lambda e: e.update({"model.weights.h5": b""}), "a model that Keras has saved"),
    "no JSON": (lambda e: e.update({"config.json": b"{"}), r"its config\.json is no JSON"),
    "deep": (
        lambda e: e.update({"config.json": b"[" * 100_000 + b"]" * 100_000}),
        r"its config\.json is no JSON",
    ),
    "no model": (changed(model={"a": 1}), "cannot be made again.*describes no model"),
    "a number": (lambda e: e.update({"config.json": b"3"}), "cannot be made again"),
    "another format": (lambda e: e.update({"metadata.json": b"{}"}), "not a saved model of"),
    "a later version": (
        lambda e: e.update(
            {"metadata.json": b'{"format": "onnxtape model", "version": 2, "onnxtape": "9.0"}'}
        ),
        r"written by onnxtape 9\.0, in version 2 of its format; this one",
    ),
    "huge": (changed(arguments={"units": 10**12}), r"weight 'kernel' has shape \(3, 10{12}\)"),
    "large": (changed(arguments={"units": 10**6}), r"and all of them more numbers than there are"),
    "arguments": (changed(arguments={"depth": 3}), "Dense has no argument 'depth'"),
    "another state": (changed(arguments={"units": 1}), r"belongs to another model: different: "),
    "no state": (lambda e: e.update({"state.safetensors": b"x" * 99}), "is not a state file"),
    "a function": (
        changed(
            arguments={"activation": {"module": "os", "class_name": "function", "config": "system"}}
        ),
        "no function is called 'system'",
    ),
    "a class that is no layer": (
        changed(layer={"module": "subprocess", "class_name": "Popen", "config": {"args": ["x"]}}),
        "no class is called 'Popen'",
    ),
    "a module that is not imported": (
        changed(layer={"module": "antigravity", "class_name": "Trap", "config": {}}),
        "no class is called 'Trap'",
    ),
    "a program of onnxtape's": (
        changed(layer={"module": "onnxtape.__main__", "class_name": "Trap", "config": {}}),
        "no class is called 'Trap'",
    ),
    "a pickle": (
        lambda e: e.update({"config.json": pickle.dumps(Trap)}),
        r"its config\.json is no JSON",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case: str, tmp_path: Path) -> None:
    import sys

    path = tmp_path / "m.onnxtape"
    small().save(path)
    change, message = HOSTILE[case]
    before = set(sys.modules)
    with pytest.raises(ValueError, match=message):
        ot.models.load_model(rewritten(path, change))
    assert "antigravity" not in set(sys.modules) - before
    assert sorted(os.listdir(tmp_path)) == ["m.onnxtape"]


def test_compressed_and_cut_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnxtape"
    small().save(path)
    whole = path.read_bytes()
    rewritten(path, lambda e: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="it is compressed, and none is"):
        ot.models.load_model(path)
    for size in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="is not a saved model, or is damaged"):
            ot.models.load_model(path)
    at = whole.index(b"kernel", whole.index(b"state.safetensors"))
    path.write_bytes(whole[:at] + b"KERNEL" + whole[at + 6 :])
    with pytest.raises(CheckpointError, match="is damaged: Bad CRC-32"):
        ot.models.load_model(path)
