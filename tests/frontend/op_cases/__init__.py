"""The table of operations' cases: one module per family, as in `frontend/ops`."""

from __future__ import annotations

from tests.frontend.op_cases import (
    arithmetic,
    creation,
    elementary,
    indexing,
    linear,
    logic,
    nn,
    reductions,
    shapes,
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
    *reductions.CASES,
]

__all__ = ["CASES", "Case", "Given"]
