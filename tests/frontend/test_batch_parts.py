"""Steps whose threads each run a part of the batch: the numbers of steps that run as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import onnxtape as ot
from onnxtape import compilation, naming
from onnxtape.compiler.sharding import split
from onnxtape.errors import ExecutionError
from onnxtape.runtime import session
from onnxtape.runtime.blocked_layout import block_size

Array = npt.NDArray[Any]
LENGTH, WORDS, CLASSES = 6, 11, 3


@pytest.fixture(autouse=True)
def _parts(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    """Parts wherever they are possible, whatever they gain."""
    monkeypatch.setattr(split, "_WORTHWHILE", math.inf)
    monkeypatch.setattr(compilation, "_BRIEF_SECONDS", 0.0)
    monkeypatch.setenv("ONNXTAPE_CACHE", "off")


def recurrent() -> ot.Model:
    return ot.Sequential(
        [
            ot.Input((LENGTH,), dtype="int64"),
            ot.layers.Embedding(WORDS, 4),
            ot.layers.LSTM(8, return_sequences=True),
            ot.layers.GRU(5),
            ot.layers.Dense(CLASSES),
        ]
    )


def masked() -> ot.Model:
    return ot.Sequential(
        [
            ot.Input((LENGTH,), dtype="int64"),
            ot.layers.Embedding(WORDS, 4, mask_zero=True),
            ot.layers.Bidirectional(ot.layers.LSTM(8)),
            ot.layers.Dropout(0.3, seed=1),
            ot.layers.Dense(CLASSES),
        ]
    )


def attention() -> ot.Model:
    words = ot.Input((LENGTH,), dtype="int64")
    x = ot.layers.Embedding(WORDS, 8)(words)
    x = ot.layers.LayerNormalization()(x + ot.layers.MultiHeadAttention(2, 4)(x, x))
    x = ot.layers.Dense(8, activation="gelu")(x)
    return ot.Model(words, ot.layers.Dense(CLASSES)(ot.layers.GlobalAveragePooling1D()(x)))


def batch_statistics() -> ot.Model:
    words = ot.Input((LENGTH,), dtype="int64")
    x = ot.layers.Embedding(WORDS, 8)(words)
    x = ot.layers.Dense(8)(ot.layers.Flatten()(x))
    x = ot.layers.BatchNormalization()(x)
    return ot.Model(words, ot.layers.Dense(CLASSES)(x))


def convolutional() -> ot.Model:
    words = ot.Input((LENGTH,), dtype="int64")
    x = ot.layers.Reshape((8, 8, 3))(ot.layers.Embedding(WORDS, 32)(words))
    fine = ot.layers.Conv2D(16, 3, padding="same")(x)
    fine = ot.layers.ReLU()(ot.layers.GroupNormalization(4)(fine))
    coarse = ot.layers.Conv2D(32, 3, strides=2, padding="same")(fine)
    coarse = ot.layers.Conv2D(16, 3, padding="same", use_bias=False)(ot.layers.ReLU()(coarse))
    up = ot.layers.Conv2DTranspose(16, 4, strides=2, padding="same")(coarse)
    x = ot.layers.Concatenate()([fine, up, ot.layers.UpSampling2D(2)(coarse)])
    x = ot.layers.MaxPooling2D(2)(ot.layers.Conv2D(8, 1, activation="tanh")(x))
    return ot.Model(words, ot.layers.Dense(CLASSES)(ot.layers.GlobalAveragePooling2D()(x)))


MODELS: dict[str, Callable[[], ot.Model]] = {
    "recurrent": recurrent,
    "masked": masked,
    "attention": attention,
    "batch statistics": batch_statistics,
    "convolutional": convolutional,
}
#: Its parts have whole blocks of samples, see `MarkKernelGradients`.
SIZES = {"convolutional": 32}


class Training:
    """A model, its optimizer, its metrics and its step."""

    def __init__(self, make: Callable[[], ot.Model]) -> None:
        ot.set_seed(3)
        self.model = make()
        self.optimizer = ot.optimizers.Adam(0.01, global_clipnorm=1.0)
        self.accuracy = ot.metrics.SparseCategoricalAccuracy()
        self.loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)

        @ot.function(fallback="error")
        def step(x: Any, y: Any) -> Any:
            with ot.GradientTape() as tape:
                logits = self.model(x, training=True)
                loss = self.loss_fn(y, logits)
            weights = self.model.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            self.accuracy.update_state(y, logits)
            return {"loss": loss, "logits": logits, "accuracy": self.accuracy.result()}

        self.step = step

    def run(self, *sizes: int, first: int = 0) -> list[dict[str, Array]]:
        found = []
        for i, size in enumerate(sizes):
            result = self.step(*batch(first + i, size))
            found.append({name: value.numpy() for name, value in result.items()})
        return found

    def in_parts(self, size: int = 8) -> bool:
        concrete = self.step.get_concrete_function(*batch(0, size))
        return concrete._step._parts is not None

    @property
    def state(self) -> list[Array]:
        values = (*self.model.weights, *self.optimizer.variables, *self.accuracy.variables)
        return [v.numpy() for v in values]


def batch(number: int, size: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(number)
    x = rng.integers(0, WORDS, (size, LENGTH))
    x[:, -1] = 1  # sequences of padding alone have no mean
    return x, x[:, 0] % CLASSES


def whole(make: Callable[[], ot.Model], *sizes: int) -> tuple[list[dict[str, Array]], Training]:
    """The same training with one thread, as one graph."""
    session.set_num_threads(1)
    training = Training(make)
    results = training.run(*sizes)
    assert not training.in_parts(sizes[0])
    session.set_num_threads(2)
    return results, training


def close(one: list[Array], other: list[Array]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_parts_train_as_the_whole_does(name: str) -> None:
    sizes = [SIZES.get(name, 8)] * 10
    expected, other = whole(MODELS[name], *sizes)
    training = Training(MODELS[name])
    for mine, theirs in zip(training.run(*sizes), expected, strict=True):
        close(list(mine.values()), list(theirs.values()))
    close(training.state, other.state)
    assert training.in_parts(sizes[0])


def test_convolutions_of_less_than_a_block_of_samples_stay_whole() -> None:
    block = block_size()
    training = Training(convolutional)
    training.run(8)
    assert training.in_parts() == (block <= 4)


def test_other_batch_sizes_take_turns_with_parts() -> None:
    sizes = [8, 8, 5, 8, 1, 8, 7]
    expected, other = whole(recurrent, *sizes)
    training = Training(recurrent)
    for mine, theirs in zip(training.run(*sizes), expected, strict=True):
        close(list(mine.values()), list(theirs.values()))
    close(training.state, other.state)
    assert training.step.trace_count == 2


def test_assigned_and_restored_state_reaches_the_parts(tmp_path: Path) -> None:
    training = Training(masked)
    training.run(8, 8)
    state = {"model": training.model, "optimizer": training.optimizer}
    ot.save_checkpoint(tmp_path / "state.safetensors", state)
    held = training.state
    first = training.run(8, first=2)[0]
    for kept, now in zip(held[: len(training.model.weights)], training.state, strict=False):
        assert kept is not now
    ot.restore_checkpoint(tmp_path / "state.safetensors", state)
    again = training.run(8, first=2)[0]
    np.testing.assert_array_equal(first["loss"], again["loss"])
    np.testing.assert_array_equal(first["logits"], again["logits"])


def test_a_part_that_fails_leaves_the_state(tmp_path: Path) -> None:
    training = Training(recurrent)
    training.run(8)
    before = training.state
    x, y = batch(0, 8)
    x[-1, 0] = WORDS
    with pytest.raises(ExecutionError, match="the step failed"):
        training.step(x, y)
    for mine, theirs in zip(training.state, before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    training.run(8)


def test_the_exported_artifact_is_whole(tmp_path: Path) -> None:
    training = Training(recurrent)
    training.run(8)
    training.step.export(tmp_path / "artifact", model=training.model)
    artifact = ot.TrainingSession(tmp_path / "artifact")
    x, y = batch(1, 8)
    np.testing.assert_allclose(
        artifact.step(x=x, y=y)["loss"], training.run(8, first=1)[0]["loss"], rtol=1e-5
    )


def test_a_second_process_finds_the_parts_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXTAPE_CACHE", str(tmp_path))
    expected = Training(recurrent).run(8, 8)
    monkeypatch.setattr(compilation, "_optimized", None)
    naming.reset_names()
    again = Training(recurrent)
    for mine, theirs in zip(again.run(8, 8), expected, strict=True):
        np.testing.assert_array_equal(mine["loss"], theirs["loss"])
    assert again.in_parts()
