"""Weight decay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from onnxtape.engine import B
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Exclusion:
    """Variables that weight decay leaves alone: some, and those in whose names a pattern occurs."""

    def __init__(self, variables: Iterable[Variable] = (), patterns: Iterable[str] = ()) -> None:
        self._variables = set(variables)
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __contains__(self, variable: Variable) -> bool:
        return variable in self._variables or any(p.search(variable.name) for p in self._patterns)


def decay_weights(
    variables: Iterable[Variable], rate: Tensor, decay_of: Callable[[Variable], float | None]
) -> None:
    """Subtract from each variable its decay (None for none) times the learning rate times itself.

    Not by one product with 1 - decay * rate, which would round a small decay away.
    """
    shares: dict[float, Tensor] = {}
    for variable in variables:
        decay = decay_of(variable)
        if decay is not None:
            if decay not in shares:
                shares[decay] = B.op("Mul", rate, float(decay))
            w, share = variable.value, B.cast(shares[decay], variable.dtype)
            variable.assign(B.op("Sub", w, B.op("Mul", w, share)))
