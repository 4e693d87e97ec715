"""The errors a user of onnxtape meets; those of the other rooms are re-exported here."""

from __future__ import annotations

from onnxtape import context
from onnxtape.compiler.errors import CompilerError, DtypeError, GradientError, ShapeError
from onnxtape.runtime.errors import (
    ArtifactError,
    CheckpointError,
    ExecutionError,
    InputError,
    NumericsError,
    OnnxtapeRuntimeError,
    ProviderError,
    ProviderFallbackWarning,
)


class TracingError(RuntimeError):
    """Python asked for something that is only known when the compiled step runs.

    Raised while `ot.function` traces: by `if tensor:`, `float(tensor)`, `tensor.numpy()` and the
    like. With `fallback="eager"` the function warns and runs eagerly instead.

    Attributes:
        what, instead: what happened, and what to write instead.
        file, line: the user's place.
    """

    def __init__(self, what: str, instead: str) -> None:
        self.what = what
        self.instead = instead
        self.file, self.line = context.user_place()
        source = context.user_source()
        place = f"\n  at {context.shown_path(self.file)}:{self.line}" if self.file else ""
        super().__init__(f"{what}{place}{f': {source}' if source else ''}\n  {instead}.")


class DimensionError(TracingError):
    """Python asked for the size of a symbolic dimension."""


class FallbackWarning(UserWarning):
    """A function that was to be compiled runs eagerly instead."""


class InvalidArgumentError(ValueError):
    """An operator refused the values it was given."""


class ModelError(ValueError):
    """A file holds no ONNX model that can be used."""


class VariableError(ValueError):
    """A variable was used where it does not belong, or assigned what does not fit."""


__all__ = [
    "ArtifactError",
    "CheckpointError",
    "CompilerError",
    "DimensionError",
    "DtypeError",
    "ExecutionError",
    "FallbackWarning",
    "GradientError",
    "InputError",
    "InvalidArgumentError",
    "ModelError",
    "NumericsError",
    "OnnxtapeRuntimeError",
    "ProviderError",
    "ProviderFallbackWarning",
    "ShapeError",
    "TracingError",
    "VariableError",
]
