"""Runs ONNX graphs on ONNX Runtime: sessions, eager operators, bound steps, artifacts, checkpoints.

Knows nothing of the compiler or the frontend, and needs only onnxruntime, NumPy and safetensors to
train from an artifact. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxtape.runtime.artifact import (
        Artifact,
        EvaluationGraph,
        InferenceGraph,
        read_artifact,
        write_artifact,
    )
    from onnxtape.runtime.checkpoint import check_state, load_state, save_state
    from onnxtape.runtime.eager import EagerExecutor
    from onnxtape.runtime.errors import (
        ArtifactError,
        CheckpointError,
        ExecutionError,
        InputError,
        NumericsError,
        OnnxtapeRuntimeError,
        ProviderError,
    )
    from onnxtape.runtime.evaluation_session import EvaluationSession
    from onnxtape.runtime.manifest import Manifest, StateEntry, TensorEntry
    from onnxtape.runtime.providers import resolve_providers
    from onnxtape.runtime.session import create_session, get_num_threads, set_num_threads
    from onnxtape.runtime.step import CompiledStep
    from onnxtape.runtime.training_session import TrainingSession

_HOMES = {
    "artifact": (
        "Artifact",
        "EvaluationGraph",
        "InferenceGraph",
        "read_artifact",
        "write_artifact",
    ),
    "checkpoint": ("check_state", "load_state", "save_state"),
    "eager": ("EagerExecutor",),
    "errors": (
        "ArtifactError",
        "CheckpointError",
        "ExecutionError",
        "InputError",
        "NumericsError",
        "OnnxtapeRuntimeError",
        "ProviderError",
    ),
    "evaluation_session": ("EvaluationSession",),
    "manifest": ("Manifest", "StateEntry", "TensorEntry"),
    "providers": ("resolve_providers",),
    "session": ("create_session", "get_num_threads", "set_num_threads"),
    "step": ("CompiledStep",),
    "training_session": ("TrainingSession",),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ArtifactError",
    "Artifact",
    "CheckpointError",
    "CompiledStep",
    "EagerExecutor",
    "EvaluationGraph",
    "EvaluationSession",
    "ExecutionError",
    "InferenceGraph",
    "InputError",
    "Manifest",
    "NumericsError",
    "OnnxtapeRuntimeError",
    "ProviderError",
    "StateEntry",
    "TensorEntry",
    "TrainingSession",
    "check_state",
    "create_session",
    "get_num_threads",
    "load_state",
    "read_artifact",
    "resolve_providers",
    "save_state",
    "set_num_threads",
    "write_artifact",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"onnxtape.runtime.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'onnxtape.runtime' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
