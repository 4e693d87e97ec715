"""`step.export`: the artifact trains as the step does, anywhere, and holds what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

import onnxtape as ot
from onnxtape.errors import ArtifactError, ExecutionError, InputError, TracingError
from tests.frontend.training import CLASSES, FEATURES, Training, batches

Array = npt.NDArray[Any]
SPECS = (ot.TensorSpec((None, FEATURES)), ot.TensorSpec((None,), "int64"))


def export(training: Training, path: Path, **options: Any) -> Path:
    return training.step.export(path, *SPECS, **options)


def models(path: Path) -> list[onnx.ModelProto]:
    return [onnx.load(file) for file in sorted(path.glob("*.onnx"))]


def read_manifest(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    return manifest


# Training goes on --------------------------------------------------------------------------------


def test_three_ways_to_train_give_one_sequence_of_losses(tmp_path: Path) -> None:
    """Compiled, eager and from the artifact, dropout included, from one seed, over 100 steps."""
    data = batches(100, last=5)
    compiled = Training()
    compiled.restart_masks()
    session = ot.TrainingSession(export(compiled, tmp_path / "artifact", model=compiled.model))
    from_artifact = [session.step(x=x, y=y) for x, y in data]
    from_step = [compiled.step(x, y) for x, y in data]
    assert compiled.step.trace_count == 1

    eager = Training(compiled=False)
    eager.restart_masks()
    from_eager = [eager.step(x, y) for x, y in data]

    for name in ("loss", "accuracy"):
        expected = [float(results[name]) for results in from_eager]
        np.testing.assert_allclose([float(r[name]) for r in from_step], expected, rtol=1e-5)
        np.testing.assert_allclose([float(r[name]) for r in from_artifact], expected, rtol=1e-5)
    assert expected[-1] > 0.5  # it learned something

    trained = {v.path: v.numpy() for v in compiled.model.variables}
    state = session.state_dict()
    for path, weight in trained.items():
        np.testing.assert_allclose(state[path], weight, rtol=1e-4, atol=1e-5)


def test_an_export_in_the_middle_goes_on_where_the_step_is(tmp_path: Path) -> None:
    data = batches(8)
    training = Training()
    training.run(data[:4])
    session = ot.TrainingSession(training.step.export(tmp_path / "artifact"))
    expected = training.run(data[4:])
    found = [float(session.step(x=x, y=y)["loss"]) for x, y in data[4:]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_exporting_does_not_disturb_training(tmp_path: Path) -> None:
    data = batches(6, last=5)
    losses = []
    for exports in (False, True):
        training = Training()
        training.restart_masks()
        found = []
        for i, batch in enumerate(data):
            if exports:
                training.step.export(tmp_path / f"{i % 2}", *SPECS, model=training.model)
            found += training.run([batch])
        losses.append(found)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


PLAIN_PROGRAM = """
import importlib.abc, json, pathlib, sys


class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnx", "onnx_ir", "onnxtape"):
            raise ImportError(f"{name} is not here")


sys.meta_path.insert(0, Forbid())
import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file

folder, data = pathlib.Path(sys.argv[1]), np.load(sys.argv[2])
manifest = json.loads((folder / "manifest.json").read_text())
session = ort.InferenceSession(str(folder / "training.onnx"))
stored = load_file(folder / "state.safetensors")
state = {entry["input"]: stored[entry["name"]] for entry in manifest["state"]}
results = [entry["name"] for entry in manifest["outputs"]]
updates = {e["output"]: e["input"] for e in manifest["state"] if e["output"] is not None}
wanted = [*results, *updates]
losses = []
for i in range(len(data.files) // 2):
    batch = {entry["name"]: data[f"{entry['name']}{i}"] for entry in manifest["inputs"]}
    found = dict(zip(wanted, session.run(wanted, {**batch, **state})))
    state.update({updates[name]: found[name] for name in updates})
    losses.append(float(found["loss"]))
assert not {"onnx", "onnx_ir", "onnxtape"} & set(sys.modules)
print(json.dumps(losses))
"""


def test_a_plain_program_trains_by_the_manifest(tmp_path: Path) -> None:
    training = Training()
    training.restart_masks()
    path = export(training, tmp_path / "artifact")
    data = batches(20, last=3)
    arrays = {
        f"{n}{i}": a for i, batch in enumerate(data) for n, a in zip("xy", batch, strict=True)
    }
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_PROGRAM, path, tmp_path / "data.npz"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), training.run(data), rtol=1e-5)


# What is written ---------------------------------------------------------------------------------


def test_the_models_are_plain_onnx(tmp_path: Path) -> None:
    training = Training()
    path = export(training, tmp_path / "artifact", model=training.model)
    assert sorted(file.name for file in path.iterdir()) == [
        "inference.onnx",
        "manifest.json",
        "state.safetensors",
        "training.onnx",
    ]
    for model in models(path):
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version <= 13
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
        for value in [*model.graph.input, *model.graph.output]:
            assert value.type.tensor_type.elem_type
    assert read_manifest(path)["opset"] == 21


def test_names_dtypes_shapes_and_roles(tmp_path: Path) -> None:
    training = Training()
    path = export(training, tmp_path / "artifact", model=training.model)
    manifest = read_manifest(path)
    assert [(e["name"], e["dtype"], e["shape"]) for e in manifest["inputs"]] == [
        ("x", "float32", ["batch", FEATURES]),
        ("y", "int64", ["batch"]),
    ]
    assert [(e["name"], e["dtype"], e["shape"]) for e in manifest["outputs"]] == [
        ("loss", "float32", []),
        ("accuracy", "float32", []),
    ]
    roles = {e["name"]: e["role"] for e in manifest["state"]}
    assert {name: role for name, role in roles.items() if role == "parameter"} == dict.fromkeys(
        (
            f"sequential/{layer}/{name}"
            for layer in ("dense", "dense_1")
            for name in ("kernel", "bias")
        ),
        "parameter",
    )
    assert roles["adam/learning_rate"] == roles["adam/iteration"] == "optimizer"
    assert roles["adam/sequential_dense_kernel_momentum"] == "optimizer"
    assert roles["sparse_categorical_accuracy/total"] == "metric"
    assert roles["global_seed_generator"] == "generator"
    read_only = [e["name"] for e in manifest["state"] if e["output"] is None]
    assert read_only == ["adam/learning_rate"]
    inference = manifest["inference"]
    assert [e["shape"] for e in inference["inputs"]] == [["batch", FEATURES]]
    assert [(e["name"], e["shape"]) for e in inference["outputs"]] == [
        ("output", ["batch", CLASSES])
    ]


def test_nested_batches_and_unnamed_results(tmp_path: Path) -> None:
    weight = ot.Variable(2.0, name="weight")

    @ot.function
    def step(batch: Any, *more: Any) -> Any:
        weight.assign_add(1.0)
        return batch["x"] * weight, (more[0] + batch["deep"]["y"][0],)

    arguments = {"x": np.ones((3, 2), np.float32), "deep": {"y": [np.ones(3, np.float32)]}}
    path = step.export(tmp_path / "artifact", arguments, np.float32(5))
    manifest = read_manifest(path)
    assert [e["name"] for e in manifest["inputs"]] == ["batch.x", "batch.deep.y.0", "more.0"]
    assert [e["name"] for e in manifest["outputs"]] == ["output_0", "output_1"]
    assert [e["shape"] for e in manifest["inputs"]] == [["batch", 2], ["batch"], []]
    session = ot.TrainingSession(path)
    found = session.step(
        **{
            "batch.x": np.ones((7, 2), np.float32),
            "batch.deep.y.0": np.zeros(7, np.float32),
            "more.0": np.float32(1),
        }
    )
    np.testing.assert_array_equal(found["output_0"], np.full((7, 2), 3))
    np.testing.assert_array_equal(found["output_1"], np.ones(7))


def test_nodes_tell_the_users_lines_and_layers_and_no_absolute_path(tmp_path: Path) -> None:
    training = Training()
    path = export(training, tmp_path / "artifact", model=training.model)
    (training_model,) = (m for m in models(path) if len(m.graph.output) > 1)
    notes = [{p.key: p.value for p in node.metadata_props} for node in training_model.graph.node]
    assert {n["onnxtape.phase"] for n in notes if n} == {"forward", "backward", "update"}
    layers = {n.get("onnxtape.layer", "") for n in notes}
    assert any("dense_1" in layer for layer in layers)
    assert any("adam" in layer for layer in layers)
    sources = {n["onnxtape.source"].rpartition(":")[0] for n in notes if "onnxtape.source" in n}
    assert {Path(source).name for source in sources} == {"training.py"}
    assert not any(Path(source).is_absolute() for source in sources)
    for file in path.iterdir():
        content = file.read_bytes()
        for secret in (str(Path.cwd()), str(Path.home()), str(tmp_path), sys.prefix):
            assert secret.encode() not in content, f"{file.name} tells {secret}"


# Inference ---------------------------------------------------------------------------------------


def test_the_inference_graph_takes_the_trained_state(tmp_path: Path) -> None:
    training = Training()
    path = export(training, tmp_path / "artifact", model=training.model)
    data = batches(10)
    session = ot.TrainingSession(path)
    for x, y in data:
        session.step(x=x, y=y)
    state = session.state_dict()
    inference = onnxruntime.InferenceSession(path / "inference.onnx")
    (entry,) = read_manifest(path)["inference"]["inputs"]
    needed = {i.name for i in inference.get_inputs()} - {entry["name"]}
    assert needed == {v.path for v in training.model.variables}
    x, _ = data[0]
    (output,) = inference.run(
        ["output"], {entry["name"]: x, **{name: state[name] for name in needed}}
    )
    for variable in training.model.variables:
        variable.assign(state[variable.path])
    np.testing.assert_allclose(output, training.model(x), rtol=1e-5, atol=1e-6)

    session.export_inference(tmp_path / "model.onnx")
    whole = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [i.name for i in whole.get_inputs()] == [entry["name"]]
    for rows in (1, 9):
        (output,) = whole.run(None, {entry["name"]: x[:rows]})
        np.testing.assert_allclose(output, training.model(x[:rows]), rtol=1e-5, atol=1e-6)


def test_weights_that_the_step_does_not_touch_are_constants_of_the_inference_graph(
    tmp_path: Path,
) -> None:
    body, head = ot.layers.Dense(3, name="body"), ot.layers.Dense(2, name="head")
    model = ot.Sequential([ot.Input((4,)), body, head])
    data = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(ot.ops.square(head(ot.ops.ones((1, 3))))) + ot.ops.sum(x) * 0
        gradients = tape.gradient(loss, head.trainable_weights)
        for gradient, weight in zip(gradients, head.trainable_weights, strict=True):
            weight.assign_sub(0.1 * gradient)
        return {"loss": loss}

    path = step.export(tmp_path / "artifact", ot.TensorSpec((None, 4)), model=model)
    session = ot.TrainingSession(path)
    session.step(x=data)
    step(data)
    session.export_inference(tmp_path / "model.onnx")
    whole = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (output,) = whole.run(None, {whole.get_inputs()[0].name: data})
    np.testing.assert_allclose(output, model(data), rtol=1e-5, atol=1e-6)


# When and where ----------------------------------------------------------------------------------


def test_an_export_without_anything_that_tells_shapes(tmp_path: Path) -> None:
    training = Training()
    with pytest.raises(ValueError, match=r"'python_step' has not been called yet.*ot\.TensorSpecs"):
        training.step.export(tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_an_export_of_what_runs_eagerly(tmp_path: Path) -> None:
    @ot.function
    def peek(x: Any) -> Any:
        return x * float(x.numpy().sum())

    with pytest.warns(ot.errors.FallbackWarning):
        peek(np.ones(3, "f"))
    with pytest.raises(ValueError, match=r"(?s)'peek' runs eagerly.*\.numpy\(\)"):
        peek.export(tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("way", ["call", "arguments", "signature", "specs"])
def test_shapes_come_from_wherever_they_are_known(tmp_path: Path, way: str) -> None:
    training = Training(dropout=0.0)
    (x, y), *_ = batches(1)
    if way == "signature":
        training.step = ot.function(training.python_step, input_signature=SPECS)
    if way == "call":
        training.step(x, y)
    arguments: dict[str, Any] = {"arguments": (x, y), "specs": SPECS}
    path = training.step.export(tmp_path / "artifact", *arguments.get(way, ()))
    assert [e["shape"] for e in read_manifest(path)["inputs"]] == [["batch", FEATURES], ["batch"]]
    session = ot.TrainingSession(path)
    assert float(session.step(x=x[:3], y=y[:3])["loss"]) > 0


def test_a_result_keeps_its_name_where_a_variable_has_it_too(tmp_path: Path) -> None:
    loss = ot.Variable(1.0, name="loss")
    step = ot.function(lambda x: {"loss": loss.assign_add(x), "x": x})
    path = step.export(tmp_path / "artifact", np.float32(2))
    manifest = read_manifest(path)
    assert manifest["outputs"][0]["name"] == "loss"
    assert manifest["state"][0]["name"] == "loss.state"
    session = ot.TrainingSession(path)
    assert float(session.step(x=np.float32(2))["loss"]) == 3
    assert float(session.state_dict()["loss.state"]) == 3
    assert float(step(np.float32(2))["loss"]) == 3


def test_a_number_that_changed_is_an_input_of_the_artifact(tmp_path: Path) -> None:
    total = ot.Variable(0.0, name="total")

    @ot.function
    def step(x: Any, rate: float) -> Any:
        return {"total": total.assign_add(ot.ops.sum(x) * rate)}

    for rate in (0.5, 0.25):
        step(np.float32([1, 1]), rate)
    session = ot.TrainingSession(step.export(tmp_path / "artifact"))
    found = session.step(x=np.float32([1, 1, 1]), rate=2)
    assert {name: float(value) for name, value in found.items()} == {"total": 1.0 + 0.5 + 6.0}


def test_exporting_again_replaces_an_artifact_and_nothing_else(tmp_path: Path) -> None:
    training = Training(dropout=0.0)
    path = export(training, tmp_path / "artifact", model=training.model)
    first = ot.TrainingSession(path).state_dict()
    training.run(batches(2))
    assert export(training, path) == path
    assert not (path / "inference.onnx").exists()
    second = ot.TrainingSession(path).state_dict()
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="exists and is not an artifact"):
        export(training, tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"


def test_a_step_that_needs_its_sizes_is_exported_for_them_and_says_so(tmp_path: Path) -> None:
    total = ot.Variable(0.0)

    @ot.function
    def step(x: Any) -> Any:
        total.assign_add(sum((x[i] for i in range(x.shape[0])), 0.0))
        return {"total": total.value}

    with pytest.warns(UserWarning, match=r"exported for the shapes \(3,\) only") as caught:
        path = step.export(tmp_path / "artifact", np.float32([1, 2, 3]))
    assert caught[0].filename == __file__
    assert read_manifest(path)["inputs"][0]["shape"] == [3]
    with pytest.raises(TracingError, match="size of dimension 'batch' is not known"):
        step.export(tmp_path / "artifact", ot.TensorSpec((None,)))


def _shape_in(path: Path) -> Any:
    return read_manifest(path)["inputs"][0]["shape"]


@pytest.mark.parametrize("given", [(), (np.ones((4, 10), np.float32),)])
def test_sizes_that_have_varied_are_free_in_the_artifact(given: Any, tmp_path: Path) -> None:
    step = ot.function(lambda x: {"sums": ot.ops.sum(x, axis=1)})
    step(np.ones((4, 10), np.float32))
    assert _shape_in(step.export(tmp_path / "one", *given)) == ["batch", 10]
    step(np.ones((2, 12), np.float32))
    path = step.export(tmp_path / "two", *given)
    assert _shape_in(path) == ["batch", "x_1"]
    (found,) = ot.TrainingSession(path).step(x=np.ones((3, 7), np.float32)).values()
    np.testing.assert_array_equal(found, np.full(3, 7.0))
    # Whoever wants one length says so.
    signed = step.export(tmp_path / "three", ot.TensorSpec((None, 10)))
    assert _shape_in(signed) == ["batch", 10]


def test_a_size_that_has_varied_but_is_needed_is_kept_and_said(tmp_path: Path) -> None:
    step = ot.function(lambda x: {"sum": sum(x[:, i] for i in range(x.shape[1]))})
    step(np.ones((4, 3), np.float32))
    step(np.ones((4, 2), np.float32))
    with pytest.warns(
        UserWarning, match=r"for the shapes \(batch, 2\) only: the size of dimension"
    ):
        path = step.export(tmp_path / "artifact")
    assert _shape_in(path) == ["batch", 2]


def test_a_rate_that_a_schedule_makes_cannot_be_set(tmp_path: Path) -> None:
    schedule = ot.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    weight, optimizer = ot.Variable(1.0), ot.optimizers.Adam(schedule)

    @ot.function
    def step(x: Any) -> None:
        optimizer.apply([x], [weight])

    session = ot.TrainingSession(step.export(tmp_path / "artifact", np.float32(1)))
    with pytest.raises(InputError, match="this step computes its learning rate, by a schedule"):
        session.set_state("adam/learning_rate", 1e-4)


def test_a_step_that_cannot_be_traced_cannot_be_exported(tmp_path: Path) -> None:
    step = ot.function(lambda x: x if x > 0 else -x)
    with pytest.raises(TracingError, match=r"ops\.where"):
        step.export(tmp_path / "artifact", np.float32(1))
    assert step.fallback_reason is None


def test_a_subclassed_model_is_exported_after_it_was_called(tmp_path: Path) -> None:
    class Twice(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = ot.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return {"logits": self.dense(x), "probabilities": ot.ops.softmax(self.dense(x))}

    model = Twice()

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(ot.ops.square(model(x)["logits"]))
        for g, v in zip(tape.gradient(loss, model.weights), model.weights, strict=True):
            v.assign_sub(0.1 * g)
        return {"loss": loss}

    x = np.ones((3, 4), np.float32)
    step(x)
    path = step.export(tmp_path / "artifact", model=model)
    session = ot.TrainingSession(path)
    session.export_inference(tmp_path / "model.onnx")
    inference = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = inference.run(None, {inference.get_inputs()[0].name: x})
    expected = model(x)
    for array, name in zip(found, ("logits", "probabilities"), strict=True):
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)


def test_the_artifact_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    """Nothing of the process (addresses, hash seeds, times) gets into the files."""
    program = textwrap.dedent(
        """
        import sys
        from tests.frontend.test_export import *
        training = Training()
        training.restart_masks()
        export(training, Path(sys.argv[1]), model=training.model)
        """
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, tmp_path / seed],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            check=True,
        )
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes(), file.name


def test_a_target_that_is_no_class_is_called_so_from_the_artifact(tmp_path: Path) -> None:
    training = Training()
    path = export(training, tmp_path / "artifact")
    x, y = batches(1)[0]
    y[3] = CLASSES
    session = ot.TrainingSession(path)
    before = session.state_dict()
    said = (
        r"^The training step failed: sparse_categorical_crossentropy: Out of range: a target is "
        rf"none of the {CLASSES} classes \(counted from 0\) of predictions \(batch, {CLASSES}\)\n"
        r"  at .*training.py:\d+ in layer '.+'$"
    )
    with pytest.raises(ExecutionError, match=said):
        session.step(x=x, y=y)
    assert all(np.array_equal(value, before[name]) for name, value in session.state_dict().items())


def test_masks_in_artifacts_are_for_every_provider(tmp_path: Path) -> None:
    """Not the steep HardSigmoid of CPU sessions, which others compute wrongly."""
    v = ot.Variable(np.array([-1, 0, 0.5, 2], np.float32))

    @ot.function
    def step() -> ot.Tensor:
        with ot.GradientTape() as tape:
            y = ot.ops.sum(ot.ops.relu(v))
        v.assign_sub(tape.gradient(y, v))
        return y

    step()
    step.export(tmp_path / "artifact")
    graph = onnx.load(tmp_path / "artifact" / "training.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert "HardSigmoid" not in operators
    assert {"Clip", "Ceil"} <= set(operators)
    session = ot.TrainingSession(tmp_path / "artifact")
    session.step()
    (trained,) = session.state_dict().values()
    np.testing.assert_array_equal(trained, np.array([-1, 0, -0.5, 0], np.float32))
