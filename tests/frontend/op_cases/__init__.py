"""The table of operations' cases: one module per family, as in `frontend/ops`."""

from __future__ import annotations

from tests.frontend.op_cases import (
    adaptive,
    arithmetic,
    arranging,
    convolution,
    creation,
    elementary,
    image,
    indexing,
    linalg,
    linear,
    logic,
    matrices,
    nn,
    normalization,
    pooling,
    reductions,
    shapes,
    sorting,
    special,
    statistics,
)
from tests.frontend.op_cases.case import Case, Given

CASES: list[Case] = [
    *arithmetic.CASES,
    *elementary.CASES,
    *logic.CASES,
    *creation.CASES,
    *shapes.CASES,
    *indexing.CASES,
    *linear.CASES,
    *nn.CASES,
    *normalization.CASES,
    *convolution.CASES,
    *reductions.CASES,
    *pooling.CASES,
    *image.CASES,
    *adaptive.CASES,
    *arranging.CASES,
    *matrices.CASES,
    *sorting.CASES,
    *special.CASES,
    *statistics.CASES,
    *linalg.CASES,
]

__all__ = ["CASES", "Case", "Given"]
