"""Checkpoints of models, optimizers, metrics and the random stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import naming
from onnxtape.errors import CheckpointError
from onnxtape.runtime.checkpoint import load_state, save_state
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


def counted(hidden: int = 4) -> dict[str, Any]:
    """A model and an optimizer whose names are counted."""
    model = ot.Sequential(
        [ot.Input((3,)), ot.layers.Dense(hidden), ot.layers.Dense(hidden), ot.layers.Dense(2)]
    )
    optimizer = ot.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    return {"model": model, "optimizer": optimizer}


def values(tree: dict[str, Any]) -> list[Any]:
    return [v.numpy() for part in tree.values() for v in part.variables]


def test_a_model_made_twice_is_restored_by_its_structure(tmp_path: Path) -> None:
    first, second = counted(), counted()
    assert first["model"].variables[0].path != second["model"].variables[0].path
    for variable in [*first["model"].variables, *first["optimizer"].variables]:
        if variable.dtype == np.float32:
            variable.assign(np.random.default_rng(variable.size).random(variable.shape))
    ot.save_checkpoint(tmp_path / "file", first)
    ot.restore_checkpoint(tmp_path / "file", second)
    assert same(values(first), values(second))
    with pytest.raises(CheckpointError, match=r"different: model/.* is float32\[3, 4\], the model"):
        ot.restore_checkpoint(tmp_path / "file", counted(hidden=5))


def test_keys_tell_models_apart_and_not_their_order(tmp_path: Path) -> None:
    saved = {"net_1": counted()["model"], "net_2": counted()["model"]}
    ot.save_checkpoint(tmp_path / "file", saved)
    other = {"net_2": counted()["model"], "net_1": counted()["model"]}
    ot.restore_checkpoint(tmp_path / "file", other)
    for key, model in saved.items():
        assert same(model.get_weights(), other[key].get_weights())


def test_names_that_differ_by_counts_are_said_to(tmp_path: Path) -> None:
    first, second = counted(), counted()
    path = tmp_path / "file"
    ot.save_checkpoint(path, first)
    save_state(path, load_state(path))  # Without its order.
    before = values(second)
    with pytest.raises(CheckpointError, match="The names differ only by the numbers that objects"):
        ot.restore_checkpoint(path, second)
    assert same(values(second), before)


def test_a_schedule_in_the_place_of_a_rate_is_said(tmp_path: Path) -> None:
    weight = ot.Variable([1.0], name="weight")
    schedule = ot.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    optimizers = [ot.optimizers.SGD(rate, name="sgd") for rate in (0.1, schedule)]
    for optimizer in optimizers:
        optimizer.build([weight])
    path = tmp_path / "state.safetensors"
    for saved, restored, where in ((0, 1, "In it"), (1, 0, "In the model")):
        ot.save_checkpoint(path, optimizers[saved])
        with pytest.raises(CheckpointError, match=f"{where}, the learning rate is a number, which"):
            ot.restore_checkpoint(path, optimizers[restored])


def test_the_metrics_that_a_model_holds_are_saved(tmp_path: Path) -> None:
    class Tracked(ot.Model):
        def __init__(self) -> None:
            super().__init__(name="tracked")
            self.tracker = ot.metrics.Mean(name="tracker")

    first, second = Tracked(), Tracked()
    first.tracker.update_state([3.0, 5.0])
    ot.save_checkpoint(tmp_path / "state.safetensors", first)
    ot.restore_checkpoint(tmp_path / "state.safetensors", second)
    assert float(second.tracker.result()) == 4.0


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


def test_a_folder_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        ot.save_checkpoint("no/such/f.safetensors", ot.Variable(1.0, name="w"))
    assert str(caught.value) == "[Errno 2] No such file or directory: 'no/such'"


# Datasets ----------------------------------------------------------------------------------------


def orders(dataset: Any, passes: int) -> list[list[Any]]:
    return [[np.asarray(x).tolist() for x in dataset] for _ in range(passes)]


ROWS = ot.data.Dataset.range
PIPELINES = {
    "seed": lambda: ROWS(10).shuffle(10, seed=3).batch(4),
    "no seed": lambda: ROWS(10).shuffle(10).batch(4),
    "one order": lambda: ROWS(10).shuffle(10, reshuffle_each_iteration=False).batch(4),
    "small buffer": lambda: ROWS(14).shuffle(3, seed=3).batch(4, drop_remainder=True),
    "repeat": lambda: ROWS(10).shuffle(10, seed=1).repeat(3).batch(4),
    "prefetch": lambda: ROWS(10).shuffle(10).repeat(2).batch(4).map(lambda x: x + 1).prefetch(3),
    "elements": lambda: (
        ot.data.Dataset.from_generator(lambda: iter(range(10)))
        .shuffle(4, seed=2)
        .take(8)
        .skip(1)
        .batch(2)
    ),
    "cache": lambda: ROWS(6).shuffle(6).map(lambda x: x * 2).cache().shuffle(6),
    "zip": lambda: (
        ot.data.Dataset.zip(ROWS(6).shuffle(6), ROWS(5).shuffle(5, seed=2))
        .map(lambda a, b: a * 10 + b)
        .batch(2)
    ),
}


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)
def test_a_dataset_resumes_between_passes(tmp_path: Path, make: Any) -> None:
    dataset = make()
    orders(dataset, 2)
    ot.save_checkpoint(tmp_path / "file", {"ds": dataset})
    expected = orders(dataset, 3)
    ot.restore_checkpoint(tmp_path / "file", {"ds": dataset})
    assert orders(dataset, 3) == expected
    other = make()  # as another process would
    ot.restore_checkpoint(tmp_path / "file", {"ds": other})
    assert orders(other, 3) == expected


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)
def test_a_dataset_resumes_within_a_pass(tmp_path: Path, make: Any) -> None:
    dataset = make()
    orders(dataset, 1)
    expected: list[Any] = []
    for done, x in enumerate(dataset):
        if done == 1:
            ot.save_checkpoint(tmp_path / "file", {"ds": dataset})
        if done > 1:
            expected.append(np.asarray(x).tolist())
    assert expected
    following = orders(dataset, 2)
    other = make()
    ot.restore_checkpoint(tmp_path / "file", {"ds": other})
    ot.save_checkpoint(tmp_path / "again", {"ds": other})
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()
    assert orders(other, 3) == [expected, *following]


def test_a_loop_that_is_left_begins_anew_as_it_would_have(tmp_path: Path) -> None:
    dataset = ROWS(10).shuffle(10, seed=3).batch(4)
    for _ in dataset:
        break
    ot.save_checkpoint(tmp_path / "file", dataset)
    other = ROWS(10).shuffle(10, seed=3).batch(4)
    ot.restore_checkpoint(tmp_path / "file", other)
    assert orders(other, 2) == orders(dataset, 2)


def test_batches_already_seen_are_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def double(x: Any) -> Any:
        made.append(1)
        return x * 2

    dataset = ROWS(12).shuffle(12, seed=1).batch(2).map(double).prefetch(1).take(5)
    iterator = iter(dataset)
    for _ in range(3):
        next(iterator)
    ot.save_checkpoint(tmp_path / "file", dataset)
    rest = [np.asarray(x).tolist() for x in iterator]
    ot.restore_checkpoint(tmp_path / "file", dataset)
    made.clear()
    (again,) = orders(dataset, 1)
    assert again == rest
    assert len(made) <= 3  # two, and one that is made ahead


def test_a_custom_loop_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(12, 4)).astype("f")

    def make() -> tuple[Any, Any]:
        naming.reset_names()
        ot.set_seed(1)
        model = ot.Sequential([ot.Input((4,)), ot.layers.Dropout(0.5), ot.layers.Dense(1)])
        optimizer = ot.optimizers.Adam(0.1)
        optimizer.build(model.trainable_variables)
        return model, optimizer

    def train(model: Any, optimizer: Any, batches: Any) -> None:
        for x in batches:
            with ot.GradientTape() as tape:
                loss = ot.ops.mean(model(x, training=True) ** 2)
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)

    def pipeline() -> Any:
        return ot.data.Dataset.from_tensor_slices(data).shuffle(12).batch(5)

    model, optimizer = make()
    batches = pipeline()
    train(model, optimizer, batches)
    tree = {"model": model, "optimizer": optimizer, "batches": batches}
    ot.save_checkpoint(tmp_path / "file", tree)
    train(model, optimizer, batches)

    resumed, its_optimizer = make()
    ot.set_seed(77)
    its_batches = pipeline()
    tree = {"model": resumed, "optimizer": its_optimizer, "batches": its_batches}
    ot.restore_checkpoint(tmp_path / "file", tree)
    train(resumed, its_optimizer, its_batches)
    for one, two in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_another_pipeline_is_refused(tmp_path: Path) -> None:
    ot.save_checkpoint(tmp_path / "file", {"ds": ROWS(4).shuffle(4)})
    with pytest.raises(CheckpointError, match=r"ds/dataset is uint64\[5\], the model has uint64"):
        ot.restore_checkpoint(tmp_path / "file", {"ds": ROWS(4).shuffle(4, seed=1)})


def test_equal_names_are_counted_as_keras_counts_them(tmp_path: Path) -> None:
    """However many objects there have been, and the same wherever the state is kept."""
    for _ in range(3):
        ot.metrics.Mean(), ot.metrics.MeanSquaredError()
    losses, others = ot.metrics.Mean(), ot.metrics.Mean()
    towers = [ot.layers.Dense(1, use_bias=False, name="tower") for _ in range(2)]
    optimizer = ot.optimizers.SGD(0.1, momentum=0.5, name="sgd")

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean((towers[0](x) - towers[1](x)) ** 2)
        variables = [tower.kernel for tower in towers]
        optimizer.apply(tape.gradient(loss, variables), variables)
        losses.update_state(loss)
        others.update_state(loss * 2)
        return losses.result() + others.result()

    x = np.ones((4, 3), "f")
    step(x)
    names = {
        "tower/kernel", "tower_1/kernel", "sgd/learning_rate", "sgd/iteration",
        "sgd/tower_kernel_momentum", "sgd/tower_1_kernel_momentum",
        "mean/total", "mean/count", "mean_1/total", "mean_1/count",
    }  # fmt: skip
    assert {entry.name for entry in step.get_concrete_function(x).state} == names
    tree = {"model": towers, "rest": [optimizer, losses, others]}
    ot.save_checkpoint(tmp_path / "state", tree)
    saved = load_state(tmp_path / "state")
    assert {name.partition("/")[2] for name in saved if "/" in name} == names
    kept = {name: array.copy() for name, array in saved.items()}
    step(x)
    ot.restore_checkpoint(tmp_path / "state", tree)
    np.testing.assert_array_equal(others.total, kept["rest/mean_1/total"])
