"""Checkpoints of models, optimizers, metrics and the random stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import naming
from onnxtape.errors import CheckpointError
from tests.frontend.training import Training, batches


def everything(training: Training) -> list[Any]:
    return [*training.state(), ot.random.global_generator().state.numpy()]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
def test_training_resumes_bit_for_bit(tmp_path: Path, compiled: bool) -> None:
    data = batches(12, last=5)
    training = Training(compiled=compiled)
    training.run(data[:5])
    ot.save_checkpoint(tmp_path / "checkpoint.safetensors", training.tree)
    saved = everything(training)
    losses, final = training.run(data[5:]), everything(training)

    # In the same objects ...
    ot.restore_checkpoint(tmp_path / "checkpoint.safetensors", training.tree)
    assert same(everything(training), saved)
    assert training.run(data[5:]) == losses
    assert same(everything(training), final)

    # ... and in others of the same names, with weights and a random stream of their own.
    naming.reset_names()
    other = Training(seed=99, compiled=compiled)
    other.run(data[:2])
    ot.restore_checkpoint(tmp_path / "checkpoint.safetensors", other.tree)
    assert other.run(data[5:]) == losses
    assert same(everything(other), final)


def test_an_optimizer_is_built_by_hand_before_it_is_restored(tmp_path: Path) -> None:
    data = batches(4)
    training = Training()
    training.run(data)
    ot.save_checkpoint(tmp_path / "checkpoint.safetensors", training.tree)
    expected = training.run(data)
    naming.reset_names()
    other = Training(seed=5)
    other.optimizer.build(other.model.trainable_weights)
    ot.restore_checkpoint(tmp_path / "checkpoint.safetensors", other.tree)
    assert other.run(data) == expected


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    weight = ot.Variable([[1.0, 2.0]], name="weight")
    count = ot.Variable(3, name="count", dtype="int64", trainable=False)
    other = ot.Variable(5.0, name="weight")
    ot.save_checkpoint(tmp_path / "file", {"a": [weight, count], "b": (other,)})
    found = load_file(tmp_path / "file")
    assert set(found) == {"a/weight", "a/count", "b/weight", "global_seed_generator"}
    np.testing.assert_array_equal(found["a/weight"], np.float32([[1, 2]]))
    assert found["a/count"].dtype == np.int64


def test_equal_names_and_shared_variables(tmp_path: Path) -> None:
    one, two = ot.Variable(1.0, name="w"), ot.Variable(2.0, name="w")
    tree = [one, two, one]
    ot.save_checkpoint(tmp_path / "file", tree)
    one.assign(0.0)
    two.assign(0.0)
    ot.restore_checkpoint(tmp_path / "file", tree)
    assert (float(one), float(two)) == (1, 2)


def test_a_seed_generator_and_a_layer_can_be_saved(tmp_path: Path) -> None:
    generator = ot.random.SeedGenerator(3)
    layer = ot.layers.Dense(2)
    layer(np.ones((1, 3), np.float32))
    ot.random.uniform((3,), seed=generator)
    ot.save_checkpoint(tmp_path / "file", [generator, layer])
    drawn = np.asarray(ot.random.uniform((3,), seed=generator))
    kernel = layer.variables[0].numpy()
    layer.variables[0].assign(kernel * 0)
    ot.restore_checkpoint(tmp_path / "file", [generator, layer])
    np.testing.assert_array_equal(ot.random.uniform((3,), seed=generator), drawn)
    np.testing.assert_array_equal(layer.variables[0].numpy(), kernel)


def test_a_file_of_another_model_names_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    small = ot.Sequential([ot.Input((3,)), ot.layers.Dense(2, name="head")], name="small")
    ot.save_checkpoint(path, {"model": small})
    training = Training(dropout=0.0)
    before = everything(training)
    with pytest.raises(CheckpointError) as caught:
        ot.restore_checkpoint(path, {"model": training.model})
    text = str(caught.value)
    assert "model/sequential/dense/kernel" in text
    assert "model/small/head/kernel" in text
    assert str(path) in text
    assert same(everything(training), before)


def test_another_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    first, second = ot.Variable([1.0, 2.0], name="a"), ot.Variable(1.0, name="b")
    ot.save_checkpoint(tmp_path / "file", [first, second])
    changed = [ot.Variable(0.0, name="b"), ot.Variable([1.0, 2.0, 3.0], name="a")]
    with pytest.raises(CheckpointError, match=r"a.*\[3\]|a.*\(3,\)"):
        ot.restore_checkpoint(tmp_path / "file", changed)
    assert float(changed[0]) == 0  # nothing was assigned
    with pytest.raises(CheckpointError, match="float64"):
        ot.restore_checkpoint(
            tmp_path / "file", [ot.Variable([1.0, 2.0], name="a", dtype="float64"), second]
        )


def test_an_optimizer_that_is_not_built_misses_entries(tmp_path: Path) -> None:
    training = Training(dropout=0.0)
    training.run(batches(1))
    ot.save_checkpoint(tmp_path / "file", training.tree)
    fresh = ot.optimizers.Adam(0.01, name="adam")
    with pytest.raises(CheckpointError, match="optimizer/adam/sequential_dense_bias_momentum"):
        ot.restore_checkpoint(tmp_path / "file", {**training.tree, "optimizer": fresh})


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_file_cut_short_is_refused_and_changes_nothing(tmp_path: Path, keep: int) -> None:
    training = Training(dropout=0.0)
    path = tmp_path / "checkpoint.safetensors"
    ot.save_checkpoint(path, training.tree)
    path.write_bytes(path.read_bytes()[:keep])
    training.run(batches(1))
    tree = {"model": training.model}
    before = everything(training)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        ot.restore_checkpoint(path, tree)
    assert same(everything(training), before)


def test_a_missing_file_and_other_things_in_the_tree(tmp_path: Path) -> None:
    weight = ot.Variable(1.0)
    with pytest.raises(CheckpointError, match="nowhere"):
        ot.restore_checkpoint(tmp_path / "nowhere", weight)
    with pytest.raises(TypeError, match=r"holds models, layers, .* not ndarray"):
        ot.save_checkpoint(tmp_path / "file", {"weight": weight, "extra": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_restoring_costs_no_trace_and_moves_compiled_steps_along(tmp_path: Path) -> None:
    training = Training()
    data = batches(3)
    training.run(data)
    ot.save_checkpoint(tmp_path / "file", training.tree)
    held = training.model.variables[0].value
    numbers = np.array(held)
    ot.restore_checkpoint(tmp_path / "file", training.tree)
    training.run(data)
    np.testing.assert_array_equal(held, numbers)
    assert training.step.trace_count == 1
