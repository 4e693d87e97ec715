"""Variables as the runtime sees them, one by one and in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getrefcount
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from onnxtape.runtime.blocks import Block, BoundBlock, Views
from onnxtape.variable import ALONE, Variable

if TYPE_CHECKING:
    from onnxtape.compiler.passes import pieces
    from onnxtape.tracing import TracedStep


class VariableCell:
    """A variable as the runtime's `StateCell`."""

    __slots__ = ("_variable",)

    def __init__(self, variable: Variable) -> None:
        self._variable = variable

    def current(self) -> Any:
        return self._variable._tensor._ort

    def exclusive(self) -> Any:
        # The common case of `Variable._buffer`, inline: it is on the path of every step.
        tensor = self._variable._tensor
        if tensor._array is None and getrefcount(tensor) <= ALONE:
            return tensor._ort
        del tensor
        return self._variable._buffer()

    def is_exclusive(self) -> bool:
        return self._variable._is_exclusive()

    def replace(self, value: Any) -> None:
        self._variable._set(value)


#: The blocks there are: several traces of one step, above all, have the same. A block holds its
#: variables, so that their ids stay theirs as long as it is here.
_blocks: WeakValueDictionary[tuple[Any, ...], Block] = WeakValueDictionary()


def blocks_of(layouts: Sequence[pieces.Block], traced: TracedStep) -> list[Block]:
    """The blocks that the compiler has laid out, holding this step's variables."""
    variables = {e.input_name: v for e, v in zip(traced.state, traced.variables, strict=True)}
    blocks = []
    for layout in layouts:
        members = [variables[name] for name in layout.members]
        starts = list(layout.members.values())
        key = (layout.size, *map(id, members), *starts)
        block = _blocks.get(key) if members else None
        if block is None:
            block = Block(layout.size, [VariableCell(v) for v in members], starts)
            if members:
                _blocks[key] = block
        blocks.append(block)
    return blocks


def bound_blocks(
    layouts: Sequence[pieces.Block], blocks: Sequence[Block], session: Any
) -> list[BoundBlock]:
    """The blocks as one session sees them.

    Args:
        session: the session of the step's graph, or of a share of its updates.
    """
    inputs = {value.name for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    return [
        BoundBlock(
            block,
            Views(
                [name if name in inputs else None for name in layout.members],
                [(name, *place) for name, place in layout.results.items() if name in outputs],
                [view for view in layout.inputs if view[0] in inputs],
                [view for view in layout.outputs if view[0] in outputs],
                [view for view in layout.pairs if view[0] in inputs],
            ),
        )
        for layout, block in zip(layouts, blocks, strict=True)
    ]
