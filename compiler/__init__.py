"""ONNX graph in, ONNX graph out: building, differentiation and passes. Opens no runtime session."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxtape.compiler.autodiff import backward, differentiate
    from onnxtape.compiler.builder import Builder
    from onnxtape.compiler.errors import (
        CompilerError,
        DtypeError,
        GradientError,
        Provenance,
        ShapeError,
        VerificationError,
    )
    from onnxtape.compiler.graph_builder import GraphBuilder
    from onnxtape.compiler.record import Record
    from onnxtape.compiler.registry import (
        Refusal,
        differentiable_operators,
        gradient,
        refuse,
        zero_gradient,
    )

_HOMES = {
    "autodiff": ("backward", "differentiate"),
    "builder": ("Builder",),
    "errors": (
        "CompilerError",
        "DtypeError",
        "GradientError",
        "Provenance",
        "ShapeError",
        "VerificationError",
    ),
    "graph_builder": ("GraphBuilder",),
    "record": ("Record",),
    "registry": ("Refusal", "differentiable_operators", "gradient", "refuse", "zero_gradient"),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Builder",
    "CompilerError",
    "DtypeError",
    "GradientError",
    "GraphBuilder",
    "Provenance",
    "Record",
    "Refusal",
    "ShapeError",
    "VerificationError",
    "backward",
    "differentiable_operators",
    "differentiate",
    "gradient",
    "refuse",
    "zero_gradient",
]


def __getattr__(name: str) -> Any:
    # onnx_ir costs half a second to import, so nothing is loaded before it is asked for.
    if name in _WHERE:
        return getattr(importlib.import_module(f"onnxtape.compiler.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'onnxtape.compiler' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
