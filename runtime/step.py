"""Running a compiled step: buffers bound once, state kept on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from onnxtape.runtime.batch_parts import BatchParts
from onnxtape.runtime.blocks import BoundBlock
from onnxtape.runtime.denormals import flushing
from onnxtape.runtime.devices import CPU, Device, copy, duplicate, input_devices, is_on
from onnxtape.runtime.session import execution_error
from onnxtape.runtime.shares import Shares
from onnxtape.runtime.values import bindings, ort_device


class StateCell(Protocol):
    """Where a state entry's value lives between steps; several steps may share a cell."""

    def current(self) -> Any:
        """The OrtValue that holds the value now."""

    def exclusive(self) -> Any:
        """`current()`, moved first if need be, so that overwriting it disturbs nobody else."""

    def is_exclusive(self) -> bool:
        """Whether nobody else holds the memory of `current()`."""

    def replace(self, value: Any) -> None:
        """Make `value` the current one."""


class StateBinding:
    """How a state entry is bound: read only, in place, or between two buffers.

    Attributes:
        device: where its memory is.
        resident: whether the session reads it there; else it is copied whenever it is bound.
    """

    __slots__ = (
        "bound",
        "cell",
        "device",
        "in_place",
        "input_name",
        "output_name",
        "resident",
        "spare",
    )

    def __init__(
        self, cell: StateCell, input_name: str, output_name: str | None, *, in_place: bool
    ) -> None:
        self.cell = cell
        self.input_name = input_name
        self.output_name = output_name
        self.in_place = in_place
        self.device = CPU
        self.resident = True
        self.bound: Any = None
        self.spare: Any = None

    def located(self, value: Any) -> Any:
        """The cell's value, which is moved to the device if it lies elsewhere."""
        if value is not self.bound and not is_on(value, self.device):
            value = copy(value, self.device)
            self.cell.replace(value)
        return value


class CompiledStep:
    """A session together with its bound state.

    State lives where the session reads it, and values that come from another device are moved there
    once. Results are made, and stay, on `device`.

    Args:
        session: an `onnxruntime.InferenceSession` of the step's graph. Entries may be bound in
            place only if the session keeps to an order that makes this safe.
        inputs: names of the batch inputs.
        results: names of the outputs that are handed back.
        state: the state entries, but for those in blocks.
        blocks: state that the step updates in blocks, and the blocks of temporary values.
        device: of the results.
        shares: updates of blocks that run after the session.
        parts: what runs before the session, which takes what they have made.
    """

    def __init__(
        self,
        session: Any,
        inputs: Sequence[str],
        results: Sequence[str],
        state: Sequence[StateBinding],
        blocks: Sequence[BoundBlock] = (),
        device: Device = CPU,
        shares: Shares | None = None,
        parts: BatchParts | None = None,
    ) -> None:
        self.session = session
        self._inputs = list(inputs)
        taken = {value.name for value in session.get_inputs()}
        self._fed = [(i, name) for i, name in enumerate(inputs) if name in taken]
        self._results = list(results)
        self._read_only = [s for s in state if s.output_name is None]
        self._in_place = [s for s in state if s.output_name is not None and s.in_place]
        self._alternating = [s for s in state if s.output_name is not None and not s.in_place]
        self._blocks = list(blocks)
        self._shares = shares
        self._parts = parts
        places = input_devices(session)
        for entry in state:
            place = places.get(entry.input_name, CPU)
            entry.device, entry.resident = place or CPU, place is not None
        self._copied = [s for s in (*self._read_only, *self._in_place) if not s.resident]
        self._io = bindings().SessionIOBinding(session._sess)
        self._run = flushing(session._sess.run_with_iobinding)
        self._device = ort_device(*device)
        #: The order of `get_outputs()`: outputs in the order in which they were first bound.
        for name in self._results:
            self._io.bind_output(name, self._device)
        if parts is not None:
            for name, value in parts.made.items():
                self._io.bind_ortvalue_input(name, value)

    @property
    def in_place_count(self) -> int:
        """How many state entries are updated in their own buffer."""
        return len(self._in_place) + sum(len(b.block.cells) for b in self._blocks)

    def rebind(self) -> None:
        """Bind the state as it is now; needed before `run` whenever a cell may have changed."""
        io = self._io
        for entry in self._read_only:
            value = entry.located(entry.cell.current())
            if value is not entry.bound:
                io.bind_ortvalue_input(entry.input_name, value)
                entry.bound = value
        for entry in self._in_place:
            value = entry.located(entry.cell.exclusive())
            if value is not entry.bound:
                io.bind_ortvalue_input(entry.input_name, value)
                io.bind_ortvalue_output(entry.output_name, value)
                entry.bound = value
        for block in self._blocks:
            block.rebind(io)
        if self._shares is not None:
            self._shares.rebind()

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run one step on OrtValues, update the state, and return the results as OrtValues.

        Raises:
            ExecutionError: an operator failed at run time.
        """
        io = self._io
        if self._parts is not None:
            self._parts.run(inputs)
        for i, name in self._fed:
            io.bind_ortvalue_input(name, inputs[i])
        for entry in self._copied:
            io.bind_ortvalue_input(entry.input_name, entry.bound)
        for entry in self._alternating:
            value = entry.located(entry.cell.current())
            if entry.spare is None:
                entry.spare = duplicate(value)
            io.bind_ortvalue_input(entry.input_name, value)
            io.bind_ortvalue_output(entry.output_name, entry.spare)
        for name in self._results:
            io.bind_output(name, self._device)
        try:
            self._run(io, None)
        except Exception as error:
            raise execution_error(error, "the step failed") from None
        if self._shares is not None:
            self._shares.run()
        for entry in self._alternating:
            old = entry.cell.current() if entry.cell.is_exclusive() else None
            entry.cell.replace(entry.spare)
            entry.bound, entry.spare = entry.spare, old
        outputs = io.get_outputs()
        return [outputs[i] for i in range(len(self._results))]
