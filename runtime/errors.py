"""The kinds of mistake that running a graph can meet, one class each."""

from __future__ import annotations


class OnnxtapeRuntimeError(RuntimeError):
    """Base of every error that `onnxtape.runtime` raises on purpose."""


class ProviderError(OnnxtapeRuntimeError):
    """ONNX Runtime, or the execution provider that was asked for, is not there."""


class ProviderFallbackWarning(UserWarning):
    """An execution provider that was asked for is not used, but one that was named after it."""


class ArtifactError(OnnxtapeRuntimeError, ValueError):
    """A folder is not an artifact, or not an intact one."""


class CheckpointError(OnnxtapeRuntimeError, ValueError):
    """A state file cannot be read, or holds the state of something else."""


class InputError(OnnxtapeRuntimeError, ValueError):
    """A value handed to a graph has the wrong name, dtype or shape."""


class ExecutionError(OnnxtapeRuntimeError):
    """ONNX Runtime refused to load a graph, or failed while running it."""


class NumericsError(OnnxtapeRuntimeError, FloatingPointError):
    """A result or a new state holds a NaN or an infinity."""
