"""`onnxtape build`, `inspect`, `doctor`: what they make, show, and say where something is wrong."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot
from onnxtape import requirements
from onnxtape.cli import command, doctor
from onnxtape.cli.estimates import estimate
from onnxtape.runtime import ProviderError, TrainingSession, cuda_setup, resolve_providers
from tests.frontend.commands import B1, HEAD, W1, Place, X, Y, classifier


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, capsys.readouterr)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# The command -------------------------------------------------------------------------------------


def test_it_is_a_module_and_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "onnxtape", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"onnxtape {ot.__version__}\n", "")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"onnxtape": "onnxtape.cli:main"}


def test_wrong_usage_ends_with_2(place: Place) -> None:
    assert "COMMAND" in place.run().err
    ended = place.run("build", "net.onnx", "--loss", "mse", "-o", "a", "--batch-size", "none")
    assert ended.status == 2
    assert "'none' is not a whole number of 1 or more" in ended.err
    ended = place.build("--learning-rate", "-1")
    assert "'-1' is not a positive number" in ended.err


def test_what_is_unexpected_is_one_sentence_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: Any) -> int:
        raise KeyError("k")

    monkeypatch.setattr(command.doctor, "cuda_finding", broken)
    monkeypatch.setattr(command.doctor, "run", broken)
    assert place.run("doctor").refused().startswith("an unexpected KeyError: 'k'")
    assert "Traceback" in place.run("--traceback", "doctor").err

    def stopped(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.doctor, "run", stopped)
    assert place.run("doctor").refused(130) == "stopped"


# build -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [None, "Softmax"])
def test_a_step_has_the_models_names_and_the_formulas_loss(place: Place, last: str | None) -> None:
    place.model("net.onnx", classifier(last=last))
    out = place.build("--optimizer", "sgd", "--learning-rate", "0.5").succeeded()
    assert "trains 64 parameters (0 are frozen)" in out
    assert "batch: x float32[batch, 4], target int64[batch]" in out
    assert f"cross_entropy takes '{'scores' if last else 'logits'}' as logits" in out
    session = TrainingSession("artifact")
    state = session.state_dict()
    assert {"fc1.weight", "fc1.bias", "head.weight"} < set(state)
    loss = session.step(x=X, target=Y)["loss"]
    hidden = np.maximum(X @ W1 + B1, 0)
    chances = softmax(hidden @ HEAD)
    np.testing.assert_allclose(loss, -np.log(chances[np.arange(50), Y]).mean(), rtol=1e-5)
    upstream = (chances - np.eye(3)[Y]) / 50
    updated = session.state_dict()["head.weight"]
    np.testing.assert_allclose(updated, HEAD - 0.5 * hidden.T @ upstream, rtol=1e-4, atol=1e-6)


LOSSES = {
    "mse": lambda p, t: np.mean((p - t) ** 2),
    "mae": lambda p, t: np.mean(np.abs(p - t)),
    "bce": lambda p, t: np.mean(np.logaddexp(0, p) - t * p),
    "categorical_cross_entropy": lambda p, t: -np.mean(np.sum(t * np.log(softmax(p)), 1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_targets_like_the_output(place: Place, name: str) -> None:
    place.build("--loss", name, "--metrics", "mae").succeeded()
    targets = softmax(np.random.default_rng(1).normal(size=(50, 3))).astype("f")
    results = TrainingSession("artifact").step(x=X, target=targets)
    logits = np.maximum(X @ W1 + B1, 0) @ HEAD
    np.testing.assert_allclose(results["loss"], LOSSES[name](logits, targets), rtol=1e-5)
    probabilities = {
        "bce": 1 / (1 + np.exp(-logits)),
        "categorical_cross_entropy": softmax(logits),
    }
    shown = probabilities.get(name, logits)
    np.testing.assert_allclose(results["mae"], np.abs(shown - targets).mean(), rtol=1e-5)


def test_what_is_trained_and_how_can_be_chosen(place: Place) -> None:
    options = "--trainable head.* --clip-norm 1 --accumulate 2 --weight-decay 0.1 --target y"
    out = place.build(*options.split(), "--metrics", "accuracy").succeeded()
    assert "trains 24 parameters (40 are frozen)" in out
    assert "y int64[batch]" in out
    session = TrainingSession("artifact")
    written = {entry.name for entry in session.state if entry.output and entry.role == "parameter"}
    assert written == {"head.weight"}
    assert session.step(x=X, y=Y)["accuracy"] > 0
    np.testing.assert_array_equal(session.state_dict()["head.weight"], HEAD)
    session.step(x=X, y=Y)
    assert not np.array_equal(session.state_dict()["head.weight"], HEAD)


def test_probabilities_that_are_no_softmax_of_the_last_axis(place: Place) -> None:
    """They are taken as they are: a Sigmoid's need not add up to 1, so that Keras divides."""
    place.model("net.onnx", classifier(last="Sigmoid"))
    out = place.build().succeeded()
    assert "cross_entropy takes 'logits' as probabilities" in out
    chances = 1 / (1 + np.exp(-np.maximum(X @ W1 + B1, 0) @ HEAD))
    chances /= chances.sum(1, keepdims=True)
    loss = TrainingSession("artifact").step(x=X, target=Y)["loss"]
    np.testing.assert_allclose(loss, -np.log(chances[np.arange(50), Y]).mean(), rtol=1e-4)


def test_adapters_are_trained_instead(place: Place) -> None:
    options = "--lora *.weight --lora-rank 2 --trainable fc1.bias"
    out = place.build(*options.split()).succeeded()
    assert f"trains {2 * (4 + 8) + 2 * (8 + 3) + 8} parameters (56 are frozen)" in out
    session = TrainingSession("artifact")
    before = session.state_dict()
    session.step(x=X, target=Y)
    after = session.state_dict()
    changed = {e.name for e in session.state if e.role == "parameter"}
    # A moves only once B is no longer zero.
    still = {n for n in changed if np.array_equal(before[n], after[n])}
    assert {"fc1.weight", "head.weight"} <= still
    assert {"fc1.bias", "fc1.weight.lora_B", "head.weight.lora_B"} <= changed - still


def test_dropout_drops_in_training_mode_only(place: Place) -> None:
    def losses() -> set[float]:
        session = TrainingSession("artifact")
        return {float(session.step(x=X, target=Y)["loss"]) for _ in range(3)}

    still = ("--optimizer", "sgd", "--learning-rate", "1e-12")
    place.build(*still).succeeded()
    assert len(losses()) == 1
    place.build(*still, "--training-mode").succeeded()
    assert len(losses()) == 3


def test_several_outputs(place: Place) -> None:
    place.model("two.onnx", classifier(outputs=("h", "logits")))
    refused = place.build(model="two.onnx").refused(2)
    assert refused.startswith("the model has several outputs: choose one with --output, of h, log")
    assert "no output 'k'; it has h, logits" in place.build("--output", "k", model="two.onnx").err
    place.build("--output", "logits", "--batch-size", "5", model="two.onnx").succeeded()
    session = TrainingSession("artifact")
    assert [entry.shape for entry in session.inputs] == [(5, 4), (5,)]
    inference = session.manifest.inference
    assert inference is not None
    assert [entry.name for entry in inference.outputs] == ["h", "logits"]


USAGE = [
    ("--loss none", "no loss is called 'none'"),
    ("--optimizer none", "no optimizer is called 'none'"),
    ("--optimizer adam --momentum 0.5", "adam does not take all of momentum"),
    ("--target x", "the model has an input 'x': choose another name for the targets"),
]


@pytest.mark.parametrize(("options", "message"), USAGE)
def test_what_does_not_go_together(place: Place, options: str, message: str) -> None:
    assert message in place.build(*options.split()).refused(2)


def test_models_that_are_none(place: Place) -> None:
    assert "there is no such file" in place.build(model="no.onnx").refused()
    whole = classifier().SerializeToString()
    (place.folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    assert "is not an ONNX model" in place.build(model="cut.onnx").refused()
    (place.folder / "text.onnx").write_bytes(b"not a model at all")
    assert "is not an ONNX model" in place.build(model="text.onnx").refused()
    unknown = classifier()
    unknown.graph.node[1].op_type = "Frobnicate"
    place.model("unknown.onnx", unknown)
    assert "Frobnicate" in place.build(model="unknown.onnx").refused()
    outside = classifier()
    onnx.save(
        outside, "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (place.folder / "w.bin").unlink()
    assert "'w.bin', which is missing" in place.build(model="outside.onnx").refused()


def test_weights_and_places_that_are_not_there(place: Place) -> None:
    assert "has no weight 'tail.*'" in place.build("--trainable", "tail.*").refused()
    (place.folder / "artifact").mkdir()
    (place.folder / "artifact" / "thesis.txt").write_text("mine")
    assert "exists and is not an artifact" in place.build().refused()
    nowhere = place.run("build", "net.onnx", "--loss", "mse", "-o", "net.onnx/a")
    assert re.match(r"Not a directory: |File exists: ", nowhere.refused())


# inspect -----------------------------------------------------------------------------------------


def test_an_artifact_is_shown(place: Place) -> None:
    place.build("--metrics", "accuracy").succeeded()
    out = place.run("inspect", "artifact", "--batch", "10").succeeded()
    assert re.search(r"\n  x +float32  \[batch, 4\]\n", out)
    assert re.search(r"\n  head.weight +parameter  float32  \[8, 3\] +96\n", out)
    assert "parameters: 64 trained, 0 other" in out
    assert re.search(r"\n  MatMul +\d+\n", out)
    # Forward: 10 x 4 x 8 and 10 x 8 x 3; backward: both weights, and the hidden values.
    flops = 2 * 10 * (4 * 8 + 8 * 3) + 2 * 10 * (4 * 8 + 8 * 3 + 8 * 3)
    assert f"Estimate for a step at a batch of 10: {flops / 1e6:.3f} MFLOP" in out


def test_a_model_is_shown(place: Place) -> None:
    out = place.run("inspect", "net.onnx").succeeded()
    assert "an ONNX model by an unknown producer, opset ai.onnx 17" in out
    assert "initializers: 64 elements, 256 B" in out
    assert re.search(r"\n  Relu +1\n", out)
    assert "there is no open dimension 'k'" in place.run("inspect", "net.onnx", "--dim", "k=3").err
    assert "'k' is not NAME=N" in place.run("inspect", "net.onnx", "--dim", "k").err
    assert "there is no such file" in place.run("inspect", "none.onnx").refused()


def graph_model(nodes: Any, inputs: Any, outputs: Any, **weights: Any) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.zeros(shape, "f"), n) for n, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_operations_are_counted() -> None:
    """By hand: a grouped convolution, a transposed one, a Gemm from the left."""
    node = helper.make_node
    image = graph_model(
        [
            node("Conv", ["x", "w"], ["c"], group=2),
            node("ConvTranspose", ["c", "v"], ["t"]),
        ],
        {"x": ["n", 4, 8, 8]},
        ["t"],
        w=(6, 2, 3, 3),
        v=(6, 5, 2, 2),
    )
    convolution = 2 * (3 * 6 * 6 * 6) * (2 * 3 * 3)
    transposed = 2 * (3 * 6 * 6 * 6) * (5 * 2 * 2)
    found = estimate(image, {"n": 3})
    assert found.flops == convolution + transposed
    assert found.peak_bytes == 4 * (3 * 6 * 6 * 6 + 3 * 5 * 7 * 7)
    assert estimate(image, {}).unknown == ["Conv", "ConvTranspose"]
    gemm = graph_model([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": [7, 3]}, ["y"], w=(7, 5))
    assert estimate(gemm, {}).flops == 2 * 3 * 5 * 7


def test_dimensions_without_a_name_have_sizes_too(place: Place) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    place.model("open.onnx", graph_model(nodes, {"x": [None, None, 4]}, ["y"], w=(4, 5)))
    out = place.run("inspect", "open.onnx", "--batch", "2").succeeded()
    assert "not counted: what depends on x_1; give --dim x_1=N" in out
    out = place.run("inspect", "open.onnx", "--batch", "1000", "--dim", "x_1=100").succeeded()
    assert f"{2 * 1000 * 100 * 4 * 5 / 1e6:.3f} MFLOP" in out


def test_memory_is_given_back_after_the_last_use() -> None:
    names = ["x", "a", "b", "c"]
    chain = [helper.make_node("Relu", [i], [o]) for i, o in itertools.pairwise(names)]
    assert estimate(graph_model(chain, {"x": [100]}, ["c"]), {}).peak_bytes == 2 * 400
    kept = [*chain, helper.make_node("Add", ["a", "c"], ["d"])]
    assert estimate(graph_model(kept, {"x": [100]}, ["d"]), {}).peak_bytes == 3 * 400


def test_what_must_be_moved() -> None:
    """By hand: rows of a table are read and replaced; one value is kept for the backward pass."""

    def node(phase: str, op_type: str, inputs: str, output: str, **attributes: int) -> Any:
        made = helper.make_node(op_type, inputs.split(), [output], **attributes)
        made.metadata_props.add(key="onnxtape.phase", value=phase)
        return made

    nodes = [
        node("forward", "Cast", "ids", "places", to=TensorProto.INT64),
        node("forward", "Gather", "table places", "rows"),
        node("forward", "Exp", "rows", "kept"),
        node("forward", "Flatten", "kept", "flat"),
        node("forward", "ReduceSum", "flat", "loss"),
        node("backward", "Mul", "flat flat", "gradient"),
        node("update", "Reshape", "gradient shape", "shaped"),
        node("update", "ScatterElements", "table where shaped", "table.next"),
    ]
    model = graph_model(
        nodes, {"ids": [5], "table": [100, 8], "unused": [1000]}, ["loss", "table.next"]
    )
    for name, values in (("shape", [5, 8]), ("where", np.zeros((5, 8), np.int64))):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    ids, rows, loss, constants = 5 * 4, 5 * 8 * 4, 4, (2 + 5 * 8) * 8
    read, written = ids + rows + constants, loss + rows
    assert estimate(model, {}).moved_bytes == read + written + 2 * rows


def test_an_artifact_is_not_overwritten_unasked(place: Place) -> None:
    build = ("build", "net.onnx", "--loss", "cross_entropy", "-o", "artifact")
    place.run(*build).succeeded()
    before = (place.folder / "artifact" / "manifest.json").read_bytes()
    assert place.run(*build, "--optimizer", "sgd").refused() == (
        "artifact holds an artifact already: --force replaces it, -o chooses another folder"
    )
    assert (place.folder / "artifact" / "manifest.json").read_bytes() == before
    place.run(*build, "--optimizer", "sgd", "--force").succeeded()
    assert (place.folder / "artifact" / "manifest.json").read_bytes() != before


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}  # type: ignore[index]
    assert needed == {*requirements.TO_TRAIN, *requirements.TO_BUILD, "rich"}  # rich only draws


# doctor ------------------------------------------------------------------------------------------


def test_the_doctor_shows_what_is_here(place: Place) -> None:
    out = place.run("doctor").succeeded()
    assert re.search(r"\n  onnxruntime +\d+\.\d+", out)
    assert "CPUExecutionProvider" in out
    assert out.endswith("training runs here\n")


def test_the_doctor_explains_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_setup, "installed_version", lambda name: "1.0")
    versions: dict[str, str | None] = dict.fromkeys(doctor._PACKAGES, "1.0")
    (both,) = doctor.missing_packages(versions)
    assert "both onnxruntime and onnxruntime-gpu are installed" in both
    monkeypatch.setattr(cuda_setup, "installed_version", lambda name: None)
    versions.update({"onnxruntime-gpu": None, "onnx-ir": None, "safetensors": None})
    assert [text.partition(",")[0] for text in doctor.missing_packages(versions)] == [
        "safetensors is not installed",
        "onnx-ir is not installed",
    ]


def test_the_doctor_and_a_session_say_the_same_of_cuda() -> None:
    import onnxruntime

    finding = doctor.cuda_finding(onnxruntime)
    problem = cuda_setup.cuda_problem(onnxruntime)
    if problem is None:
        assert finding == "available, and it starts"
        return
    assert finding == f"not available: {problem}"
    with pytest.raises(ProviderError) as caught:
        resolve_providers("cuda")
    assert problem in str(caught.value)
