"""Training with an artifact: everything that a program needs which only trains."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.artifact import Artifact, initial_value, read_artifact, state_specs
from onnxtape.runtime.batches import BatchReader, as_dtype
from onnxtape.runtime.buffers import allocate, read, write
from onnxtape.runtime.checkpoint import check_state, load_state, save_state, specs_of
from onnxtape.runtime.denormals import flushing
from onnxtape.runtime.devices import CPU, fetch, input_devices
from onnxtape.runtime.dtypes import DTYPES, FLOATING, numpy_dtype
from onnxtape.runtime.errors import ArtifactError, InputError, NumericsError
from onnxtape.runtime.evaluation_session import EvaluationSession
from onnxtape.runtime.files import replacing
from onnxtape.runtime.manifest import Manifest, StateEntry, TensorEntry
from onnxtape.runtime.providers import Providers
from onnxtape.runtime.session import create_session, execution_error
from onnxtape.runtime.values import bindings, from_numpy, ort_device, to_numpy
from onnxtape.runtime.weights import graph_names, with_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: So many state entries are listed in an error.
_FEW_ENTRIES = 8


class TrainingSession:
    """Runs the training step of an artifact and keeps its state.

    Each state entry that a step changes has two buffers. A step reads one and writes the other, and
    the next step swaps them, so that no step reads what it writes, and one that fails leaves the
    state as it was. The state stays in ONNX Runtime's memory (on the GPU, with CUDA) between steps.

    Steps of one session run one at a time, from whatever thread they are called.

    Args:
        artifact: the path of an artifact, or one that `read_artifact` returned.
        providers: where to run; see `resolve_providers`. None is the CPU.
        check_numerics: raise `NumericsError` where a step gives a NaN or an infinity, in a result
            or in the new state. Reads every floating value once per step.

    Raises:
        ArtifactError: the artifact is damaged, or its graph is not what its manifest says.
        ExecutionError: ONNX Runtime cannot load the graph.
        ProviderError: a provider is not available.
    """

    def __init__(
        self,
        artifact: str | os.PathLike[str] | Artifact,
        providers: Providers = None,
        *,
        check_numerics: bool = False,
    ) -> None:
        self._artifact = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
        manifest = self._artifact.manifest
        self._providers = providers
        self._check_numerics = check_numerics
        self._evaluation: EvaluationSession | None = None
        self._lock = threading.Lock()
        session = create_session(self._artifact.training, providers)
        _require_described(session, manifest)
        self._session = session._sess
        self._run_session = flushing(self._session.run_with_iobinding)
        self._batch = BatchReader(manifest.inputs)
        self._buffers, self._bound_each_step = _allocate_state(session, manifest.state)
        self._bindings = [self._bind_state(parity) for parity in (0, 1)]
        self._parity = 0
        self._write_state(self._artifact.initial_state())

    @property
    def manifest(self) -> Manifest:
        """What the artifact holds."""
        return self._artifact.manifest

    @property
    def inputs(self) -> tuple[TensorEntry, ...]:
        """The batch inputs of a step."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorEntry, ...]:
        """The results of a step."""
        return self.manifest.outputs

    @property
    def state(self) -> tuple[StateEntry, ...]:
        """The descriptions of the state entries; `state_dict` has their values."""
        return self.manifest.state

    def __repr__(self) -> str:
        takes = ", ".join(f"{e.name}: {e.dtype}{_dimensions(e.shape)}" for e in self.inputs)
        gives = ", ".join(entry.name for entry in self.outputs)
        step = f"step({takes}) -> {gives}; {len(self.state)} state entries"
        return f"<TrainingSession of {self._artifact.path}: {step}>"

    def step(self, /, *unnamed: Any, **batch: Any) -> dict[str, NDArray[Any]]:
        """Run one training step: compute the results, and change the state.

        Args:
            **batch: one array per batch input. An array of the declared dtype is used without a
                copy; other values are converted where that keeps their kind (float64 to float32,
                Python numbers and lists). For a name that is no Python name, `step(**{"a.b": x})`.

        Returns:
            The results by name. The arrays are the caller's; later steps do not change them.

        Raises:
            InputError: a value is missing, unknown, or has the wrong dtype or shape.
            TypeError: a value is given without its name.
            ExecutionError: ONNX Runtime failed. The state is as before the step.
            NumericsError: with `check_numerics`, a NaN or an infinity. The state is as before.
        """
        if unnamed:
            keywords = ", ".join(f"{entry.name}=..." for entry in self.inputs)
            raise TypeError(f"step takes the batch by name: session.step({keywords})")
        with self._lock:
            arrays = self._batch.read(batch)
            binding = self._bindings[self._parity]
            try:
                values = self._run(binding, arrays)
            except Exception as error:
                raise execution_error(
                    error, "The training step failed", self.manifest.failures
                ) from error
            results = {
                entry.name: to_numpy(value)
                for entry, value in zip(self.outputs, values, strict=False)
            }
            if self._check_numerics:
                self._require_finite(results)
            self._parity = 1 - self._parity
            return results

    def evaluate(
        self, batches: Iterable[Mapping[str, Any]] | None = None, /, **batch: Any
    ) -> dict[str, NDArray[Any]]:
        """Run the artifact's evaluation step with the present state, which stays as it is.

        Metrics begin anew; training's stay as they are. Steps in other threads may go on meanwhile.

        Args:
            batches: each a dict of one array per batch input.
            **batch: one batch, instead: one array per batch input.

        Returns:
            The results by name. Metrics are those of all batches; other results are means over
            the samples; those with a row for each sample are joined.

        Raises:
            ArtifactError: the artifact has no evaluation step.
            InputError: there is no batch; a value is missing, unknown, or has the wrong dtype or
                shape; or results cannot be joined.
            TypeError: batches are no dicts, or are given both ways.
            ExecutionError: ONNX Runtime failed.
        """
        if batches is not None and batch:
            raise TypeError("evaluate takes several batches, or one by name, not both")
        with self._lock:
            if self._evaluation is None:
                self._evaluation = EvaluationSession(self._artifact, self._providers)
            state = {name: fetch(pair[self._parity]) for name, pair in self._buffers.items()}
            taken = self._evaluation.taken(state)
        return self._evaluation.run(taken, [batch] if batches is None else batches)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all state entries, by name."""
        with self._lock:
            return {
                entry.name: read(self._buffers[entry.name][self._parity]) for entry in self.state
            }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the whole state.

        Args:
            state: an array for each state entry, of exactly its dtype and shape.

        Raises:
            CheckpointError: entries are missing, unknown or different. Nothing was replaced.
        """
        self._replace_state(state, "The state given to load_state_dict")

    def set_state(self, name: str, value: Any) -> None:
        """Replace one state entry, e.g. a learning rate: `set_state("adam/learning_rate", 1e-4)`.

        Args:
            name: the entry's name.
            value: of the entry's shape; converted to its dtype where that keeps its kind.

        Raises:
            InputError: there is no such entry, or the value has another shape or kind.
        """
        entry = next((entry for entry in self.state if entry.name == name), None)
        if entry is None:
            raise InputError(f"There is no state entry {name!r}; {self._similar_entries(name)}")
        array = as_dtype(value, numpy_dtype(entry.dtype), f"The state entry {name!r}")
        if array.shape != entry.shape:
            raise InputError(
                f"The state entry {name!r} has shape {list(entry.shape)}, and the value given for "
                f"it {list(array.shape)}."
            )
        with self._lock:
            self._write_state({name: array})

    def reset_metrics(self) -> None:
        """Let all metrics forget what they have seen, to begin an epoch."""
        with self._lock:
            self._write_state(
                {entry.name: initial_value(entry) for entry in self.state if entry.role == "metric"}
            )

    def _similar_entries(self, name: str) -> str:
        known = [entry.name for entry in self.state]
        if name.rpartition("/")[2] in ("learning_rate", "lr"):
            rates = [other for other in known if other.rpartition("/")[2] == "learning_rate"]
            if rates:
                return f"the learning rate is {' or '.join(map(repr, rates))}."
            return (
                "this step computes its learning rate, by a schedule or from a constant, so that "
                "it cannot be set: export a step whose optimizer was given a number, such as "
                "Adam(learning_rate=1e-3)."
            )
        if similar := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
            return f"did you mean {' or '.join(map(repr, similar))}?"
        if len(known) <= _FEW_ENTRIES:
            return f"the entries are {', '.join(known)}."
        shown = ", ".join(known[:_FEW_ENTRIES])
        return f"the {len(known)} entries are {shown}, ...: see session.state."

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one safetensors file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        save_state(path, self.state_dict(), {"producer": self.manifest.producer})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace the whole state by what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged, or holds the state of another model.
                Nothing was replaced.
        """
        self._replace_state(load_state(path), f"The state file {os.fspath(path)}")

    def export_inference(self, path: str | os.PathLike[str]) -> None:
        """Write the inference model with the trained weights inside, as one ONNX file.

        Its inputs are the batch inputs alone. It needs nothing of onnxtape to run.

        Raises:
            ArtifactError: the artifact has no inference model, or the file would be 2 GiB or more.
            OSError: the file cannot be written.
        """
        source = self._artifact.inference
        if source is None:
            raise ArtifactError(
                f"The artifact {self._artifact.path} holds no inference model; export it with one: "
                "step.export(path, ..., model=model)."
            )
        model = source.read_bytes()
        read_here = set(graph_names(model).inputs)
        state = self.state_dict()
        weights = {name: array for name, array in state.items() if name in read_here}
        pieces = with_weights(model, weights)
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            file.writelines(pieces)

    def _bind_state(self, parity: int) -> Any:
        """A binding that reads the buffers of one parity and writes those of the other."""
        binding = bindings().SessionIOBinding(self._session)
        # ONNX Runtime gives outputs back in the order of their first binding: results come first.
        for entry in self.outputs:
            binding.bind_output(entry.name, ort_device())
        for state in self.state:
            buffers = self._buffers[state.name]
            binding.bind_ortvalue_input(state.input, buffers[parity])
            if state.output is not None:
                binding.bind_ortvalue_output(state.output, buffers[1 - parity])
        return binding

    def _run(self, binding: Any, arrays: Sequence[NDArray[Any]]) -> Any:
        """Run once on a binding; the values of all outputs, results first."""
        for entry, array in zip(self.inputs, arrays, strict=True):
            # It borrows the array's memory, which `arrays` keeps until the run is over.
            binding.bind_ortvalue_input(entry.name, from_numpy(array))
        for entry in self.outputs:
            # Else the run would write into the memory of the last results, which are the caller's.
            binding.bind_output(entry.name, ort_device())
        for state in self._bound_each_step:
            binding.bind_ortvalue_input(state.input, self._buffers[state.name][self._parity])
        self._run_session(binding, None)
        return binding.get_outputs()

    def _require_finite(self, results: Mapping[str, NDArray[Any]]) -> None:
        values = {f"result {name!r}": array for name, array in results.items()}
        for entry in self.state:
            if entry.output is not None and entry.dtype in FLOATING:
                buffer = self._buffers[entry.name][1 - self._parity]
                values[f"new state {entry.name!r}"] = fetch(buffer)
        bad = [
            what
            for what, array in values.items()
            if array.dtype.name in FLOATING and not np.isfinite(array).all()
        ]
        if bad:
            raise NumericsError(
                f"The step gave NaN or infinity in: {', '.join(bad)}. The state is as before it."
            )

    def _replace_state(self, state: Mapping[str, NDArray[Any]], source: str) -> None:
        arrays = {name: np.asarray(value) for name, value in state.items()}
        check_state(state_specs(self.state), specs_of(arrays), source=source)
        with self._lock:
            self._write_state(arrays)

    def _write_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write checked arrays where the next step reads."""
        for name, array in arrays.items():
            write(self._buffers[name][self._parity], array)


def _dimensions(shape: Sequence[Any]) -> str:
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def _allocate_state(
    session: Any, entries: Sequence[StateEntry]
) -> tuple[dict[str, tuple[Any, Any]], list[StateEntry]]:
    """The two buffers of each entry (one and the same for an entry that steps only read), and the
    entries that a session copies to its own device whenever they are bound."""
    devices = input_devices(session)
    buffers = {}
    bound_each_step = []
    for entry in entries:
        device = devices[entry.input]
        if device is None:
            device = CPU
            bound_each_step.append(entry)
        first = allocate(entry.dtype, entry.shape, device)
        second = first
        if entry.output is not None:
            second = allocate(entry.dtype, entry.shape, device)
        buffers[entry.name] = (first, second)
    return buffers, bound_each_step


def _require_described(session: Any, manifest: Manifest) -> None:
    """Require the loaded graph to have the inputs and outputs that the manifest promises."""
    inputs = {
        **{entry.name: (entry.dtype, entry.shape) for entry in manifest.inputs},
        **{entry.input: (entry.dtype, entry.shape) for entry in manifest.state},
    }
    outputs = {
        **{entry.name: (entry.dtype, entry.shape) for entry in manifest.outputs},
        **{entry.output: (entry.dtype, entry.shape) for entry in manifest.state if entry.output},
    }
    for described, nodes in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        for node in nodes:
            dtype, shape = described[node.name]  # read_artifact has compared the names
            if node.type != DTYPES[dtype].ort or not _may_be(node.shape, shape):
                raise ArtifactError(
                    f"training.onnx has {node.name!r} as {node.type} of shape {node.shape}; the "
                    f"manifest says {dtype} of shape {list(shape)}."
                )


def _may_be(declared: Sequence[Any], shape: Sequence[Any]) -> bool:
    """Whether a graph's declared shape allows a manifest's. ONNX Runtime shows an output whose rank
    it does not know as having no dimensions, so an empty one allows everything."""
    if not declared:
        return True
    return len(declared) == len(shape) and all(
        not isinstance(theirs, int) or not isinstance(ours, int) or theirs == ours
        for theirs, ours in zip(declared, shape, strict=True)
    )
