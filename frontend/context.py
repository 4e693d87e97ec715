"""What goes on in this thread: the trace being built, the tapes recording, the layer running."""

from __future__ import annotations

import linecache
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxtape.compiler import errors as compiler_errors
from onnxtape.compiler.errors import Phase, Provenance
from onnxtape.runtime import errors as runtime_errors
from onnxtape.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from types import FrameType

    from onnxtape.devices import Place
    from onnxtape.symbolic import SymbolicContext
    from onnxtape.tape import GradientTape
    from onnxtape.tensor import Tensor
    from onnxtape.trainable import ReadFlags
    from onnxtape.variable import Variable


class Readings(Protocol):
    """What variables gave while a block ran, and give again while it is recomputed."""

    replaying: bool

    def read(self, variable: Variable, tensor: Tensor) -> Tensor: ...


class _State(threading.local):
    def __init__(self) -> None:
        self.symbolic: SymbolicContext | None = None
        self.tapes: list[GradientTape] = []
        self.layers: list[str] = []
        self.phase: Phase = "forward"
        # What `ot.device` has set.
        self.place: Place | None = None
        # What the layer that is called reads its weights in, under mixed precision.
        self.autocast: np.dtype[Any] | None = None
        # Set while a variable's initial value is made: see `random`.
        self.initializing = False
        # Of the blocks being recorded for recomputation, or recomputed; outermost first.
        self.readings: list[Readings] = []
        # What it means when indices are out of range: see `out_of_range_means`.
        self.out_of_range = ""
        # Set while gradient rules run: their nodes stem from the forward node's place.
        self.origin: Provenance | None = None
        # Set while a saved model is made again: how many bytes of weights it may have.
        self.weight_budget: WeightBudget | None = None
        # Set while a step is traced: the `trainable` flags that it depends on.
        self.flags: ReadFlags | None = None


class WeightBudget:
    """What the weights of a model may take together that is made of a file's configuration.

    They begin as zeros, since the file holds their values.

    Args:
        size: in bytes.
        source: the file.
    """

    def __init__(self, size: int, source: str) -> None:
        self._left = size
        self._source = source

    def take(self, name: str, shape: Sequence[int], itemsize: int) -> None:
        """Count a weight.

        Raises:
            CheckpointError: there is no place left for it.
        """
        self._left -= math.prod(shape) * itemsize
        if self._left < 0:
            raise CheckpointError(
                f"{self._source} is damaged: by its configuration, weight '{name}' has shape "
                f"{tuple(shape)}, and all of them more numbers than there are in the file."
            )


class Numerics:
    """What `debugging.enable_check_numerics` sets."""

    check = False


state = _State()


@contextmanager
def entered(symbolic: SymbolicContext | None) -> Iterator[None]:
    """Send operations to `symbolic`, or run them eagerly where it is None."""
    previous, state.symbolic = state.symbolic, symbolic
    try:
        yield
    finally:
        state.symbolic = previous


@contextmanager
def eagerly() -> Iterator[None]:
    """Run operations at once and unrecorded, whatever is going on around."""
    symbolic, tapes = state.symbolic, state.tapes
    state.symbolic, state.tapes = None, []
    try:
        yield
    finally:
        state.symbolic, state.tapes = symbolic, tapes


@contextmanager
def initializing() -> Iterator[None]:
    """Make a variable's initial value: eagerly, with random numbers of a stream of its own."""
    previous, state.initializing = state.initializing, True
    try:
        with eagerly():
            yield
    finally:
        state.initializing = previous


@contextmanager
def in_layer(name: str) -> Iterator[None]:
    """Name the layer whose operations follow."""
    state.layers.append(name)
    try:
        yield
    finally:
        state.layers.pop()


@contextmanager
def in_phase(phase: Phase) -> Iterator[None]:
    """Mark the operations that follow as part of `phase`."""
    previous, state.phase = state.phase, phase
    try:
        yield
    finally:
        state.phase = previous


@contextmanager
def out_of_range_means(sentence: str) -> Iterator[None]:
    """Note what it means when the operations within, or their gradients, meet an index out of range
    in a compiled step."""
    previous, state.out_of_range = state.out_of_range, sentence
    try:
        yield
    finally:
        state.out_of_range = previous


_ROOMS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep
    # NumPy too: what it asks of a tensor, the user's line asked of it.
    for file in (__file__, compiler_errors.__file__, runtime_errors.__file__, np.__file__)
)
_own_files: dict[str, bool] = {}


def _is_own(filename: str) -> bool:
    own = _own_files.get(filename)
    if own is None:
        library = filename.startswith("<frozen") or filename == contextmanager.__code__.co_filename
        own = _own_files[filename] = library or filename.startswith(_ROOMS)
    return own


def user_place() -> tuple[str, int]:
    """The file and line of the nearest frame outside this package."""
    frame = _user_frame()
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def _user_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_own(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line, once where Python shows warnings once."""
    frame = _user_frame()
    registry = {} if frame is None else frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, *user_place(), registry=registry)


def user_source() -> str:
    """The text of the user's line."""
    file, line = user_place()
    return linecache.getline(file, line).strip()


def provenance() -> Provenance:
    """Where the operation being emitted comes from."""
    if state.origin is not None:
        return state.origin
    file, line = user_place()
    return Provenance(
        shown_path(file),
        line,
        "/".join(state.layers),
        state.phase,
        out_of_range=state.out_of_range,
    )


_shown: dict[str, str] = {}


def shown_path(file: str) -> str:
    """`file` relative to the working directory where it lies below, else its bare name.

    Artifacts carry these paths, so they must not tell where the user's home is.
    """
    shown = _shown.get(file)
    if shown is None:
        shown = file
        if file and not file.startswith("<"):
            try:
                relative = os.path.relpath(file)
            except ValueError:  # another drive
                relative = ".."
            shown = os.path.basename(file) if relative.startswith("..") else relative
        _shown[file] = shown
    return shown
