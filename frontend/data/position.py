"""How far the loop over a dataset has come: what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.data.stages import Stage
from onnxtape.data.structure import Structure


class Position:
    """Walks a pipeline and keeps count; saved and assigned as a variable is.

    As numbers: how many elements of the present pass have been handed out (0 between passes), and
    the state of the shuffles when it began. Not their state now: a prefetching thread may be
    ahead of the loop.
    """

    path = "dataset"
    dtype = np.dtype(np.uint64)

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._to_skip = 0
        self._pass: _Pass | None = None

    def walk(self) -> Iterator[Structure]:
        """The elements of a new pass, or of the rest of one that was restored."""
        present = _Pass(self._stage.position(), self._to_skip)
        self._to_skip = 0
        self._pass = present
        stage = self._stage.skipped(present.drawn) if present.drawn else self._stage
        try:
            for run in stage.runs():
                for element in run:
                    present.drawn += 1
                    yield element
        finally:  # at its end, and when the loop is left
            if self._pass is present:
                self._pass = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(1 + the numbers of the shuffles,)"""
        return (1 + len(self._stage.position()),)

    def numpy(self) -> npt.NDArray[Any]:
        """The position of the pass that began last and goes on; else that of the next one."""
        if self._pass is None:
            return np.array([self._to_skip, *self._stage.position()], self.dtype)
        return np.array([self._pass.drawn, *self._pass.began_at], self.dtype)

    def assign(self, value: npt.NDArray[Any]) -> None:
        """Let the next pass begin at a position. A loop that is under way goes on as it is."""
        self._to_skip, *numbers = value.tolist()
        self._stage.restore(iter(numbers))
        self._pass = None


class _Pass:
    def __init__(self, began_at: list[int], drawn: int) -> None:
        self.began_at = began_at
        self.drawn = drawn
