"""Evaluating with an artifact: losses and metrics over batches, with a state from training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxtape.runtime.artifact import Artifact, initial_value, read_artifact
from onnxtape.runtime.batches import BatchReader
from onnxtape.runtime.denormals import flushing
from onnxtape.runtime.errors import ArtifactError, InputError
from onnxtape.runtime.manifest import TensorEntry
from onnxtape.runtime.providers import Providers
from onnxtape.runtime.session import create_session, execution_error
from onnxtape.runtime.totals import Totals
from onnxtape.runtime.values import copy_from_numpy, from_numpy, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: ONNX Runtime's values, by graph input.
Values: TypeAlias = dict[str, Any]


class EvaluationSession:
    """Runs the evaluation step of an artifact; the state it is given stays as it is.

    Metrics begin anew with `start`, and go on from one `step` to the next.

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
        session = create_session(source.evaluation, providers)
        self._run_session = flushing(session._sess.run_with_ort_values)
        self._batch = BatchReader(entry.inputs)
        # Runs only read them; the artifact's own may be from the middle of an epoch.
        self._initial = {
            e.input: copy_from_numpy(initial_value(e)) for e in entry.state if e.role == "metric"
        }
        self._state: Values | None = None

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
        self._state = self.taken(state)

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
        if self._state is None:
            raise InputError("Call start(state) before the first step.")
        return self._run_batch(self._state, self._batch.read(batch))

    def evaluate(
        self, state: Mapping[str, NDArray[Any]], batches: Iterable[Mapping[str, Any]]
    ) -> dict[str, NDArray[Any]]:
        """Evaluate several batches at once, apart from those between `start` and `step`.

        Args:
            state: as for `start`.
            batches: each a dict of one array per batch input.

        Returns:
            The results by name. Metrics are those of all batches; other results are means over
            the samples; those with a row for each sample are joined.

        Raises:
            InputError: there is no batch, or results cannot be joined; and as for `start` and
                `step`.
            TypeError: a batch is no dict.
            ExecutionError: ONNX Runtime failed.
        """
        return self.run(self.taken(state), batches)

    # For sessions that train ----------------------------------------------------------------------

    def taken(self, state: Mapping[str, NDArray[Any]]) -> Values:
        """Copies of what an evaluation reads of a state, by graph input; metrics begin."""
        needed = [e for e in self._entry.state if e.input not in self._initial]
        if missing := [e.name for e in needed if e.name not in state]:
            raise InputError(f"The state to evaluate with has no entry {missing[0]!r}.")
        return {**self._initial, **{e.input: copy_from_numpy(state[e.name]) for e in needed}}

    def run(self, state: Values, batches: Iterable[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        """`evaluate` with what `taken` gave."""
        totals = Totals(self.outputs, self._entry.accumulated)
        for batch in batches:
            arrays = self._batch.read(self._named(batch))
            totals.add(self._run_batch(state, arrays), next((len(a) for a in arrays if a.ndim), 1))
        return totals.results()

    def _named(self, batch: Any) -> Mapping[str, Any]:
        if isinstance(batch, Mapping):
            return batch
        inputs = ", ".join(f'"{entry.name}": ...' for entry in self.inputs)
        raise TypeError(
            f"evaluate takes batches by the names of their inputs, {{{inputs}}}, not "
            f"{type(batch).__name__}"
        )

    def _run_batch(self, state: Values, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on one batch; in `state`, what is carried gets its new value."""
        feeds = {
            entry.name: from_numpy(array) for entry, array in zip(self.inputs, arrays, strict=True)
        }
        carried = [e for e in self._entry.state if e.output is not None]
        wanted = [e.name for e in self.outputs] + [e.output for e in carried]
        try:
            values = list(self._run_session({**feeds, **state}, wanted, None))
        except Exception as error:
            raise execution_error(error, "The evaluation failed", self._entry.failures) from error
        count = len(self.outputs)
        state.update(zip((e.input for e in carried), values[count:], strict=True))
        return {
            entry.name: to_numpy(value)
            for entry, value in zip(self.outputs, values[:count], strict=True)
        }
