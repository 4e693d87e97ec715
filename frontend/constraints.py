"""What weights are brought back to after each update, with Keras's names and numbers.

An optimizer applies the `constraint` of a variable, which layers take as `kernel_constraint` and
the like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxtape import missing
from onnxtape.engine import B, convert_to_tensor
from onnxtape.lookup import Configurable, by_name, find
from onnxtape.ops.axes import normalized_axes
from onnxtape.tensor import Tensor

#: Keras's, added to norms that are divided by.
_EPSILON = 1e-7


class Constraint(Configurable):
    """A function of a weight that gives its new value. Subclasses write `__call__`."""

    def __call__(self, w: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, w) method")


class MaxNorm(Constraint):
    """Vectors no longer than `max_value`.

    Args:
        axis: the axes that a vector lies along; 0 for the kernel of a Dense layer, [0, 1, 2] for a
            convolution's.
    """

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w: Any) -> Tensor:
        t = convert_to_tensor(w)
        norms = _norms(t, self.axis)
        return _scaled(t, norms, B.op("Min", norms, float(self.max_value)))


class MinMaxNorm(Constraint):
    """Vectors of a length between `min_value` and `max_value`.

    Args:
        rate: how far they are brought there in one update: 1 is all the way.
        axis: see `MaxNorm`.
    """

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ) -> None:
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w: Any) -> Tensor:
        t = convert_to_tensor(w)
        norms = _norms(t, self.axis)
        wanted = B.op("Clip", norms, float(self.min_value), float(self.max_value))
        if self.rate != 1.0:
            kept = B.op("Mul", norms, 1.0 - self.rate)
            wanted = B.op("Add", B.op("Mul", wanted, float(self.rate)), kept)
        return _scaled(t, norms, wanted)


class UnitNorm(Constraint):
    """Vectors of length 1.

    Args:
        axis: see `MaxNorm`.
    """

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Tensor:
        t = convert_to_tensor(w)
        return B.op("Div", t, B.op("Add", _norms(t, self.axis), _EPSILON))


class NonNeg(Constraint):
    """No negative elements: they become 0."""

    def __call__(self, w: Any) -> Tensor:
        return B.op("Relu", convert_to_tensor(w))


max_norm = MaxNorm
min_max_norm = MinMaxNorm
non_neg = NonNeg
unit_norm = UnitNorm

_BY_NAME = by_name((MaxNorm, MinMaxNorm, NonNeg, UnitNorm))


def get(identifier: Any) -> Any:
    """A constraint from its name ("non_neg"), class or configuration, or the function itself."""
    return find(identifier, _BY_NAME, Constraint, "constraint", functions=True)


def _norms(w: Tensor, axis: int | Sequence[int]) -> Tensor:
    rank = B.known_rank(w, "a constraint")
    axes = normalized_axes(axis, rank, "a constraint")
    return B.op("Sqrt", B.op("ReduceSumSquare", w, axes, keepdims=1))


def _scaled(w: Tensor, norms: Tensor, wanted: Tensor) -> Tensor:
    return B.op("Mul", w, B.op("Div", wanted, B.op("Add", norms, _EPSILON)))


if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, globals())
