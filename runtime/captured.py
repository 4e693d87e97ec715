"""A step that a provider records once and replays from then on, as CUDA does with its graphs.

What is replayed reads and writes the addresses that were recorded. So nothing moves here: the batch
is copied into buffers that stay, state is updated in place, and results are copied out of buffers
that stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import getrefcount
from typing import Any, TypeAlias

from onnxtape.runtime.buffers import allocate
from onnxtape.runtime.devices import Device, copy, duplicate
from onnxtape.runtime.providers import Providers, load_onnxruntime, resolve_providers
from onnxtape.runtime.session import execution_error
from onnxtape.runtime.step import CompiledStep, StateBinding

#: What has a fixed address: dtype and shape by name.
Fixed: TypeAlias = Mapping[str, tuple[str, Sequence[int]]]

_OPTION = "enable_cuda_graph"
#: The references to an entry's value while only the entry holds it, and it is counted.
_OURS = 2


class CapturedStep(CompiledStep):
    """A `CompiledStep` whose inputs, state and results keep their addresses.

    ONNX Runtime runs a graph several times on the first call, to warm up and to record it. A
    training step must not: so the state is put back after the first call, and the recorded step is
    run once.

    Args:
        session: of a graph that needs no provider but one, with fixed shapes.
        inputs: the batch inputs.
        results: the outputs that are handed back.
        state: the state entries; each is read only or in place.
        device: where all of it is.

    Attributes:
        recordings: how often it was recorded.
    """

    recordings = 0

    def __init__(
        self,
        session: Any,
        inputs: Fixed,
        results: Fixed,
        state: Sequence[StateBinding],
        device: Device,
    ) -> None:
        super().__init__(session, list(inputs), list(results), state, device=device)
        if self._alternating:
            raise ValueError("every state entry of a captured step is updated in place")
        self._home = device
        self._input_buffers = {n: allocate(*spec, device) for n, spec in inputs.items()}
        self._result_buffers = {n: allocate(*spec, device) for n, spec in results.items()}
        for name, buffer in self._input_buffers.items():
            self._io.bind_ortvalue_input(name, buffer)
        for name, buffer in self._result_buffers.items():
            self._io.bind_ortvalue_output(name, buffer)
        # What names the recording that is replayed; None before there is one.
        self._recording: Any = None

    def rebind(self) -> None:
        """Bring the state as it is now to where the step reads it."""
        for entry in (*self._read_only, *self._in_place):
            changes = entry.output_name is not None
            value = entry.located(entry.cell.exclusive() if changes else entry.cell.current())
            if value is entry.bound:
                continue
            if entry.bound is not None and getrefcount(entry.bound) <= _OURS:
                copy(value, self._home, into=entry.bound)
                if changes:
                    entry.cell.replace(entry.bound)
                continue
            # Somebody holds what was there: it is left to them, and the step recorded anew.
            self._io.bind_ortvalue_input(entry.input_name, value)
            if changes:
                self._io.bind_ortvalue_output(entry.output_name, value)
            entry.bound = value
            self._recording = None

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        for name, value in zip(self._inputs, inputs, strict=True):
            copy(value, self._home, into=self._input_buffers[name])
        try:
            if self._recording is None:
                self._record()
            self._run(self._io, self._recording)
        except Exception as error:
            raise execution_error(error, "the step failed") from None
        return [duplicate(buffer) for buffer in self._result_buffers.values()]

    def _record(self) -> None:
        self.recordings += 1
        options = load_onnxruntime().RunOptions()
        # Each recording has a number of its own, by which it is replayed.
        options.add_run_config_entry("gpu_graph_id", str(self.recordings))
        before = [duplicate(entry.bound) for entry in self._in_place]
        self._run(self._io, options)
        for entry, value in zip(self._in_place, before, strict=True):
            copy(value, self._home, into=entry.bound)
        self._recording = options


def wants_capture(providers: Providers) -> bool:
    """Whether the provider that is wanted most is asked to record steps and replay them."""
    _, options = resolve_providers(providers)[0]
    return options.get(_OPTION, "0").lower() in ("1", "true")


def without_capture(providers: Providers) -> Providers:
    """The same providers, not asked to record anything."""
    return [
        (name, {key: value for key, value in options.items() if key != _OPTION})
        for name, options in resolve_providers(providers)
    ]
