"""Artifacts: folders that hold a training step as plain ONNX files and state.

``training.onnx`` has the batch and the state as inputs, the results and the new state as outputs.
``inference.onnx``, where there is one, takes state as inputs named after the state entries;
``evaluation.onnx``, where there is one, gives losses and metrics of a batch for some of the state.
``state.safetensors`` is the state to start from, and ``manifest.json`` describes it all and holds
the size and SHA-256 of each file. Any program that opens ONNX Runtime sessions can train with one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.checkpoint import (
    Spec,
    check_state,
    load_state,
    read_specs,
    save_state,
    specs_of,
)
from onnxtape.runtime.dtypes import numpy_dtype
from onnxtape.runtime.errors import ArtifactError, CheckpointError
from onnxtape.runtime.files import sha256_of, sync, temporary_sibling
from onnxtape.runtime.manifest import (
    EVALUATION_FILE,
    INFERENCE_FILE,
    STATE_FILE,
    TRAINING_FILE,
    EvaluationEntry,
    FileEntry,
    InferenceEntry,
    Manifest,
    StateEntry,
    TensorEntry,
)
from onnxtape.runtime.weights import graph_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MANIFEST_FILE = "manifest.json"
_LARGEST_MANIFEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact on disk, verified when it was read."""

    path: Path
    manifest: Manifest

    @property
    def training(self) -> Path:
        """The file of the training graph."""
        return self.path / TRAINING_FILE

    @property
    def inference(self) -> Path | None:
        """The file of the inference graph, or None."""
        return None if self.manifest.inference is None else self.path / INFERENCE_FILE

    @property
    def evaluation(self) -> Path | None:
        """The file of the evaluation graph, or None."""
        return None if self.manifest.evaluation is None else self.path / EVALUATION_FILE

    def initial_state(self) -> dict[str, NDArray[Any]]:
        """The state to start from, by entry name."""
        return load_state(self.path / STATE_FILE)


@dataclass(frozen=True, slots=True)
class InferenceGraph:
    """An inference model for `write_artifact`.

    Attributes:
        model: a serialized ONNX model, whose inputs are `inputs` and state entries by name.
        inputs: the batch inputs, in the model's order.
        outputs: the results.
    """

    model: bytes
    inputs: Sequence[TensorEntry]
    outputs: Sequence[TensorEntry]


@dataclass(frozen=True, slots=True)
class EvaluationGraph:
    """An evaluation step for `write_artifact`.

    Attributes:
        model: a serialized ONNX model, whose inputs are `inputs` and those of `state`.
        inputs: the batch inputs.
        outputs: the results.
        state: metrics of its own, and entries of the training state by name, with this graph's
            inputs and outputs.
        failures, accumulated: as for `write_artifact`.
    """

    model: bytes
    inputs: Sequence[TensorEntry]
    outputs: Sequence[TensorEntry]
    state: Sequence[StateEntry]
    failures: Mapping[str, str] = field(default_factory=dict)
    accumulated: Sequence[str] = ()


def state_specs(entries: Sequence[StateEntry]) -> dict[str, Spec]:
    """The dtype and shape of each state entry, for `check_state`."""
    return {entry.name: (entry.dtype, entry.shape) for entry in entries}


def initial_value(entry: StateEntry) -> NDArray[Any]:
    """What a metric's entry begins at."""
    return np.full(entry.shape, entry.initial, numpy_dtype(entry.dtype))


def write_artifact(
    path: str | os.PathLike[str],
    *,
    training: bytes,
    inputs: Sequence[TensorEntry],
    outputs: Sequence[TensorEntry],
    state_entries: Sequence[StateEntry],
    state: Mapping[str, NDArray[Any]],
    opset: int,
    inference: InferenceGraph | None = None,
    evaluation: EvaluationGraph | None = None,
    failures: Mapping[str, str] | None = None,
    accumulated: Sequence[str] = (),
) -> Artifact:
    """Write an artifact folder, whole or not at all.

    Everything is written to a hidden folder beside `path`, which is then renamed. An artifact that
    is already there is replaced as a whole.

    Args:
        path: the folder to make; missing parents are made too.
        training: the serialized training model.
        inputs: its batch inputs.
        outputs: its results.
        state_entries: its state.
        state: the array of each state entry.
        opset: the opset version of the default domain that the models are written in.
        inference: the inference model, if there is one.
        evaluation: the evaluation step, if there is one.
        failures: what it means when nodes of the training model fail, by their names.
        accumulated: the results that metrics keep from batch to batch.

    Raises:
        ArtifactError: something other than an artifact is at `path`, names collide, or the models
            have other inputs or outputs than described.
        CheckpointError: `state` does not fit `state_entries`.
        OSError: the files cannot be written.
    """
    check_state(state_specs(state_entries), specs_of(state), source="The state to be written")
    # Following links now makes the rename replace what a link points to, not the link.
    folder = Path(path).resolve()
    if folder.exists():
        _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    models = {TRAINING_FILE: training}
    if inference is not None:
        models[INFERENCE_FILE] = inference.model
    if evaluation is not None:
        models[EVALUATION_FILE] = evaluation.model
    with _replacing_folder(folder) as temporary:
        for name, model in models.items():
            (temporary / name).write_bytes(model)
            sync(temporary / name)
        save_state(temporary / STATE_FILE, state)
        manifest = Manifest(
            producer=_producer(),
            opset=opset,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            state=tuple(state_entries),
            inference=None
            if inference is None
            else InferenceEntry(tuple(inference.inputs), tuple(inference.outputs)),
            files={name: _file_entry(temporary / name) for name in (*models, STATE_FILE)},
            evaluation=None
            if evaluation is None
            else EvaluationEntry(
                tuple(evaluation.inputs),
                tuple(evaluation.outputs),
                tuple(evaluation.state),
                dict(evaluation.failures),
                tuple(evaluation.accumulated),
            ),
            failures=dict(failures or {}),
            accumulated=tuple(accumulated),
        )
        (temporary / _MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        sync(temporary / _MANIFEST_FILE)
        # This holds the writer to everything that a reader will require.
        _verified_manifest(temporary)
    return Artifact(folder, manifest)


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact's manifest, and verify every file and that all of it fits together.

    Raises:
        ArtifactError: there is no artifact, it was written by a newer onnxtape, or one of its
            files is missing, cut short, changed or does not fit the manifest.
    """
    folder = Path(path)
    if not folder.exists():
        raise ArtifactError(f"There is no artifact folder {folder}.")
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; an artifact is a folder.")
    if not (folder / _MANIFEST_FILE).is_file():
        raise ArtifactError(f"{folder} is not an artifact: it holds no {_MANIFEST_FILE}.")
    try:
        return Artifact(folder, _verified_manifest(folder))
    except (ArtifactError, CheckpointError) as error:
        raise ArtifactError(f"The artifact {folder} cannot be used. {error}") from error


def _verified_manifest(folder: Path) -> Manifest:
    manifest = _read_manifest(folder)
    for name, entry in manifest.files.items():
        _verify_file(folder, name, entry)
    _verify_models(folder, manifest)
    check_state(state_specs(manifest.state), read_specs(folder / STATE_FILE), source=STATE_FILE)
    return manifest


def _read_manifest(folder: Path) -> Manifest:
    file = folder / _MANIFEST_FILE
    _require_inside(folder, _MANIFEST_FILE)
    size = file.stat().st_size
    if size > _LARGEST_MANIFEST:
        raise ArtifactError(
            f"{_MANIFEST_FILE} has {size} bytes; more than {_LARGEST_MANIFEST} are not read."
        )
    return Manifest.from_json(file.read_bytes())


def _verify_file(folder: Path, name: str, entry: FileEntry) -> None:
    file = folder / name
    if not file.is_file():
        raise ArtifactError(f"The file {name} is missing.")
    _require_inside(folder, name)
    size = file.stat().st_size
    if size < entry.size:
        raise ArtifactError(
            f"{name} was cut short: it has {size} bytes, and the manifest says {entry.size}."
        )
    if size > entry.size:
        raise ArtifactError(
            f"{name} has grown: it has {size} bytes, and the manifest says {entry.size}."
        )
    if sha256_of(file, entry.size) != entry.sha256:
        raise ArtifactError(
            f"{name} was changed after the artifact was written: its SHA-256 differs from the "
            "manifest's."
        )


def _require_inside(folder: Path, name: str) -> None:
    """A link that leads elsewhere would make the artifact more than its folder."""
    if (folder / name).resolve().parent != folder.resolve():
        raise ArtifactError(f"{name} is a link that leads out of the folder.")


def _verify_step(folder: Path, name: str, step: Manifest | EvaluationEntry) -> None:
    found = graph_names((folder / name).read_bytes())
    _require_names(
        f"inputs of {name}",
        found.inputs,
        [entry.name for entry in step.inputs] + [entry.input for entry in step.state],
    )
    _require_names(
        f"outputs of {name}",
        found.outputs,
        [entry.name for entry in step.outputs]
        + [entry.output for entry in step.state if entry.output is not None],
    )


def _verify_models(folder: Path, manifest: Manifest) -> None:
    _verify_step(folder, TRAINING_FILE, manifest)
    if manifest.evaluation is not None:
        _verify_step(folder, EVALUATION_FILE, manifest.evaluation)
    if manifest.inference is None:
        return
    inference = graph_names((folder / INFERENCE_FILE).read_bytes())
    state = {entry.name for entry in manifest.state}
    _require_names(
        f"inputs of {INFERENCE_FILE} that are not state",
        [name for name in inference.inputs if name not in state],
        [entry.name for entry in manifest.inference.inputs],
    )
    _require_names(
        f"outputs of {INFERENCE_FILE}",
        inference.outputs,
        [entry.name for entry in manifest.inference.outputs],
    )


def _require_names(what: str, found: Sequence[str], described: Sequence[str]) -> None:
    if set(found) != set(described):
        raise ArtifactError(
            f"The {what} are {', '.join(sorted(found)) or 'none'}; the manifest says "
            f"{', '.join(sorted(described)) or 'none'}."
        )


def _require_replaceable(folder: Path) -> None:
    """Only an artifact, of whatever version and state, or an empty folder may be replaced."""
    if folder.is_dir():
        with contextlib.suppress(OSError):
            if not any(folder.iterdir()):
                return
            with (folder / _MANIFEST_FILE).open(encoding="utf-8", errors="replace") as file:
                if '"onnxtape-artifact"' in file.read(4096):
                    return
    raise ArtifactError(
        f"{folder} exists and is not an artifact, so it is not replaced. Choose another path, or "
        "remove it first."
    )


@contextlib.contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Give the block a temporary folder to fill; when it ends well, that becomes `folder`."""
    temporary = temporary_sibling(folder)
    temporary.mkdir()
    try:
        yield temporary
        sync(temporary)
        if folder.exists():
            # No portable call swaps two folders, so the old one steps aside for an instant.
            old = temporary_sibling(folder)
            folder.rename(old)
            try:
                temporary.rename(folder)
            except BaseException:
                old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder.parent)


def _file_entry(file: Path) -> FileEntry:
    size = file.stat().st_size
    return FileEntry(sha256_of(file, size), size)


def _producer() -> str:
    try:
        return f"onnxtape {metadata.version('onnxtape')}"
    except metadata.PackageNotFoundError:
        return "onnxtape"  # run from a source tree that was never installed
