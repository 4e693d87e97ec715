"""Callbacks: when they are called and with what, going on after an interruption, counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import naming
from onnxtape.callbacks.checkpoint import BatchCounter
from onnxtape.runtime import session
from onnxtape.tensor import Tensor

X = np.random.default_rng(0).normal(size=(40, 4)).astype("f")
Y = (X.sum(1) > 0).astype("int64")


def compiled(dropout: float = 0.0, optimizer: Any = "adam") -> Any:
    """A model with the names that it has in a new process."""
    naming.reset_names()
    ot.set_seed(0)
    layers = [ot.Input((4,)), ot.layers.Dense(8, "relu"), ot.layers.Dropout(dropout)]
    model = ot.Sequential([*layers, ot.layers.Dense(2, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model: Any, **options: Any) -> dict[str, list[float]]:
    given = {"batch_size": 16, "epochs": 2, "verbose": 0, "shuffle": False, **options}
    found: dict[str, list[float]] = model.fit(X, Y, **given).history
    return found


def test_hooks_come_in_order() -> None:
    calls: list[str] = []

    class All(ot.callbacks.Callback):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end"):
                calls.append(name.removeprefix("on_"))
            return super().__getattribute__(name)

        # A hook that is not written would not be called.
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None: ...
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None: ...
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None: ...

    callback = All()
    model = compiled()
    callbacks = ot.callbacks.CallbackList([callback], add_history=True, model=model)
    calls.clear()
    fit(model, epochs=1, callbacks=callbacks, batch_size=20, validation_data=(X, Y))
    batch = ["train_batch_begin", "train_batch_end"]
    assert calls == [
        "train_begin", "epoch_begin", *batch, *batch, "test_begin", "test_batch_end",
        "test_batch_end", "test_end", "epoch_end", "train_end",
    ]  # fmt: skip


def test_nobody_waits_for_numbers_that_no_callback_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = 0
    numpy = Tensor.numpy

    def counted(tensor: Tensor) -> Any:
        nonlocal fetched
        fetched += 1
        return numpy(tensor)

    model = compiled()
    fit(model, epochs=2)
    monkeypatch.setattr(Tensor, "numpy", counted)
    quiet = ot.callbacks.ModelCheckpoint("unused.safetensors", save_best_only=True)
    quiet.on_epoch_end = lambda epoch, logs=None: None  # type: ignore[method-assign]
    fit(model, epochs=1, batch_size=4, callbacks=[quiet])
    # Ten batches, but only the epoch's loss and accuracy.
    after_epoch = fetched
    fetched = 0
    seen: list[Any] = []
    watch = ot.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs))
    fit(model, epochs=1, batch_size=4, callbacks=[watch])
    assert len(seen) == 10
    assert all(isinstance(value, float) for logs in seen for value in logs.values())
    assert fetched == after_epoch + 20


def test_one_trace_for_whole_batches_and_one_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model = compiled()
    fit(model, epochs=2, validation_data=(X[:20], Y[:20]))
    assert (model.train_function.trace_count, model.test_function.trace_count) == (2, 2)

    def refused(*args: Any, **options: Any) -> Any:
        raise AssertionError("another session was made")

    monkeypatch.setattr("onnxtape.compilation.create_session", refused)
    monkeypatch.setattr(session, "create_session", refused)
    fit(model, epochs=3, validation_data=(X[:20], Y[:20]))
    fit(model, epochs=1, batch_size=7)
    assert (model.train_function.trace_count, model.test_function.trace_count) == (2, 2)


class Interruption(Exception):
    """What ends a training early."""


@pytest.mark.parametrize("shuffle", [False, True], ids=["ordered", "shuffled"])
@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_training_goes_on_after_an_interruption(
    tmp_path: Path, damaged: bool, shuffle: bool
) -> None:
    whole = compiled(dropout=0.5)
    expected = fit(whole, epochs=4, shuffle=shuffle)

    class Interrupt(ot.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3:
                raise Interruption

    folder = tmp_path / "backup"
    backup = ot.callbacks.BackupAndRestore(folder, double_checkpoint=damaged)
    with pytest.raises(Interruption):
        fit(compiled(dropout=0.5), epochs=4, callbacks=[backup, Interrupt()], shuffle=shuffle)
    if damaged:
        # Then the epoch before is where it goes on.
        (folder / "latest.safetensors").write_bytes(b"cut short")
    resumed = compiled(dropout=0.5)
    ot.set_seed(17)
    history = resumed.fit(
        X, Y, batch_size=16, epochs=4, verbose=0, shuffle=shuffle,
        callbacks=[ot.callbacks.BackupAndRestore(folder)],
    )  # fmt: skip
    assert history.epoch == ([2, 3] if damaged else [3])
    np.testing.assert_allclose(history.history["loss"][-1], expected["loss"][-1], rtol=1e-5)
    for now, then in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-6)
    assert not folder.exists()


def test_batches_are_counted_across_epochs() -> None:
    counter = BatchCounter(3)
    assert [counter.count(batch) for batch in (0, 1, 0, 1, 0, 1)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip
    assert not BatchCounter("epoch").count(100)


def test_only_the_best_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = iter([2.0, 3.0, 1.0])

    class Scores(ot.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["score"] = next(scores)

    model = compiled()
    save = ot.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.safetensors", "score", 1, save_best_only=True, mode="min"
    )
    fit(model, epochs=3, callbacks=[Scores(), save])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.safetensors", "3.safetensors"]
    said = capsys.readouterr().out
    assert "score improved from None to 2.00000" in said
    assert "Epoch 2: score did not improve from 2.00000" in said
    other = compiled()
    other.optimizer.build(other.trainable_variables)
    tree = {"model": other, "optimizer": other.optimizer}
    ot.restore_checkpoint(tmp_path / "3.safetensors", tree)
    assert int(other.optimizer.iterations.numpy()) == 9


def test_the_bar_and_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    model = compiled()
    fit(model, epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 1/2"
    assert lines[1].startswith("3/3 - ")
    assert " - loss: " in lines[1]
    assert " - accuracy: " in lines[1]
    fit(model, epochs=1, verbose=1)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown, "colours, though this is no terminal"
    assert shown.endswith("\n")
    assert "\r3/3 " + "━" * 20 in shown
    model.predict(X, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_copy_of_a_trained_model_trains_for_itself() -> None:
    import copy

    model = compiled()
    fit(model)
    before = model.get_weights()
    other = copy.deepcopy(model)
    fit(other)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert any((a != b).any() for a, b in zip(other.get_weights(), before, strict=True))


def test_weights_go_by_name_or_by_order(tmp_path: Path) -> None:
    first = compiled()
    second = ot.Sequential(
        [ot.Input((4,)), ot.layers.Dense(8, "relu"), ot.layers.Dense(2, "softmax")]
    )
    fit(first)
    first.save_weights(tmp_path / "w.safetensors")
    assert [v.path for v in first.weights] != [v.path for v in second.weights]
    second.load_weights(tmp_path / "w.safetensors")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(FileExistsError, match="overwrite is False"):
        first.save_weights(tmp_path / "w.safetensors", overwrite=False)
    with pytest.raises(ValueError, match=r"call it 'w\.safetensors', not 'w\.weights\.h5'"):
        first.save_weights("w.weights.h5")
    stranger = ot.Sequential([ot.Input((3,)), ot.layers.Dense(1)])
    with pytest.raises(ot.errors.CheckpointError, match="belongs to another model"):
        stranger.load_weights(tmp_path / "w.safetensors")


def test_freezing_a_layer_after_training_is_seen() -> None:
    model = compiled(optimizer=ot.optimizers.SGD(0.1))
    fit(model)
    model.layers[0].trainable = False
    before = model.get_weights()
    fit(model)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[2] != after[2]).any()


def test_mistakes_of_callbacks(tmp_path: Path) -> None:
    of = ot.callbacks
    with pytest.raises(ValueError, match=r"file 'm\.onnxtape', not 'm\.keras'"):
        of.ModelCheckpoint("m.keras")
    with pytest.raises(ValueError, match="save_freq is 'epoch' or a number of batches, not 0"):
        of.ModelCheckpoint("m.safetensors", save_freq=0)
    with pytest.raises(ValueError, match=r"factor is below 1, not 1\.5"):
        of.ReduceLROnPlateau(factor=1.5)
    with pytest.raises(ValueError, match="mode is 'auto', 'min' or 'max', not 'up'"):
        of.EarlyStopping(mode="up")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callbacks have no hook 'on_lunch'"):
        of.LambdaCallback(on_lunch=print)
    with pytest.raises(ValueError, match=r"returns a float, not 1 of type int"):
        fit(compiled(), callbacks=[of.LearningRateScheduler(lambda epoch, rate: 1)])
    with pytest.raises(ValueError, match="use_ema=True"):
        fit(compiled(), callbacks=[of.SwapEMAWeights()], validation_data=(X, Y))
    with pytest.raises(KeyError, match="asks for 'nothing', but there are epoch, accuracy, loss"):
        fit(compiled(), callbacks=[of.ModelCheckpoint(tmp_path / "{nothing}.safetensors")])
    with pytest.warns(UserWarning, match="watches 'val_loss'.*val_ names need validation_data"):
        fit(compiled(), epochs=1, callbacks=[of.EarlyStopping()])
    with pytest.raises(RuntimeError, match="the loss of batch 0 is nan"):
        compiled().fit(
            X * np.float32(np.nan), Y, verbose=0, callbacks=[of.TerminateOnNaN(raise_error=True)]
        )


def test_a_schedule_may_take_the_epoch_alone() -> None:
    history = fit(
        compiled(),
        epochs=2,
        callbacks=[ot.callbacks.LearningRateScheduler(lambda e: 0.5 / (e + 1))],
    )
    np.testing.assert_allclose(history["learning_rate"], [0.5, 0.25])


def test_a_mistake_in_a_schedule_is_its_own() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        fit(compiled(), callbacks=[ot.callbacks.LearningRateScheduler(lambda _, rate: rate + "")])


def test_mistakes_of_fit() -> None:
    data = ot.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    model = compiled()
    for options, message in [
        ({"x": data, "y": Y}, "y was given beside a Dataset"),
        ({"x": data, "validation_split": 0.2}, "validation_split needs arrays, not a Dataset"),
        ({"x": data.repeat()}, "give steps_per_epoch"),
        ({"x": X, "y": Y, "validation_split": 1.5}, r"lies between 0 and 1, not at 1\.5"),
        ({"x": X, "y": Y, "batch_size": 0}, "batch_size is at least 1"),
        ({"x": X, "y": Y, "shuffle": "batch"}, "shuffle is True or False"),
        ({"x": X, "y": Y, "class_weight": {0: 1.0}, "sample_weight": X[:, 0]}, "not both"),
        ({"x": X}, "the loss needs targets"),
        ({}, "x is missing"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(verbose=0, **options)
    with pytest.raises(TypeError, match="iterable of batches, not function"):
        model.fit(test_mistakes_of_fit, verbose=0)
    with pytest.raises(ValueError, match="steps_per_execution=4 is not supported"):
        model.compile("sgd", "mse", steps_per_execution=4)
    with pytest.raises(ValueError, match="loss_weights are numbers"):
        model.compile("sgd", "mse", ["accuracy"])
    with pytest.raises(ValueError, match=r"write metrics=\['mae'\]"):
        model.compile("sgd", "mse", metrics="mae")
    with pytest.warns(UserWarning, match=r"batch_size was given beside a Dataset.*no meaning"):
        compiled().fit(data, batch_size=4, verbose=0)
    with pytest.warns(UserWarning, match="the data ran out: it ended after 1 of 4 steps"):
        compiled().fit(iter([(X, Y)]), steps_per_epoch=4, verbose=0)
