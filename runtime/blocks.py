"""State in blocks: many variables in one piece of memory, and a step's views of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.devices import fetch
from onnxtape.runtime.values import bindings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxtape.runtime.step import StateCell

#: Bytes; a processor's cache line.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Views:
    """What one session sees of a block.

    Attributes:
        members: names of the inputs that are the block's members, as far as the graph has them;
            None in the place of the others.
        results: outputs that are written into the block: name, first element, shape.
        inputs: inputs that are slices, as one row: name, first element, end.
        outputs: such outputs.
        pairs: such inputs as two rows.
    """

    members: Sequence[str | None]
    results: Sequence[tuple[str, int, tuple[int, ...]]] = ()
    inputs: Sequence[tuple[str, int, int]] = ()
    outputs: Sequence[tuple[str, int, int]] = ()
    pairs: Sequence[tuple[str, int, int]] = ()


@dataclass(eq=False)
class Block:
    """float32 memory that state cells share; several steps may use one block.

    The cells are moved into memory of the block's own; whenever one is found elsewhere, or is held
    by somebody else too, all are moved on, so that nobody's snapshot of the old values changes. It
    is NumPy's memory, which asks Linux for huge pages where there is much of it: of a perceptron
    with 64 x 2048 x 2048, 3 % of a step.

    Attributes:
        size: the number of elements.
        cells: the state; none for a block of temporary values.
        starts: the element that each cell's value begins at.
    """

    size: int
    cells: Sequence[StateCell] = ()
    starts: Sequence[int] = ()
    flat: NDArray[Any] | None = None
    values: list[Any] = field(default_factory=list)

    def ready(self) -> NDArray[Any]:
        """The memory, holding the cells' values; another array than last time if it has moved."""
        if self.flat is None or any(
            cell.current() is not value or not cell.is_exclusive()
            for cell, value in zip(self.cells, self.values, strict=True)
        ):
            self._move()
        assert self.flat is not None
        return self.flat

    def _move(self) -> None:
        raw = np.zeros(self.size * 4 + _ALIGNMENT, np.uint8)
        offset = -raw.ctypes.data % _ALIGNMENT
        self.flat = raw[offset : offset + self.size * 4].view(np.float32)
        self.values = []
        for cell, start in zip(self.cells, self.starts, strict=True):
            old = fetch(cell.current())
            self.flat[start : start + old.size] = old.reshape(-1)
            value = view_of(self.flat, start, old.shape)
            cell.replace(value)
            self.values.append(value)


class BoundBlock:
    """A block as one step has it bound."""

    def __init__(self, block: Block, views: Views) -> None:
        self.block = block
        self._views = views
        self._bound: NDArray[Any] | None = None

    def rebind(self, io: Any) -> None:
        """Bind the block's views if it has moved."""
        flat = self.block.ready()
        if flat is self._bound:
            return
        for name, value in zip(self._views.members, self.block.values, strict=True):
            if name is not None:
                io.bind_ortvalue_input(name, value)
        for name, start, shape in self._views.results:
            io.bind_ortvalue_output(name, view_of(flat, start, shape))
        for name, start, end in self._views.inputs:
            io.bind_ortvalue_input(name, view_of(flat, start, (1, end - start)))
        for name, start, end in self._views.pairs:
            io.bind_ortvalue_input(name, view_of(flat, start, (2, (end - start) // 2)))
        for name, start, end in self._views.outputs:
            io.bind_ortvalue_output(name, view_of(flat, start, (1, end - start)))
        self._bound = flat


def view_of(flat: NDArray[Any], start: int, shape: tuple[int, ...]) -> Any:
    """An OrtValue that is a part of an array's memory, and keeps that alive."""
    size = int(np.prod(shape, dtype=np.int64))
    part = flat[start : start + size].reshape(shape)
    # By DLPack: an OrtValue made of a NumPy array would not hold the array.
    return bindings().OrtValue.from_dlpack(part.__dlpack__())
