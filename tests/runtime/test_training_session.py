"""Training with an artifact, against NumPy, and in a process that has no ONNX library."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxtape.runtime import training_session as training_session_module
from onnxtape.runtime.artifact import read_artifact, write_artifact
from onnxtape.runtime.errors import (
    ArtifactError,
    CheckpointError,
    ExecutionError,
    InputError,
    NumericsError,
)
from onnxtape.runtime.manifest import StateEntry, TensorEntry
from onnxtape.runtime.training_session import TrainingSession

FLOAT = TensorProto.FLOAT


@pytest.fixture
def session(artifact_path: Path) -> TrainingSession:
    return TrainingSession(artifact_path)


def assert_same_state(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


# Steps


def test_steps_agree_with_numpy(session: TrainingSession, regression: Any) -> None:
    expected = regression.initial_state()
    first_loss = regression.oracle(expected, **regression.batch(16))[0]["loss"]
    for index in range(120):
        batch = regression.batch(16 if index % 3 else 5, seed=index)
        results, expected = regression.oracle(expected, **batch)
        found = session.step(**batch)
        assert list(found) == ["loss", "prediction"]
        for name, value in results.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5)
        state = session.state_dict()
        for name, value in expected.items():
            np.testing.assert_allclose(state[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert state["generator"][1] == state["iterations"] == 120
    assert found["loss"] < first_loss / 100


def test_results_are_the_callers(session: TrainingSession, regression: Any) -> None:
    first = session.step(**regression.batch(6, seed=1))
    kept = {name: value.copy() for name, value in first.items()}
    for seed in range(2, 9):
        session.step(**regression.batch(6, seed=seed))
    del session
    gc.collect()
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_arrays_that_are_not_contiguous_or_writeable(
    session: TrainingSession, regression: Any, artifact_path: Path
) -> None:
    batch = regression.batch(8)
    wide = np.zeros((8, 9), np.float32)
    wide[:, ::2][:, :4] = batch["x"]
    frozen = batch["y"].copy()
    frozen.flags.writeable = False
    odd = {"x": wide[:, ::2][:, :4], "y": frozen}
    assert not odd["x"].flags.c_contiguous
    session.step(**odd)
    plain = TrainingSession(artifact_path)
    plain.step(**batch)
    assert_same_state(session.state_dict(), plain.state_dict())


def test_lists_and_other_dtypes_of_the_same_kind(
    session: TrainingSession, artifact_path: Path
) -> None:
    x, y = [[1, 2, 3, 4], [5, 6, 7, 8.5]], [[1], [2]]
    session.step(x=x, y=y)
    plain = TrainingSession(artifact_path)
    plain.step(x=np.array(x, np.float32), y=np.array(y, np.float32))
    assert_same_state(session.state_dict(), plain.state_dict())
    session.step(x=np.array(x, np.float64), y=np.array(y, np.int16))
    plain.step(x=np.array(x, ">f4"), y=np.array(y, np.float16))
    assert_same_state(session.state_dict(), plain.state_dict())


def test_properties(session: TrainingSession, regression: Any) -> None:
    assert session.inputs == regression.inputs
    assert session.outputs == regression.outputs
    assert session.state == regression.entries
    assert session.manifest.opset == 21


def test_steps_from_several_threads(session: TrainingSession, regression: Any) -> None:
    batch = regression.batch(64)

    def work() -> None:
        for _ in range(50):
            session.step(**batch)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = session.state_dict()
    assert state["iterations"] == 200
    assert state["generator"][1] == 200


# What a step refuses


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"y": None, "Labels": [[1]]},
            "The batch does not have the step's inputs: 'y' missing, 'Labels' unknown. The step "
            "takes x: float32[batch, 4], y: float32[batch, 1].",
        ),
        (
            {"x": np.zeros((2, 5), np.float32)},
            "The input 'x' has shape [2, 5]; the step takes [batch, 4].",
        ),
        (
            {"x": np.zeros(4, np.float32)},
            "The input 'x' has shape [4]; the step takes [batch, 4].",
        ),
        (
            {"y": np.zeros((3, 1), np.float32)},
            "The inputs disagree in the dimension 'batch': 'x' has 2, 'y' has 3.",
        ),
        (
            {"x": np.zeros((2, 4), complex)},
            "The input 'x' has dtype complex128; float32 is needed, and the conversion would not "
            "keep its kind. Convert it yourself if that is what you mean: .astype('float32').",
        ),
        ({"x": [[1, 2], [3]]}, "The input 'x' is not an array of numbers:"),
        ({"x": "text"}, "The input 'x' has dtype <U4; float32 is needed"),
    ],
)
def test_wrong_batches(
    session: TrainingSession, regression: Any, changed: dict[str, Any], message: str
) -> None:
    good = regression.batch(2)
    batch = {name: value for name, value in {**good, **changed}.items() if value is not None}
    for _ in range(2):  # as the first step, and after a good one
        before = session.state_dict()
        with pytest.raises(InputError) as caught:
            session.step(**batch)
        assert str(caught.value).startswith(message)
        assert_same_state(session.state_dict(), before)
        session.step(**good)


def integer_session(folder: Path, model_builder: Callable[..., bytes]) -> TrainingSession:
    """Gathers state by an int32 index, so that ONNX Runtime fails on an index out of range."""
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Add", ["count", "one"], ["count_new"]),
        helper.make_node("Cast", ["flag"], ["flag_float"], to=FLOAT),
        helper.make_node("Add", ["row", "flag_float"], ["out"]),
    ]
    model = model_builder(
        nodes,
        [
            ("index", TensorProto.INT32, ["n"]),
            ("flag", TensorProto.BOOL, []),
            ("table", FLOAT, [3]),
            ("count", TensorProto.UINT8, []),
        ],
        [("out", FLOAT, ["n"]), ("count_new", TensorProto.UINT8, [])],
        {"one": np.array(1, np.uint8)},
    )
    write_artifact(
        folder,
        training=model,
        inputs=[TensorEntry("index", "int32", ("n",)), TensorEntry("flag", "bool", ())],
        outputs=[TensorEntry("out", "float32", (None,))],
        state_entries=[
            StateEntry("table", "table", None, "float32", (3,), "parameter"),
            StateEntry("count", "count", "count_new", "uint8", (), "metric"),
        ],
        state={"table": np.float32([10, 20, 30]), "count": np.array(255, np.uint8)},
        opset=21,
    )
    return TrainingSession(folder)


def test_integers_and_booleans(tmp_path: Path, model_builder: Callable[..., bytes]) -> None:
    session = integer_session(tmp_path / "a", model_builder)
    result = session.step(index=np.array([2, 0], np.int64), flag=True)
    np.testing.assert_array_equal(result["out"], [31, 11])
    assert session.state_dict()["count"] == 0  # 255 + 1 in uint8
    for index, message in (
        ([2**40], "The input 'index' holds whole numbers that do not fit into int32"),
        ([1.5], "The input 'index' has dtype float64; int32 is needed"),
        (np.array([2**31], np.uint32), "whole numbers that do not fit into int32"),
    ):
        with pytest.raises(InputError, match=message):
            session.step(index=index, flag=True)
    with pytest.raises(InputError, match="'flag' has dtype int64; bool is needed"):
        session.step(index=[0], flag=1)
    session.set_state("count", 200)
    with pytest.raises(InputError, match="do not fit into uint8"):
        session.set_state("count", 256)
    assert session.state_dict()["count"] == 200


def test_a_failing_run_leaves_the_state(
    tmp_path: Path, model_builder: Callable[..., bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    session = integer_session(tmp_path / "a", model_builder)
    session.step(index=[0], flag=False)
    before = session.state_dict()
    for _ in range(3):
        with pytest.raises(ExecutionError) as caught:
            session.step(index=[7], flag=False)
        assert str(caught.value).startswith("The training step failed: Gather node")
        assert "idx=7" in str(caught.value)
        assert_same_state(session.state_dict(), before)
    np.testing.assert_array_equal(session.step(index=[1], flag=False)["out"], [20])
    assert session.state_dict()["count"] == 1
    assert capfd.readouterr() == ("", "")


def test_check_numerics(artifact_path: Path, regression: Any) -> None:
    session = TrainingSession(artifact_path, check_numerics=True)
    session.step(**regression.batch(4))
    before = session.state_dict()
    bad = regression.batch(4)
    bad["y"][1] = np.inf
    with pytest.raises(NumericsError) as caught:
        session.step(**bad)
    assert str(caught.value) == (
        "The step gave NaN or infinity in: result 'loss', new state 'kernel', new state 'bias', "
        "new state 'kernel/m', new state 'bias/m'. The state is as before it."
    )
    assert_same_state(session.state_dict(), before)
    # Without the check, the state takes it.
    unchecked = TrainingSession(artifact_path)
    unchecked.step(**bad)
    assert not np.isfinite(unchecked.state_dict()["kernel"]).any()
    # And the checked session goes on as if nothing had happened.
    reference = TrainingSession(artifact_path)
    for each in (session, reference):
        each.load_state_dict(before)
        each.step(**regression.batch(4, seed=5))
    assert_same_state(session.state_dict(), reference.state_dict())


# State


def test_state_dict_is_a_copy(session: TrainingSession, regression: Any) -> None:
    taken = session.state_dict()
    assert_same_state(taken, regression.initial_state())
    taken["kernel"][...] = 99
    assert_same_state(session.state_dict(), regression.initial_state())
    session.load_state_dict(taken)
    taken["kernel"][...] = 11
    np.testing.assert_array_equal(session.state_dict()["kernel"], np.full((4, 1), 99))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_set_state(session: TrainingSession, regression: Any, steps: int) -> None:
    for _ in range(steps):
        session.step(**regression.batch(4))
    session.set_state("learning_rate", 0)
    session.set_state("kernel", [[1], [2], [3], [4]])
    session.step(**regression.batch(4))
    state = session.state_dict()
    assert state["learning_rate"].dtype == np.float32
    np.testing.assert_array_equal(state["kernel"], [[1], [2], [3], [4]])


def test_a_name_that_is_nearly_right(session: TrainingSession) -> None:
    with pytest.raises(
        InputError, match=r"no state entry 'kernl'; did you mean 'kernel' or 'kernel/m'\?$"
    ):
        session.set_state("kernl", 1)


def test_a_batch_without_names(session: TrainingSession, regression: Any) -> None:
    batch = regression.batch(4)
    keywords = ", ".join(f"{entry.name}=..." for entry in session.inputs)
    with pytest.raises(TypeError) as refusal:
        session.step(*batch.values())
    assert str(refusal.value) == f"step takes the batch by name: session.step({keywords})"


def test_it_shows_what_a_step_takes(session: TrainingSession, artifact_path: Path) -> None:
    shown = repr(session)
    assert shown.startswith(f"<TrainingSession of {artifact_path}: step(")
    assert all(f"{entry.name}: {entry.dtype}[" in shown for entry in session.inputs)
    assert shown.endswith(f") -> loss, prediction; {len(session.state)} state entries>")


def test_set_state_refuses(session: TrainingSession) -> None:
    with pytest.raises(InputError, match="no state entry 'zzz'; the entries are kernel, bias,"):
        session.set_state("zzz", 1)
    with pytest.raises(InputError, match=r"'kernel' has shape \[4, 1\], .* for it \[4\]"):
        session.set_state("kernel", np.ones(4, np.float32))
    with pytest.raises(InputError, match="The state entry 'iterations' has dtype float64; int64"):
        session.set_state("iterations", 0.5)


def test_a_learning_rate_of_another_name(session: TrainingSession) -> None:
    for name in ("adam/learning_rate", "adam/lr", "lr"):
        wanted = f"no state entry '{name}'; the learning rate is 'learning_rate'"
        with pytest.raises(InputError, match=wanted):
            session.set_state(name, 1)


def test_load_state_dict_is_all_or_nothing(session: TrainingSession, regression: Any) -> None:
    before = session.state_dict()
    for edit in (
        lambda state: state.pop("bias"),
        lambda state: state.update(extra=np.ones(1)),
        lambda state: state.update(bias=np.zeros(1)),
        lambda state: state.update(bias=np.zeros(2, np.float32)),
    ):
        state = {name: value + 1 for name, value in before.items()}
        edit(state)
        with pytest.raises(CheckpointError, match="state_dict belongs to another model"):
            session.load_state_dict(state)
        assert_same_state(session.state_dict(), before)


def test_resumed_training_is_the_same_bit_for_bit(
    artifact_path: Path, tmp_path: Path, regression: Any
) -> None:
    whole = TrainingSession(artifact_path)
    first = TrainingSession(artifact_path)
    for seed in range(5):
        whole.step(**regression.batch(8, seed))
        first.step(**regression.batch(8, seed))
    first.save(tmp_path / "state.safetensors")
    second = TrainingSession(artifact_path)
    second.step(**regression.batch(8, 77))  # so that it is at the other pair of buffers
    second.load(tmp_path / "state.safetensors")
    for seed in range(5, 10):
        expected = whole.step(**regression.batch(8, seed))
        assert second.step(**regression.batch(8, seed))["loss"] == expected["loss"]
    assert_same_state(second.state_dict(), whole.state_dict())


def test_load_refuses_other_models_and_damage(session: TrainingSession, tmp_path: Path) -> None:
    before = session.state_dict()
    path = tmp_path / "state.safetensors"
    session.save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        session.load(path)
    from onnxtape.runtime.checkpoint import save_state

    save_state(path, {"weight": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"state\.safetensors belongs to another model: mis"):
        session.load(path)
    with pytest.raises(CheckpointError, match="There is no state file"):
        session.load(tmp_path / "none")
    assert_same_state(session.state_dict(), before)


def test_bfloat16_float16_and_empty_state(
    tmp_path: Path, model_builder: Callable[..., bytes]
) -> None:
    """s += x in bfloat16 and float16, through float32; and an entry without elements."""
    nodes = []
    for name, number in (("b", TensorProto.BFLOAT16), ("h", TensorProto.FLOAT16)):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_float"], to=FLOAT),
            helper.make_node("Add", [f"{name}_float", "x"], [f"{name}_sum"]),
            helper.make_node("Cast", [f"{name}_sum"], [f"{name}_new"], to=number),
        ]
    nodes += [
        helper.make_node("Identity", ["e"], ["e_new"]),
        helper.make_node("Cast", ["y"], ["y_float"], to=FLOAT),
        helper.make_node("Add", ["x", "y_float"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["out"], to=TensorProto.BFLOAT16),
    ]
    types = {"b": TensorProto.BFLOAT16, "h": TensorProto.FLOAT16, "e": FLOAT}
    shapes = {"b": [3], "h": [3], "e": [0, 2]}
    model = model_builder(
        nodes,
        [("x", FLOAT, [3]), ("y", TensorProto.BFLOAT16, [3])]
        + [(n, types[n], shapes[n]) for n in types],
        [("out", TensorProto.BFLOAT16, [3])] + [(f"{n}_new", types[n], shapes[n]) for n in types],
    )
    names = {"b": "bfloat16", "h": "float16", "e": "float32"}
    state = {
        "b": np.ones(3, ml_dtypes.bfloat16),
        "h": np.ones(3, np.float16),
        "e": np.zeros((0, 2), np.float32),
    }
    write_artifact(
        tmp_path / "a",
        training=model,
        inputs=[TensorEntry("x", "float32", (3,)), TensorEntry("y", "bfloat16", (3,))],
        outputs=[TensorEntry("out", "bfloat16", (3,))],
        state_entries=[
            StateEntry(n, n, f"{n}_new", names[n], tuple(shapes[n]), "buffer") for n in names
        ],
        state=state,
        opset=21,
    )
    session = TrainingSession(tmp_path / "a", check_numerics=True)
    x = np.float32([0.1, 2, -300])
    expected = dict(state)
    for _ in range(5):
        for name in "bh":
            total = expected[name].astype(np.float32) + x
            expected[name] = total.astype(expected[name].dtype)
        result = session.step(x=x, y=np.array([1, 2, 3], ml_dtypes.bfloat16))["out"]
        assert_same_state(session.state_dict(), expected)
    assert result.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(result.astype(np.float32), x + np.float32([1, 2, 3]), rtol=0.01)
    session.save(tmp_path / "s")
    other = TrainingSession(tmp_path / "a")
    other.load(tmp_path / "s")
    assert_same_state(other.state_dict(), expected)
    with pytest.raises(NumericsError, match="result 'out', new state 'b', new state 'h'"):
        session.step(x=x * np.float32(np.inf), y=np.zeros(3, ml_dtypes.bfloat16))
    # float32 to bfloat16 keeps the kind.
    session.step(x=x, y=np.zeros(3, np.float32))


class RecordingBinding:
    """A binding that notes which inputs are bound."""

    def __init__(self, binding: Any) -> None:
        self.binding = binding
        self.inputs: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.binding, name)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.inputs.append(name)
        self.binding.bind_ortvalue_input(name, value)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_state_on_a_device_that_python_cannot_allocate_on(
    artifact_path: Path, regression: Any, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """There, ONNX Runtime binds a copy of the state, so that each step has to bind it again."""
    reference = TrainingSession(artifact_path)
    if elsewhere:
        monkeypatch.setattr(
            training_session_module,
            "input_devices",
            lambda session: dict.fromkeys([node.name for node in session.get_inputs()]),
        )
    session = TrainingSession(artifact_path)
    state = [entry.input for entry in regression.entries] if elsewhere else []
    for seed in range(5):
        recording = RecordingBinding(session._bindings[seed % 2])
        session._bindings[seed % 2] = recording
        session.step(**regression.batch(4, seed))
        session._bindings[seed % 2] = recording.binding
        assert recording.inputs == ["x", "y", *state]
        reference.step(**regression.batch(4, seed))
    assert_same_state(session.state_dict(), reference.state_dict())


# Artifacts that do not fit, and inference


def test_path_or_artifact(artifact_path: Path, regression: Any) -> None:
    states = []
    for given in (artifact_path, str(artifact_path), read_artifact(artifact_path)):
        session = TrainingSession(given)
        session.step(**regression.batch(4))
        states.append(session.state_dict())
    assert_same_state(states[0], states[1])
    assert_same_state(states[0], states[2])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (TensorEntry("y", "int64", ("batch", 1)), "has 'y' as tensor.float. of shape"),
        (TensorEntry("y", "float32", ("batch", 2)), r"the manifest says float32 of .*'batch', 2"),
        (TensorEntry("y", "float32", ("batch",)), "has 'y' as tensor"),
    ],
)
def test_manifest_that_lies_about_the_graph(
    tmp_path: Path, regression: Any, entry: TensorEntry, message: str
) -> None:
    regression.write(tmp_path / "a", inputs=[regression.inputs[0], entry])
    with pytest.raises(ArtifactError, match=message):
        TrainingSession(tmp_path / "a")


def test_export_inference(session: TrainingSession, tmp_path: Path, regression: Any) -> None:
    for seed in range(30):
        session.step(**regression.batch(16, seed))
    path = tmp_path / "model.onnx"
    session.export_inference(path)
    assert sorted(os.listdir(tmp_path)) == ["artifact", "model.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x"]
    assert {tensor.name for tensor in model.graph.initializer} == {"kernel", "bias"}
    inference = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [node.name for node in inference.get_inputs()] == ["x"]
    x = regression.batch(7, 99)["x"]
    state = session.state_dict()
    (prediction,) = inference.run(None, {"x": x})
    np.testing.assert_allclose(prediction, x @ state["kernel"] + state["bias"], rtol=1e-5)


def test_export_inference_without_one(tmp_path: Path, regression: Any) -> None:
    session = TrainingSession(regression.write(tmp_path / "a", inference=None))
    with pytest.raises(ArtifactError, match="holds no inference model; export it with one"):
        session.export_inference(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


RUNTIME_ONLY = """
    import sys
    import numpy as np
    from onnxtape.runtime.training_session import TrainingSession
    assert "onnxruntime" not in sys.modules

    artifact, batches, state_in, state_out, model = sys.argv[1:]
    session = TrainingSession(artifact)
    if state_in:
        session.load(state_in)
    with np.load(batches) as arrays:
        for index in range(len(arrays["x"])):
            loss = session.step(x=arrays["x"][index], y=arrays["y"][index])["loss"]
            print(loss.tobytes().hex())
    session.save(state_out)
    session.export_inference(model)
    assert not {"onnx", "onnx_ir", "onnxtape.compiler"} & set(sys.modules)
"""


def test_train_save_resume_and_export_with_the_runtime_alone(
    artifact_path: Path, tmp_path: Path, regression: Any, run_runtime_alone: Callable[..., str]
) -> None:
    batches = [regression.batch(8, seed) for seed in range(10)]
    for name, part in (("all", batches), ("first", batches[:4]), ("second", batches[4:])):
        stacked = {key: np.stack([batch[key] for batch in part]) for key in ("x", "y")}
        np.savez(tmp_path / f"{name}.npz", **stacked)

    def train(name: str, resume: str = "") -> str:
        return run_runtime_alone(
            RUNTIME_ONLY,
            artifact_path,
            tmp_path / f"{name}.npz",
            tmp_path / resume if resume else "",
            tmp_path / f"{name}.safetensors",
            tmp_path / f"{name}.onnx",
        )

    losses = train("all")
    assert losses.count("\n") == 10
    assert train("first") + train("second", resume="first.safetensors") == losses
    for suffix in ("safetensors", "onnx"):
        resumed = (tmp_path / f"second.{suffix}").read_bytes()
        assert resumed == (tmp_path / f"all.{suffix}").read_bytes()
    onnx.checker.check_model(onnx.load(tmp_path / "second.onnx"), full_check=True)
    # The same in this process, which has all libraries.
    session = TrainingSession(artifact_path)
    for batch in batches:
        session.step(**batch)
    session.save(tmp_path / "here.safetensors")
    assert (tmp_path / "here.safetensors").read_bytes() == (
        tmp_path / "all.safetensors"
    ).read_bytes()
