"""The evaluation step of an artifact, and what is refused of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.runtime import ArtifactError, EvaluationSession, InputError, TrainingSession

X = np.random.default_rng(0).normal(size=(12, 3)).astype("f")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    w = ot.Variable(np.float32([1, 2, 3]), name="w")
    mean = ot.metrics.Mean(name="mean")
    mean.update_state([3.0, 4.0])
    spec = ot.TensorSpec((None, 3))

    @ot.function
    def step(x: Any) -> Any:
        mean.update_state(x)
        w.assign_add(ot.ops.mean(x, axis=0))
        return {"loss": ot.ops.sum(w)}

    @ot.function(input_signature=[spec])
    def evaluate(x: Any) -> Any:
        product = ot.ops.matmul(x, ot.ops.reshape(w, (3, 1)))
        mean.update_state(product)
        return {"loss": ot.ops.mean(product), "mean": mean.result()}

    return Path(step.export(tmp_path / "artifact", spec, evaluation=evaluate))


def test_metrics_go_on_from_batch_to_batch_and_begin_anew(artifact: Path) -> None:
    """Whatever the artifact's metrics were when it was written."""
    training, evaluation = TrainingSession(artifact), EvaluationSession(artifact)
    training.step(x=X)
    state = training.state_dict()
    for _ in range(2):
        evaluation.start(state)
        for batch in (X[:8], X[8:]):
            results = evaluation.step(x=batch)
        np.testing.assert_allclose(results["loss"], (X[8:] @ state["w"]).mean(), rtol=1e-5)
        np.testing.assert_allclose(results["mean"], (X @ state["w"]).mean(), rtol=1e-5)
    for name, array in training.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_wrong_calls(artifact: Path) -> None:
    evaluation = EvaluationSession(artifact)
    with pytest.raises(InputError, match=r"Call start\(state\) before the first step"):
        evaluation.step(x=X)
    with pytest.raises(InputError, match="has no entry 'w'"):
        evaluation.start({})
    evaluation.start(TrainingSession(artifact).state_dict())
    with pytest.raises(InputError, match="'x' missing"):
        evaluation.step()


def test_an_artifact_without_one(tmp_path: Path) -> None:
    w = ot.Variable(1.0, name="w")

    @ot.function
    def step() -> Any:
        w.assign_add(1.0)

    with pytest.raises(ArtifactError, match="holds no evaluation step; export it with one"):
        EvaluationSession(step.export(tmp_path / "artifact"))


def test_metrics_of_its_own(tmp_path: Path) -> None:
    """As a loop has them that trains and validates; what is only read is a constant."""
    w, scale = ot.Variable(np.float32([1, 2, 3]), name="w"), ot.Variable(0.5, name="w")
    training, validation = ot.metrics.Mean(), ot.metrics.Mean()

    @ot.function
    def step(x: Any) -> Any:
        training.update_state(x)
        w.assign_add(ot.ops.mean(x, axis=0))
        return {"mean": training.result()}

    @ot.function
    def evaluate(x: Any) -> Any:
        validation.update_state(x @ ot.ops.reshape(w, (3, 1)) * scale)
        return {"mean": validation.result()}

    step(X)
    evaluate(X)
    artifact = step.export(tmp_path / "artifact", evaluation=evaluate)
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["state"]] == ["mean/total", "mean/count", "w"]
    names = [(entry["name"], entry["role"]) for entry in manifest["evaluation"]["state"]]
    own = [("mean_1/total", "metric"), ("mean_1/count", "metric")]
    assert sorted(names) == sorted([("w", "parameter"), *own])
    session = ot.TrainingSession(artifact)
    wanted = (X @ w.numpy()).mean() * 0.5
    for batches in ([X], [X[:5], X[5:]]):
        found = session.evaluate({"x": batch} for batch in batches)
        np.testing.assert_allclose(found["mean"], wanted, rtol=1e-5)
    # The trace is as it was, so that it can be exported again.
    again = step.export(tmp_path / "again", evaluation=evaluate)
    assert (again / "manifest.json").read_text() == (artifact / "manifest.json").read_text()


class Largest(ot.Metric):
    """A metric that begins at minus infinity."""

    def __init__(self, start: Any = -np.inf) -> None:
        super().__init__(name="largest")
        initial = start if callable(start) else ot.initializers.Constant(start)
        self.value = self.add_variable((2,), initial, name="value")

    def update_state(self, values: Any) -> None:
        self.value.assign(ot.ops.maximum(self.value, ot.ops.max(values)))

    def result(self) -> Any:
        return self.value[0]


def test_metrics_that_do_not_begin_at_zero(tmp_path: Path) -> None:
    trained, own = Largest(-7.5), Largest()
    spec = ot.TensorSpec((None,))

    def following(metric: Any) -> Any:
        def follow(x: Any) -> Any:
            metric.update_state(x)
            return {"largest": metric.result()}

        return ot.function(follow, input_signature=[spec])

    following(trained)(np.float32([2, 3]))
    path = following(trained).export(tmp_path / "a", evaluation=following(own))
    content = json.loads((path / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert content["state"][0]["initial"] == -7.5
    assert content["evaluation"]["state"][0]["initial"] == "-inf"
    session = TrainingSession(path)
    assert session.step(x=np.float32([-9, -8]))["largest"] == 3
    assert session.evaluate([{"x": np.float32([-9])}, {"x": np.float32([-8])}])["largest"] == -8
    session.reset_metrics()
    assert session.step(x=np.float32([-9, -8]))["largest"] == -7.5
    wanted = "the metric's variable 'largest/value' begins with different numbers"
    with pytest.raises(ValueError, match=wanted):
        following(Largest(lambda shape, dtype: np.arange(2, dtype=dtype))).export(tmp_path / "b")


def test_what_an_evaluation_is(tmp_path: Path) -> None:
    w = ot.Variable(1.0, name="w")
    step = ot.function(lambda: w.assign_add(1.0))
    for given, name in ((lambda x: x, "<lambda>"), (ot.metrics.Mean(), "Mean")):
        wanted = f"evaluation is an ot.function of a batch, not {name}: decorate the function"
        with pytest.raises(TypeError, match=wanted):
            step.export(tmp_path / "artifact", evaluation=given)


def test_what_an_evaluation_must_not_change(tmp_path: Path) -> None:
    v, w = ot.Variable(1.0, name="v"), ot.Variable(1.0, name="w")
    step = ot.function(lambda: w.assign_add(1.0))
    message = "the evaluation assigns the variable 'v', which the training step does not use"
    with pytest.raises(ValueError, match=message):
        step.export(tmp_path / "artifact", evaluation=ot.function(lambda: v.assign_add(w)))


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, Any]:
    """An artifact whose evaluation has results of every kind, and its weight."""
    w, mean = ot.Variable(np.float32([1, 2, 3]), name="w"), ot.metrics.Mean(name="mean")
    spec = ot.TensorSpec((None, 3))

    @ot.function
    def step(x: Any) -> Any:
        w.assign_add(ot.ops.mean(x, axis=0))
        return {"loss": ot.ops.sum(w)}

    @ot.function(input_signature=[spec])
    def evaluate(x: Any) -> Any:
        product = ot.ops.matmul(x, ot.ops.reshape(w, (3, 1)))
        # A metric may be kept by a branch, too.
        ot.cond(ot.ops.sum(x) > -1e9, lambda: mean.update_state(product), lambda: None)
        return {
            "mean": mean.result(),
            "loss": ot.ops.mean(product),
            "positive": ot.ops.sum(ot.ops.cast(product > 0, "int64")),
            "columns": ot.ops.mean(x, axis=0),
            "predicted": product,
        }

    path = step.export(tmp_path / "artifact", spec, evaluation=evaluate)
    return Path(path), w


def test_evaluating_within_training(mixed: tuple[Path, Any]) -> None:
    """Metrics are kept, means taken over the samples, rows joined; training goes on as it would."""
    session, undisturbed = ot.TrainingSession(mixed[0]), ot.TrainingSession(mixed[0])
    assert session.manifest.evaluation.accumulated == ("mean",)
    assert session.manifest.accumulated == ()
    for _ in range(3):
        assert session.step(x=X)["loss"] == undisturbed.step(x=X)["loss"]
        product = X @ session.state_dict()["w"][:, None]
        for found in (
            session.evaluate(x=X),
            session.evaluate([{"x": X[:7]}, {"x": X[7:]}]),
            ot.EvaluationSession(mixed[0]).evaluate(session.state_dict(), [{"x": X}]),
        ):
            np.testing.assert_allclose(found["mean"], product.mean(), rtol=1e-5)
            np.testing.assert_allclose(found["loss"], product.mean(), rtol=1e-5)
            np.testing.assert_allclose(found["columns"], X.mean(0), rtol=1e-5)
            np.testing.assert_allclose(found["predicted"], product, rtol=1e-5)
            assert found["loss"].dtype == found["columns"].dtype == np.float32
    positive = [np.sum(part @ session.state_dict()["w"] > 0) for part in (X[:7], X[7:])]
    both = session.evaluate([{"x": X[:7]}, {"x": X[7:]}])["positive"]
    assert both == pytest.approx((positive[0] * 7 + positive[1] * 5) / 12)


def test_evaluating_in_a_thread_while_training_goes_on(mixed: tuple[Path, Any]) -> None:
    session = ot.TrainingSession(mixed[0])
    expected = session.evaluate(x=X)["mean"]

    def batches() -> Any:
        yield {"x": X[:4]}
        session.step(x=X)  # the state that was there when it began is what counts
        yield {"x": X[4:]}

    np.testing.assert_allclose(session.evaluate(batches())["mean"], expected, rtol=1e-6)
    assert session.evaluate(x=X)["mean"] != expected


RUNTIME_ONLY = """
    import sys
    import numpy as np
    import onnxtape as ot

    session = ot.TrainingSession(sys.argv[1])
    x = np.load(sys.argv[2])
    for _ in range(2):
        session.step(x=x)
        found = session.evaluate([{"x": x[:5]}, {"x": x[5:]}])
        print(found["mean"].tobytes().hex(), found["loss"].tobytes().hex())
"""


def test_evaluating_with_the_runtime_alone(
    mixed: tuple[Path, Any], tmp_path: Path, run_runtime_alone: Callable[..., str]
) -> None:
    np.save(tmp_path / "x.npy", X)
    printed = run_runtime_alone(RUNTIME_ONLY, mixed[0], tmp_path / "x.npy").split()
    session, expected = ot.TrainingSession(mixed[0]), []
    for _ in range(2):
        session.step(x=X)
        found = session.evaluate([{"x": X[:5]}, {"x": X[5:]}])
        expected += [found["mean"].tobytes().hex(), found["loss"].tobytes().hex()]
    assert printed == expected


def test_wrong_evaluations(mixed: tuple[Path, Any], tmp_path: Path) -> None:
    session = ot.TrainingSession(mixed[0])
    with pytest.raises(InputError, match="There was no batch to evaluate"):
        session.evaluate([])
    with pytest.raises(TypeError, match="several batches, or one by name, not both"):
        session.evaluate([{"x": X}], x=X)
    with pytest.raises(TypeError, match=r'batches by the names of their inputs, \{"x": ...\}, not'):
        session.evaluate([(X,)])
    with pytest.raises(InputError, match="'x' missing"):
        session.evaluate()
    step = ot.function(lambda x: mixed[1].assign_add(ot.ops.sum(x)))
    plain = ot.TrainingSession(step.export(tmp_path / "plain", ot.TensorSpec((None,))))
    with pytest.raises(ArtifactError, match="holds no evaluation step; export it with one"):
        plain.evaluate(x=X)


def test_rows_that_cannot_be_joined(tmp_path: Path) -> None:
    w = ot.Variable(1.0, name="w")
    spec = ot.TensorSpec((None, None))
    step = ot.function(lambda x: w.assign_add(ot.ops.sum(x)))
    evaluate = ot.function(lambda x: {"scaled": x * w}, input_signature=[spec])
    session = ot.TrainingSession(step.export(tmp_path / "a", spec, evaluation=evaluate))
    with pytest.raises(InputError, match=r"'scaled' is \['batch', 2\] and \['batch', 3\] in diff"):
        session.evaluate([{"x": X[:, :2]}, {"x": X}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["state"][0].update(name="z"), "the state entry 'z'"),
        (lambda e: e["state"][0].update(shape=[7]), r"reads the state entry 'w' as float32\[7\]"),
        (lambda e: e["inputs"].append(e["inputs"][0]), "inputs of evaluation.onnx must all have"),
        (lambda e: e["outputs"].pop(), "The outputs of evaluation.onnx are"),
        (lambda e: e.update(accumulated=[1]), "item 0 of 'accumulated' in 'evaluation' in"),
        (lambda e: e["state"][0].update(initial="a"), "must be a number, 'inf' or '-inf', not"),
        (lambda e: e.pop("state"), "'evaluation' in manifest.json has no 'state'"),
    ],
)
def test_descriptions_that_are_wrong(artifact: Path, change: Any, message: str) -> None:
    file = artifact / "manifest.json"
    content = json.loads(file.read_text())
    change(content["evaluation"])
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=message):
        EvaluationSession(artifact)


def test_a_file_that_is_not_described(artifact: Path) -> None:
    file = artifact / "manifest.json"
    content = json.loads(file.read_text())
    content["evaluation"] = None
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"lists the file evaluation.onnx, but does not"):
        EvaluationSession(artifact)
