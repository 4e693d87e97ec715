"""`onnxtape train`: trains as the formula says, goes on to the bit, and says what is wrong."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

import onnxtape as ot
from onnxtape.cli import main
from onnxtape.runtime import TrainingSession, save_state
from tests.frontend.commands import HEAD, Place, X, Y, classifier


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, capsys.readouterr)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once: it is only read."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "net.onnx").write_bytes(classifier().SerializeToString())
    options = "--loss cross_entropy --metrics accuracy --learning-rate 0.01 --training-mode"
    where = [str(folder / "net.onnx"), "-o", str(folder / "artifact")]
    assert main(["build", *where, *options.split()]) == 0
    return folder / "artifact"


@pytest.fixture
def built(place: Place, artifact: Path) -> Place:
    shutil.copytree(artifact, place.folder / "artifact")
    return place


def numbers(line: str) -> dict[str, float]:
    """The results that a line reports."""
    return {k.strip(): float(v) for k, v in re.findall(r"([a-z ]+) ([\d.]+)[,\n]", line)}


def without_times(output: str) -> list[str]:
    return re.sub(r", [\d.]+ s$", "", output, flags=re.MULTILINE).splitlines()


# Training ----------------------------------------------------------------------------------------


def test_it_trains_as_the_formula_says(place: Place) -> None:
    """Gradient descent on a linear model, batch by batch, in NumPy."""
    w = HEAD[:4].copy()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(w, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    place.model("linear.onnx", proto)
    targets = (X @ (w + 1)).astype("f")
    place.data(train={"x": X, "target": targets})
    rate = ("--optimizer", "sgd", "--learning-rate", "0.1")
    place.build("--loss", "mse", *rate, model="linear.onnx").succeeded()
    out = place.train("--epochs", "2", "--batch-size", "20", "--no-shuffle").succeeded()

    shown = [numbers(line)["loss"] for line in out.splitlines()[:2]]
    expected = []
    for _ in range(2):
        losses = []
        for start in (0, 20, 40):
            x, t = X[start : start + 20], targets[start : start + 20]
            error = x @ w - t
            losses += [np.mean(error**2)] * len(x)
            w -= 0.1 * 2 * x.T @ error / error.size
        expected.append(np.mean(losses))
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    state = load_file("artifact.trained.safetensors")
    np.testing.assert_allclose(state["w"], w, rtol=1e-5, atol=1e-6)


def test_validation_and_the_exported_model_agree(built: Place) -> None:
    arguments = ("--epochs", "3", "--validation", "valid.npz", "--export", "trained.onnx")
    out = built.train(*arguments).succeeded()
    last = numbers(out.splitlines()[2])
    session = onnxruntime.InferenceSession("trained.onnx")
    assert [o.name for o in session.get_outputs()] == ["logits"]
    (logits,) = session.run(None, {"x": X[40:]})
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(chances[np.arange(10), Y[40:]]).mean()
    assert last["validation loss"] == pytest.approx(loss, abs=1e-4)
    assert last["validation accuracy"] == pytest.approx((logits.argmax(1) == Y[40:]).mean())
    assert {"loss", "accuracy"} < set(last)


def test_a_loss_that_a_metric_keeps_is_not_averaged_again(place: Place) -> None:
    """As steps return it that are written in Python."""
    w, mean = ot.Variable(np.zeros(3, "f"), name="w"), ot.metrics.Mean()

    def step(x: Any) -> Any:
        mean.update_state(x)
        w.assign_add(x[0] * 0)
        return {"loss": mean.result(), "first": x[0, 0]}

    spec = ot.TensorSpec((None, 3))
    own = ot.metrics.Mean()

    @ot.function(input_signature=[spec])
    def evaluate(x: Any) -> Any:
        own.update_state(x)
        return {"loss": own.result(), "first": x[0, 0]}

    ot.function(step).export(place.folder / "artifact", spec, evaluation=evaluate)
    x = np.arange(30, dtype="f").reshape(10, 3) ** 2
    place.data(train={"x": x}, valid={"x": x + 1})
    out = place.train("--validation", "valid.npz", "--batch-size", "4", "--no-shuffle").succeeded()
    first = (x[0, 0] * 4 + x[4, 0] * 4 + x[8, 0] * 2) / 10
    expected = {"loss": x.mean(), "first": first}
    expected |= {f"validation {name}": value + 1 for name, value in expected.items()}
    assert numbers(out.splitlines()[0]) == pytest.approx(expected, rel=1e-4)


def test_an_epochs_metrics_are_of_that_epoch_alone(place: Place) -> None:
    """With almost no learning, all epochs have the accuracy of the model as it is."""
    place.build("--metrics", "accuracy", "--optimizer", "sgd", "--learning-rate", "1e-12")
    out = place.train("--epochs", "2").succeeded()
    scores = np.maximum(X[:40] @ classifier_weights()[0] + classifier_weights()[1], 0) @ HEAD
    expected = (scores.argmax(1) == Y[:40]).mean()
    for line in out.splitlines()[:2]:
        assert numbers(line)["accuracy"] == pytest.approx(expected, abs=1e-4)


def classifier_weights() -> Any:
    return [numpy_helper.to_array(t) for t in classifier().graph.initializer]


def test_it_goes_on_to_the_bit(built: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffling and dropout included: in one go, in two, and interrupted within an epoch."""
    once = built.train("--epochs", "3", "--batch-size", "7", "--seed", "3").succeeded()
    expected = load_file("artifact.trained.safetensors")

    again = ("--state", "other.safetensors", "--batch-size", "7", "--seed", "3")
    built.train("--epochs", "1", *again).succeeded()
    resumed = built.train("--epochs", "3", "--state", "other.safetensors", "--resume").succeeded()
    assert without_times(resumed)[:2] == without_times(once)[1:3]
    for name, array in load_file("other.safetensors").items():
        np.testing.assert_array_equal(array, expected[name])

    step, count = TrainingSession.step, 0

    def interrupted_step(self: TrainingSession, **batch: Any) -> Any:
        nonlocal count
        count += 1
        if count == 9:
            signal.raise_signal(signal.SIGINT)
        return step(self, **batch)

    third = ("--state", "third.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSession, "step", interrupted_step)
        ended = built.train("--epochs", "3", *third, "--batch-size", "7", "--seed", "3")
    assert ended.refused(130) == (
        "interrupted after 1 epochs and 3 batches; the state is in third.safetensors, and "
        "--resume goes on from it"
    )
    resumed = built.train("--epochs", "3", *third, "--resume").succeeded()
    assert without_times(resumed)[:2] == without_times(once)[1:3]
    for name, array in load_file("third.safetensors").items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_seed_decides_the_order(built: Place) -> None:
    def losses(*arguments: str) -> list[str]:
        return without_times(built.train("--restart", *arguments).succeeded())

    assert losses("--seed", "1") == losses("--seed", "1") != losses("--seed", "2")
    assert losses("--no-shuffle") == losses("--no-shuffle", "--seed", "5")


def test_a_step_of_one_batch_size_leaves_the_rest_out(place: Place) -> None:
    place.build("--batch-size", "16").succeeded()
    place.train().succeeded()
    state = load_file("artifact.trained.safetensors")
    assert state["adam_w/iteration"] == 2  # of 40 samples
    message = place.train("--restart", "--batch-size", "8").refused(2)
    assert message.startswith("the step takes batches of 16, not of 8")


BLOCKED = (
    "import sys\n"
    "blocked = 'onnx onnx_ir onnx_shape_inference sympy networkx rich ml_dtypes'.split()\n"
    "for name in blocked: sys.modules[name] = None\n"
)
INSTALL = "pip install onnx onnx-ir onnx-shape-inference networkx ml_dtypes"


@pytest.mark.parametrize(
    "arguments", ["inspect artifact", "inspect net.onnx", "build net.onnx --loss mse -o new"]
)
def test_what_the_other_commands_lack_is_one_sentence(built: Place, arguments: str) -> None:
    program = BLOCKED + "from onnxtape.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    command = [sys.executable, "-c", program, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not installed: training from an artifact goes without it" in done.stderr
    assert done.stderr.endswith(f"{INSTALL}\n")


@pytest.mark.parametrize("name", ["layers", "function", "load_onnx", "Variable"])
def test_what_python_lacks_is_one_sentence(name: str) -> None:
    program = f"{BLOCKED}import onnxtape as ot\not.{name}\n"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ")
    assert last.endswith(INSTALL)


def test_it_needs_the_runtime_alone(built: Place) -> None:
    """No onnx, no compiler, nothing that only building needs."""
    program = (
        BLOCKED + "for name in ['onnxtape.compiler', 'onnxtape.engine']: sys.modules[name] = None\n"
        "from onnxtape.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = "train artifact --data train.npz --validation valid.npz --export trained.onnx"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "epoch 1/1: loss" in done.stdout
    assert (built.folder / "trained.onnx").is_file()


# Data --------------------------------------------------------------------------------------------


def test_keras_names_are_found(built: Place) -> None:
    plain = built.train("--validation", "valid.npz").succeeded()
    built.data(keras={"x_train": X[:40], "y_train": Y[:40], "x_test": X[40:], "y_test": Y[40:]})
    same = built.train("--restart", "--validation", "keras.npz", data="keras.npz").succeeded()
    assert without_times(same) == without_times(plain)


DATA: list[tuple[dict[str, Any], str]] = [
    (
        {"x": X},
        r"data.npz has no array 'target'; the step takes x, target, and the file has x",
    ),
    (
        {"a": X, "b": Y},
        r"data.npz has no array 'x'; the step takes x, target, and the file has a, b",
    ),
    (
        {"x": X, "y": Y, "x_train": X, "y_train": Y},
        r"data.npz has no array 'target'",
    ),
    ({"x": X, "target": Y[:9]}, "arrays of different lengths: 50 of x, 9 of target"),
    ({"x": X[:, :3], "target": Y}, r"data.npz does not fit the step. The input 'x' has shape \[1"),
    ({"x": X, "target": Y[:, None]}, "The input 'target' has shape"),
    ({"x": X, "target": Y + 0.5}, r"The input 'target' has dtype float64; int64 is needed"),
    ({"x": X[:0], "target": Y[:0]}, "data.npz holds no samples"),
    ({"x": X, "target": np.int64(1)}, "'target' is a single number, not an array of samples"),
    ({"x": np.array([object()]), "target": Y[:1]}, r"is not an .npz file of numbers \(Object"),
]


@pytest.mark.parametrize(("arrays", "message"), DATA)
def test_data_that_do_not_fit(built: Place, arrays: dict[str, Any], message: str) -> None:
    built.data(data=arrays)
    assert re.search(message, built.train(data="data.npz").refused())


def test_targets_that_are_no_classes(built: Place) -> None:
    built.data(bad={"x": X, "target": Y + 1}, good={"x": X, "target": Y})
    sentence = "Out of range: a target is none of the 3 classes (counted from 0)"
    refusal = built.train(data="bad.npz").refused()
    assert f"The training step failed: sparse_categorical_crossentropy: {sentence}" in refusal
    refusal = built.train("--validation", "bad.npz", data="good.npz").refused()
    assert f"The evaluation failed: sparse_categorical_crossentropy: {sentence}" in refusal


def test_files_that_hold_no_data(built: Place) -> None:
    assert built.train(data="no.npz").refused() == "there is no file no.npz"
    whole = (built.folder / "train.npz").read_bytes()
    for cut in (10, len(whole) // 2):
        (built.folder / "cut.npz").write_bytes(whole[:cut])
        assert "cut.npz is not an .npz file of numbers" in built.train(data="cut.npz").refused()
    (built.folder / "text.npz").write_text("x, target")
    refusal = built.train(data="text.npz").refused()
    assert refusal.endswith("text.npz is not an .npz file of numbers (or cut short)")
    np.save("one.npy", X)
    assert "one.npy is one array, not several with names" in built.train(data="one.npy").refused()


# State and artifact ------------------------------------------------------------------------------


def test_a_state_is_not_overwritten_unasked(built: Place) -> None:
    built.train().succeeded()
    assert "--resume goes on from it, --restart begins anew" in built.train().refused()
    built.train("--restart").succeeded()


def test_states_that_do_not_fit(built: Place) -> None:
    assert "There is no state file no." in built.train("--resume", "--state", "no.x").refused()
    save_state(built.folder / "other.x", {"w": X})
    refused = built.train("--resume", "--state", "other.x").refused()
    assert refused == "other.x was not written by `onnxtape train`"
    built.train("--state", "mine.x").succeeded()
    for arguments, message in (
        (("--batch-size", "9"), "the training had --batch-size 32, not 9"),
        (("--seed", "9"), "the training had --seed 0, not 9"),
        (("--no-shuffle",), "the training did shuffle"),
    ):
        assert message in built.train("--resume", "--state", "mine.x", *arguments).refused()
    built.data(fewer={"x": X[:5], "target": Y[:5]})
    refused = built.train("--resume", "--state", "mine.x", data="fewer.npz").refused()
    assert refused == "the training had 40 samples, but fewer.npz holds 5"
    (built.folder / "mine.x").write_bytes((built.folder / "mine.x").read_bytes()[:-9])
    assert "was cut short" in built.train("--resume", "--state", "mine.x").refused()


def test_a_state_of_another_model(built: Place) -> None:
    built.train().succeeded()
    built.build("--optimizer", "sgd").succeeded()
    refused = built.train("--resume").refused()
    assert "artifact.trained.safetensors belongs to another model: missing: " in refused
    assert "The artifact was built anew since it was saved: --restart begins anew" in refused
    assert "load_state_dict" not in refused


def test_artifacts_that_are_none(built: Place) -> None:
    assert (
        "There is no artifact folder no"
        in built.run("train", "no", "--data", "train.npz").refused()
    )
    file = built.folder / "artifact" / "training.onnx"
    file.write_bytes(file.read_bytes()[:-5])
    assert "training.onnx was cut short" in built.train().refused()


def test_an_artifact_without_an_evaluation(built: Place) -> None:
    w = ot.Variable(HEAD[:4], name="w")

    @ot.function
    def step(x: Any) -> Any:
        w.assign_sub(ot.ops.reshape(ot.ops.mean(x), (1, 1)))
        return {"loss": ot.ops.sum(w), "all": w.value}

    step.export("artifact", ot.TensorSpec((None, 4)))
    refused = built.train("--validation", "valid.npz").refused()
    assert "holds no evaluation step; export it with one" in refused
    assert "epoch 1/1: loss" in built.train().succeeded()


def test_what_cannot_be_written_is_known_before(
    built: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert built.train("--state", "no/a").refused() == "No such file or directory: no"
    assert built.train("--export", "net.onnx/a").refused() == "Not a directory: net.onnx"

    def denied(self: Path, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", denied)
    assert built.train().refused() == f"Permission denied: {built.folder.resolve()}"


def test_a_step_without_a_batch(built: Place) -> None:
    w = ot.Variable(1.0, name="w")
    ot.function(lambda: w.assign_add(1.0)).export("artifact")
    assert built.train().refused().startswith("the step takes no batch")


def test_a_nan_is_found(built: Place) -> None:
    built.data(nan={"x": np.full((8, 4), np.nan, "f"), "target": Y[:8]})
    refused = built.train("--check-numerics", data="nan.npz").refused()
    assert "The step gave NaN or infinity in: result 'loss'" in refused


def test_providers_that_are_not_here(built: Place) -> None:
    assert (
        "No execution provider is called 'abacus'" in built.train("--provider", "abacus").refused()
    )
