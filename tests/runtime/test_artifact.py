"""Artifacts: what is written, what is read back, and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from onnxtape.runtime import artifact as artifact_module
from onnxtape.runtime.artifact import InferenceGraph, read_artifact, write_artifact
from onnxtape.runtime.errors import ArtifactError, CheckpointError
from onnxtape.runtime.manifest import Manifest, StateEntry, TensorEntry

Edit = Callable[[dict[str, Any]], object]


def edit_manifest(folder: Path, edit: Edit) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_artifact(folder)
    return str(caught.value)


def test_the_folder(artifact_path: Path, regression: Any) -> None:
    files = {file.name: file.read_bytes() for file in artifact_path.iterdir()}
    assert sorted(files) == [
        "inference.onnx",
        "manifest.json",
        "state.safetensors",
        "training.onnx",
    ]
    onnx.checker.check_model(onnx.load_from_string(files["training.onnx"]), full_check=True)
    content = json.loads(files.pop("manifest.json"))
    assert content["format"] == "onnxtape-artifact"
    assert content["format_version"] == 1
    assert content["producer"].startswith("onnxtape")
    assert content["opset"] == 21
    assert content["inputs"][0] == {"name": "x", "dtype": "float32", "shape": ["batch", 4]}
    assert content["outputs"][0] == {"name": "loss", "dtype": "float32", "shape": []}
    assert content["state"][4] == {
        "name": "learning_rate",
        "input": "learning_rate",
        "output": None,
        "dtype": "float32",
        "shape": [],
        "role": "optimizer",
    }
    assert [entry["name"] for entry in content["inference"]["inputs"]] == ["x"]
    assert content["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in files.items()
    }
    # Read without the code under test, the state is what was given.
    state = load_file(artifact_path / "state.safetensors")
    for name, value in regression.initial_state().items():
        np.testing.assert_array_equal(state[name], value)
        assert state[name].dtype == value.dtype


def test_round_trip(artifact_path: Path, regression: Any) -> None:
    artifact = read_artifact(str(artifact_path))
    assert artifact.manifest.inputs == regression.inputs
    assert artifact.manifest.outputs == regression.outputs
    assert artifact.manifest.state == regression.entries
    assert artifact.training == artifact_path / "training.onnx"
    assert artifact.inference == artifact_path / "inference.onnx"
    np.testing.assert_array_equal(
        artifact.initial_state()["generator"], regression.initial_state()["generator"]
    )
    assert Manifest.from_json(artifact.manifest.to_json()) == artifact.manifest


def test_without_inference(tmp_path: Path, regression: Any) -> None:
    artifact = regression.write(tmp_path / "a", inference=None)
    assert artifact.manifest.inference is None
    assert artifact.inference is None
    assert read_artifact(tmp_path / "a") == artifact
    assert not (tmp_path / "a" / "inference.onnx").exists()


# Writing


def test_overwriting_replaces_the_whole_folder(tmp_path: Path, regression: Any) -> None:
    regression.write(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    regression.write(tmp_path / "a", inference=None)
    assert sorted(os.listdir(tmp_path / "a")) == [
        "manifest.json",
        "state.safetensors",
        "training.onnx",
    ]
    assert os.listdir(tmp_path) == ["a"]


def test_an_empty_folder_and_new_parents_are_fine(tmp_path: Path, regression: Any) -> None:
    (tmp_path / "empty").mkdir()
    regression.write(tmp_path / "empty")
    regression.write(tmp_path / "new" / "parents" / "a")
    read_artifact(tmp_path / "empty")
    read_artifact(tmp_path / "new" / "parents" / "a")


def test_what_is_not_an_artifact_is_not_replaced(tmp_path: Path, regression: Any) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    (folder / "manifest.json").write_text('{"name": "web app"}')
    file = tmp_path / "file"
    file.write_text("text")
    for path in (folder, file):
        with pytest.raises(ArtifactError, match="exists and is not an artifact, so it is not"):
            regression.write(path)
    assert (folder / "thesis.txt").read_text() == "years"
    assert file.read_text() == "text"
    assert sorted(os.listdir(tmp_path)) == ["file", "precious"]


@pytest.mark.skipif(os.name == "nt", reason="makes symbolic links")
def test_a_link_stays_a_link(tmp_path: Path, regression: Any) -> None:
    regression.write(tmp_path / "v1")
    (tmp_path / "latest").symlink_to("v1")
    regression.write(tmp_path / "latest", inference=None)
    assert (tmp_path / "latest").is_symlink()
    assert read_artifact(tmp_path / "v1").manifest.inference is None


@pytest.mark.parametrize("at", ["save_state", "sync", "_verified_manifest"])
def test_a_failing_write_leaves_the_old_artifact(
    tmp_path: Path, regression: Any, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    regression.write(tmp_path / "a")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(artifact_module, at, fail)
    for name in ("a", "b"):
        with pytest.raises(OSError, match="no space left"):
            regression.write(tmp_path / name, inference=None)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a"]
    assert read_artifact(tmp_path / "a").manifest.inference is not None


def test_a_failing_rename_puts_the_old_artifact_back(
    tmp_path: Path, regression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    regression.write(tmp_path / "a")
    rename = Path.rename
    calls = 0

    def fail_second(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="disk gone"):
        regression.write(tmp_path / "a", inference=None)
    assert os.listdir(tmp_path) == ["a"]
    assert read_artifact(tmp_path / "a").manifest.inference is not None


def test_state_that_does_not_fit(tmp_path: Path, regression: Any) -> None:
    state = regression.initial_state()
    state["kernel"] = state["kernel"].astype(np.float64)
    with pytest.raises(CheckpointError, match=r"kernel is float64\[4, 1\]"):
        regression.write(tmp_path / "a", state=state)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"outputs": (*"ab",), "results": ["loss"]},
            "The outputs of training.onnx are .*; the manifest says",
        ),
        ({"results": ["loss", "kernel"]}, "results and state entries .* different names.*'kernel'"),
        ({"results": ["loss", "kernel_new"]}, "outputs of training.onnx .*'kernel_new'"),
        ({"batch": ["x", "kernel"]}, "inputs of training.onnx .*'kernel'"),
        ({"batch": ["x"]}, "The inputs of training.onnx are"),
        ({"opset": -1}, "'opset' in manifest.json must be a whole number, not -1"),
    ],
)
def test_descriptions_that_contradict_the_models(
    tmp_path: Path, regression: Any, change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {}
    if "results" in change:
        arguments["outputs"] = [TensorEntry(name, "float32", ()) for name in change["results"]]
    if "batch" in change:
        arguments["inputs"] = [TensorEntry(name, "float32", ()) for name in change["batch"]]
    if "opset" in change:
        arguments["opset"] = change["opset"]
    with pytest.raises(ArtifactError, match=message):
        regression.write(tmp_path / "a", **arguments)
    assert os.listdir(tmp_path) == []


def test_inference_model_with_an_undescribed_input(tmp_path: Path, regression: Any) -> None:
    graph = InferenceGraph(regression.inference_model(), [], regression.inference_outputs)
    with pytest.raises(ArtifactError, match="that are not state are x; the manifest says none"):
        regression.write(tmp_path / "a", inference=graph)


def test_repeated_state_entries(tmp_path: Path, regression: Any) -> None:
    twice = StateEntry("kernel", "k2", None, "float32", (4, 1), "parameter")
    with pytest.raises(ArtifactError, match=r"state entries must all have different.*'kernel'"):
        regression.write(tmp_path / "a", state_entries=(*regression.entries, twice))


# Reading what is wrong


def test_no_artifact_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").startswith("There is no artifact folder")
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").endswith("file is a file; an artifact is a folder.")
    assert refusal(tmp_path).endswith("is not an artifact: it holds no manifest.json.")


@pytest.mark.parametrize("name", ["training.onnx", "inference.onnx", "state.safetensors"])
def test_damaged_files(artifact_path: Path, name: str) -> None:
    file = artifact_path / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    size = len(whole)
    assert f"{name} was cut short: it has {size - 7} bytes, and the manifest says {size}." in (
        refusal(artifact_path)
    )
    file.write_bytes(whole + b"1234")
    assert f"{name} has grown: it has {size + 4} bytes" in refusal(artifact_path)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"{name} was changed after the artifact was written" in refusal(artifact_path)
    file.unlink()
    assert f"The file {name} is missing." in refusal(artifact_path)
    file.write_bytes(whole)
    read_artifact(artifact_path)


def test_a_lying_size_is_found_without_reading_the_file(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (artifact_path / "state.safetensors").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no space
    read = []
    monkeypatch.setattr(artifact_module, "sha256_of", lambda *_: read.append(_))
    monkeypatch.setattr(artifact_module, "_verify_models", lambda *_: read.append(_))

    def state_first(manifest: dict[str, Any]) -> None:
        files = manifest["files"]
        manifest["files"] = {"state.safetensors": files["state.safetensors"], **files}

    edit_manifest(artifact_path, state_first)
    assert "state.safetensors has grown: it has 1099511627776 bytes" in refusal(artifact_path)
    assert read == []


def test_state_file_of_another_model(artifact_path: Path) -> None:
    def change_shape(manifest: dict[str, Any]) -> None:
        manifest["state"][0]["shape"] = [5, 1]

    edit_manifest(artifact_path, change_shape)
    assert "kernel is float32[4, 1], the model has float32[5, 1]" in refusal(artifact_path)


def test_bad_json(artifact_path: Path) -> None:
    manifest = artifact_path / "manifest.json"
    whole = manifest.read_text(encoding="utf-8")
    for text in ("", "{", whole[:-10], "[" * 100_000, '{"a": 1, "a": 2}', "\x00"):
        manifest.write_text(text, encoding="utf-8")
        assert "manifest.json is not valid JSON" in refusal(artifact_path)
    manifest.write_bytes(b"\xff\xfe\xfd")
    assert "manifest.json is not valid JSON" in refusal(artifact_path)
    for text in ("[]", "3", "{}", '{"format": "zip"}'):
        manifest.write_text(text, encoding="utf-8")
        assert 'does not say "format": "onnxtape-artifact"' in refusal(artifact_path)


def test_huge_manifest(artifact_path: Path) -> None:
    with (artifact_path / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    assert "more than 67108864 are not read" in refusal(artifact_path)


def test_newer_format(artifact_path: Path) -> None:
    edit_manifest(artifact_path, lambda m: m.update(format_version=2, producer="onnxtape 9.1"))
    message = refusal(artifact_path)
    assert "format_version 2, and this onnxtape reads up to 1" in message
    assert "'onnxtape 9.1': `pip install --upgrade onnxtape`" in message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.pop("opset"), "manifest.json has no 'opset'."),
        (lambda m: m.update(opset="21"), "'opset' in manifest.json must be a whole number"),
        (lambda m: m.update(opset=True), "must be a whole number, not true"),
        (lambda m: m.update(format_version=None), "'format_version' in manifest.json must be"),
        (lambda m: m.update(inputs={}), "'inputs' in manifest.json must be a list, not {}"),
        (lambda m: m.update(inputs=[3]), "item 0 of 'inputs' in manifest.json must be an object"),
        (lambda m: m["inputs"][1].pop("name"), "item 1 of 'inputs' in manifest.json has no 'name'"),
        (lambda m: m["inputs"][0].update(name=""), "must be a text"),
        (lambda m: m["inputs"][0].update(dtype="float"), "must be one of float32, uint8, "),
        (lambda m: m["inputs"][0].update(dtype=["float32"]), 'not ["float32"]'),
        (lambda m: m["inputs"][0].update(shape=[-1]), "must be a whole number, not -1"),
        (lambda m: m["inputs"][0].update(shape=[1.5]), "must be a whole number, not 1.5"),
        (lambda m: m["state"][0].update(shape=["n"]), "item 0 of 'shape' in item 0 of 'state'"),
        (lambda m: m["state"][0].update(role="weight"), "must be one of parameter, buffer, "),
        (lambda m: m["state"][0].update(output=3), "must be a text, not 3"),
        (lambda m: m["state"].append(m["state"][0]), "different names; used more than once: 'ker"),
        (lambda m: m.update(inference=[]), "'inference' in manifest.json must be an object"),
        (lambda m: m.update(inference=None), 'lists the file inference.onnx, but says "inference"'),
        (lambda m: m["files"].pop("training.onnx"), "does not list the file training.onnx"),
        (lambda m: m["files"]["training.onnx"].update(sha256="abc"), "not 64 hexadecimal digits"),
        (lambda m: m["files"]["training.onnx"].update(size=-3), "must be a whole number, not -3"),
        (
            lambda m: m["files"].update({"x": 3}),
            "'x' in 'files' in manifest.json must be an object",
        ),
    ],
)
def test_schema(artifact_path: Path, edit: Edit, message: str) -> None:
    edit_manifest(artifact_path, edit)
    assert message in refusal(artifact_path)


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "..",
        ".",
        "",
        ".hidden",
        "x.",
        "a\n",
        "\\\\h\\s",
    ],
)
def test_file_names_are_plain(artifact_path: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "size": 1}
    edit_manifest(artifact_path, lambda m: m["files"].update({name: entry}))
    assert "has a plain name and lies in its folder" in refusal(artifact_path)


@pytest.mark.skipif(os.name == "nt", reason="makes symbolic links")
@pytest.mark.parametrize("name", ["training.onnx", "manifest.json"])
def test_links_out_of_the_folder(artifact_path: Path, tmp_path: Path, name: str) -> None:
    (artifact_path / name).rename(tmp_path / "elsewhere")
    (artifact_path / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} is a link that leads out of the folder" in refusal(artifact_path)


def test_a_model_that_is_no_model(tmp_path: Path, regression: Any) -> None:
    for model in (b"", b"garbage", b"\x08\x0a"):
        with pytest.raises(ArtifactError, match="This is not a serialized ONNX model"):
            regression.write(tmp_path / "a", training=model)


def test_write_artifact_is_keyword_only() -> None:
    with pytest.raises(TypeError):
        write_artifact("a", b"")  # type: ignore[misc]
