"""The table of gradient cases: one module per family, as in `compiler/gradients`."""

from __future__ import annotations

from tests.compiler.cases import (
    activations,
    elementwise,
    indexing,
    linear,
    reductions,
    shapes,
    softmax,
)
from tests.compiler.cases.case import Case, Fixed

CASES: list[Case] = [
    *elementwise.CASES,
    *activations.CASES,
    *linear.CASES,
    *reductions.CASES,
    *shapes.CASES,
    *indexing.CASES,
    *softmax.CASES,
]

__all__ = ["CASES", "Case", "Fixed"]
