"""The `trainable` flags of variables and layers, and which of them a trace has read."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onnxtape import context

_state = context.state

#: Where holders keep the flag's value.
_KEY = "_trainable"


class TrainableFlag:
    """An attribute that holds whether its owner is trained. An object has one at most.

    Attributes:
        changes: counts the changes of all flags, so that a step that has run before need not look
            at its own while the count stands still.
    """

    changes = 0
    _numbers = itertools.count(1)

    def __get__(self, holder: Any, owner: type | None = None) -> bool:
        try:
            value: bool = vars(holder)[_KEY]
        except (KeyError, TypeError):
            kind = type(holder) if owner is None else owner
            raise AttributeError(
                f"{kind.__name__} is not initialized: call super().__init__() first"
            ) from None
        if _state.flags is not None:
            _state.flags.read(holder, value)
        return value

    def __set__(self, holder: Any, value: Any) -> None:
        previous = vars(holder).get(_KEY)
        if _state.flags is not None:
            _state.flags.written(holder, is_new=previous is None)
        vars(holder)[_KEY] = bool(value)
        if previous is not None and previous != bool(value):
            TrainableFlag.changes = next(TrainableFlag._numbers)


class ReadFlags:
    """The flags that decided what a trace is: those it read before it set them itself.

    Attributes:
        held_at: `TrainableFlag.changes` when they were last found to be what they were.
    """

    def __init__(self) -> None:
        self.held_at = TrainableFlag.changes
        # Held weakly: a method that is compiled goes with its instance, which may be a layer.
        self._values: dict[int, tuple[weakref.ref[Any], bool] | None] = {}
        self._new: set[int] = set()

    def read(self, holder: Any, value: bool) -> None:
        """Note what a flag was when it was read first."""
        if id(holder) not in self._values:
            self._values[id(holder)] = (weakref.ref(holder), value)

    def written(self, holder: Any, *, is_new: bool) -> None:
        """Note that the trace sets a flag: what it was before does not matter, unless it was read.
        What is made while tracing comes with its flag, and is not made by the next trace."""
        if is_new:
            self._new.add(id(holder))
        elif id(holder) not in self._new:
            self._values.setdefault(id(holder), None)

    def hold(self) -> bool:
        """Whether the flags are now what they were."""
        changes = TrainableFlag.changes
        if self.held_at == changes:
            return True
        for noted in self._values.values():
            holder = None if noted is None else noted[0]()
            if noted is not None and holder is not None and vars(holder)[_KEY] != noted[1]:
                return False
        self.held_at = changes
        return True


@contextmanager
def reads_noted() -> Iterator[ReadFlags]:
    """Note the flags that are read within."""
    previous, flags = _state.flags, ReadFlags()
    _state.flags = flags
    try:
        yield flags
    finally:
        _state.flags = previous
