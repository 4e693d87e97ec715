"""The gradient rules, one module per family of operators; importing this registers them all."""

from onnxtape.compiler.gradients import (
    activations,
    elementwise,
    indexing,
    linear,
    reductions,
    shapes,
    softmax,
)

__all__ = [
    "activations",
    "elementwise",
    "indexing",
    "linear",
    "reductions",
    "shapes",
    "softmax",
]
