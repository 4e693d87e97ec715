"""Assignments that happen at some steps only, in eager mode and in compiled steps alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from onnxtape.engine import B
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


def assign_if(condition: Tensor, variables: Iterable[Variable], update: Callable[[], None]) -> None:
    """Run `update`, which assigns some of `variables`, if the condition holds.

    In a compiled step it runs in any case, and where the condition does not hold, the variables
    keep the values that they had.
    """
    known = B.constant_value(condition)
    if known is not None:
        if known:
            update()
        return
    before = [(v, v.value) for v in dict.fromkeys(variables)]
    update()
    for variable, old in before:
        new = variable.value
        if new is not old:
            variable.assign(B.op("Where", condition, new, old))


def every(steps: int, count: Tensor) -> Tensor:
    """Whether counting on from `count` gives a multiple of `steps`."""
    if steps == 1:
        return B.constant(np.True_)
    return B.op("Equal", B.op("Mod", B.op("Add", count, 1), steps), 0)
