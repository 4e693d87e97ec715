"""The evaluation step of an artifact, and what is refused of one."""

from __future__ import annotations

import json
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


def test_variables_that_training_does_not_have(tmp_path: Path) -> None:
    v, w = ot.Variable(1.0, name="v"), ot.Variable(1.0, name="w")
    step = ot.function(lambda: w.assign_add(1.0))
    with pytest.raises(
        ValueError, match="the evaluation uses the variable 'v', which the training"
    ):
        step.export(tmp_path / "artifact", evaluation=ot.function(lambda: v.value + w.value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["state"][0].update(name="z"), "the state entry 'z'"),
        (lambda e: e["state"][0].update(shape=[7]), r"reads the state entry 'w' as float32\[7\]"),
        (lambda e: e["inputs"].append(e["inputs"][0]), "inputs of evaluation.onnx must all have"),
        (lambda e: e["outputs"].pop(), "The outputs of evaluation.onnx are"),
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
