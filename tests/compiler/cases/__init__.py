"""The table of gradient cases: one module per family, as in `compiler/gradients`."""

from __future__ import annotations

from tests.compiler.cases import (
    activations,
    attention,
    convolution,
    dropout,
    einsum,
    elementwise,
    images,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reductions,
    sampling,
    scatter,
    shapes,
    signal,
    softmax,
)
from tests.compiler.cases.case import Case, Fixed

CASES: list[Case] = [
    *elementwise.CASES,
    *activations.CASES,
    *linear.CASES,
    *einsum.CASES,
    *reductions.CASES,
    *recurrent.CASES,
    *shapes.CASES,
    *indexing.CASES,
    *scatter.CASES,
    *signal.CASES,
    *softmax.CASES,
    *pooling.CASES,
    *convolution.CASES,
    *attention.CASES,
    *normalization.CASES,
    *dropout.CASES,
    *quantization.CASES,
    *images.CASES,
    *sampling.CASES,
]

__all__ = ["CASES", "Case", "Fixed"]
