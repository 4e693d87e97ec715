"""What several threads do at the same time before a step's graph: each its part of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.concurrently import run_together
from onnxtape.runtime.denormals import flushing
from onnxtape.runtime.session import execution_error
from onnxtape.runtime.values import bindings, copy_from_numpy, memory_for

if TYPE_CHECKING:
    from onnxtape.runtime.step import StateCell


class BatchParts:
    """A graph that runs once for each part of the batch, at the same time.

    Args:
        session: a session with one thread. Beside batch inputs and state, which it only reads, it
            takes `first`; its outputs have static shapes.
        first: the name of the input that tells a part its first sample, int64 (1,).
        samples: how many samples a part has.
        count: how many parts there are.
        batch: the names of the step's batch inputs, in order.
        cells: the state by the names of inputs.
        names: for each output, by part, the name under which the rest of the step takes it.
    """

    def __init__(
        self,
        session: Any,
        first: str,
        samples: int,
        count: int,
        batch: Sequence[str],
        cells: Mapping[str, StateCell],
        names: Mapping[str, Sequence[str]],
    ) -> None:
        taken = {value.name for value in session.get_inputs()}
        self._batch = [(i, name) for i, name in enumerate(batch) if name in taken]
        self._cells = [(name, cell) for name, cell in cells.items() if name in taken]
        self._bound: list[Any] = [None] * len(self._cells)
        self._ios = [bindings().SessionIOBinding(session._sess) for _ in range(count)]
        #: What the parts write, always to the same memory, by the names that the rest has for it.
        self.made: dict[str, Any] = {}
        for part, io in enumerate(self._ios):
            io.bind_ortvalue_input(first, copy_from_numpy(np.asarray([part * samples])))
            for output in session.get_outputs():
                value = memory_for(output)
                io.bind_ortvalue_output(output.name, value)
                self.made[names[output.name][part]] = value
        run = flushing(session._sess.run_with_iobinding)
        self._runs = [lambda io=io: run(io, None) for io in self._ios]

    def run(self, inputs: Sequence[Any]) -> None:
        """Run all parts on the step's batch inputs and the state as it is now.

        Raises:
            ExecutionError: an operator failed.
        """
        for i, (name, cell) in enumerate(self._cells):
            value = cell.current()
            if value is not self._bound[i]:
                for io in self._ios:
                    io.bind_ortvalue_input(name, value)
                self._bound[i] = value
        for i, name in self._batch:
            for io in self._ios:
                io.bind_ortvalue_input(name, inputs[i])
        try:
            run_together(self._runs)
        except Exception as error:
            raise execution_error(error, "the step failed") from None
