"""Evaluating with an artifact: losses and metrics over batches, with a state from training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.artifact import Artifact, read_artifact
from onnxtape.runtime.batches import BatchReader
from onnxtape.runtime.dtypes import numpy_dtype
from onnxtape.runtime.errors import ArtifactError, InputError
from onnxtape.runtime.manifest import TensorEntry
from onnxtape.runtime.providers import Providers
from onnxtape.runtime.session import create_session, execution_error
from onnxtape.runtime.values import copy_from_numpy, from_numpy, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray


class EvaluationSession:
    """Runs the evaluation step of an artifact; the state it is given stays as it is.

    Metrics begin at zero with `start`, and go on from one `step` to the next.

    Args:
        artifact: the path of an artifact, or one that `read_artifact` returned.
        providers: where to run; see `resolve_providers`. None is the CPU.

    Raises:
        ArtifactError: the artifact is damaged, or has no evaluation step.
        ExecutionError: ONNX Runtime cannot load the graph.
        ProviderError: a provider is not available.
    """

    def __init__(
        self, artifact: str | os.PathLike[str] | Artifact, providers: Providers = None
    ) -> None:
        source = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
        entry = source.manifest.evaluation
        if entry is None or source.evaluation is None:
            raise ArtifactError(
                f"The artifact {source.path} holds no evaluation step; export it with one: "
                "step.export(path, ..., evaluation=evaluate)."
            )
        self._entry = entry
        self._session = create_session(source.evaluation, providers)._sess
        self._batch = BatchReader(entry.inputs)
        # The artifact's own state may be from the middle of an epoch.
        self._initial = {
            e.name: np.zeros(e.shape, numpy_dtype(e.dtype))
            for e in entry.state
            if e.role == "metric"
        }
        self._state: dict[str, Any] = {}

    @property
    def inputs(self) -> tuple[TensorEntry, ...]:
        """The batch inputs of a step."""
        return self._entry.inputs

    @property
    def outputs(self) -> tuple[TensorEntry, ...]:
        """The results of a step."""
        return self._entry.outputs

    def start(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take a state to evaluate with, and let all metrics forget what they have seen.

        Args:
            state: as `TrainingSession.state_dict` returns it; metrics in it are left aside.

        Raises:
            InputError: an entry is missing.
        """
        given = {**state, **self._initial}
        if missing := [e.name for e in self._entry.state if e.name not in given]:
            raise InputError(f"The state to evaluate with has no entry {missing[0]!r}.")
        self._state = {e.input: copy_from_numpy(given[e.name]) for e in self._entry.state}

    def step(self, /, **batch: Any) -> dict[str, NDArray[Any]]:
        """Evaluate one batch.

        Args:
            **batch: one array per batch input, as for `TrainingSession.step`.

        Returns:
            The results by name; metrics are those of all batches since `start`.

        Raises:
            InputError: `start` has not been called; or a value is missing, unknown, or has the
                wrong dtype or shape.
            ExecutionError: ONNX Runtime failed.
        """
        if not self._state and self._entry.state:
            raise InputError("Call start(state) before the first step.")
        arrays = self._batch.read(batch)
        feeds = {
            entry.name: from_numpy(array) for entry, array in zip(self.inputs, arrays, strict=True)
        }
        carried = [e for e in self._entry.state if e.output is not None]
        wanted = [e.name for e in self.outputs] + [e.output for e in carried]
        try:
            values = list(self._session.run_with_ort_values({**feeds, **self._state}, wanted, None))
        except Exception as error:
            raise execution_error(error, "The evaluation failed", self._entry.failures) from error
        count = len(self.outputs)
        self._state.update(zip((e.input for e in carried), values[count:], strict=True))
        return {
            entry.name: to_numpy(value)
            for entry, value in zip(self.outputs, values[:count], strict=True)
        }
