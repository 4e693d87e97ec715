"""Penalties on weights and outputs, with Keras's names, arguments and numbers.

Layers take them as `kernel_regularizer` and the like; what they give is in `model.losses`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape import missing
from onnxtape.engine import B, convert_to_tensor
from onnxtape.lookup import Configurable, by_name, find
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor


class Regularizer(Configurable):
    """A penalty: a function of a tensor that gives a scalar. Subclasses write `__call__`."""

    def __call__(self, x: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, x) method")


class L1L2(Regularizer):
    """l1 * sum(|x|) + l2 * sum(x^2)."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = _strength("l1", l1, 0.0)
        self.l2 = _strength("l2", l2, 0.0)

    def __call__(self, x: Any) -> Tensor:
        t = convert_to_tensor(x)
        if not self.l1:
            return _l2(t, self.l2) if self.l2 else B.scalar(0.0, t.dtype)
        return B.op("Add", _l1(t, self.l1), _l2(t, self.l2)) if self.l2 else _l1(t, self.l1)


class L1(Regularizer):
    """l1 * sum(|x|)."""

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _strength("l1", l1, 0.01)

    def __call__(self, x: Any) -> Tensor:
        return _l1(convert_to_tensor(x), self.l1)


class L2(Regularizer):
    """l2 * sum(x^2)."""

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _strength("l2", l2, 0.01)

    def __call__(self, x: Any) -> Tensor:
        return _l2(convert_to_tensor(x), self.l2)


class OrthogonalRegularizer(Regularizer):
    """factor times the mean absolute cosine between the rows (or columns) of a matrix.

    Args:
        mode: "rows" or "columns".
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise ValueError(f"mode is 'rows' or 'columns', not {mode!r}")
        self.factor = _strength("factor", factor, 0.01)
        self.mode = mode

    def __call__(self, x: Any) -> Tensor:
        t = convert_to_tensor(x)
        shape = B.shape(t)
        by_rows = self.mode == "rows"
        count = None if shape is None or len(shape) != 2 else shape[0 if by_rows else 1]
        if not isinstance(count, int):
            raise refused(f"OrthogonalRegularizer takes a matrix of known size, not {t!r}")
        squares = B.op("ReduceSumSquare", t, [1 if by_rows else 0], keepdims=1)
        # The bound is Keras's, of the norm, and keeps the gradient of a zero row finite.
        unit = B.op("Div", t, B.op("Sqrt", B.op("Max", squares, 1e-14)))
        other = B.op("Transpose", unit, perm=[1, 0])
        cosines = B.op("MatMul", unit, other) if by_rows else B.op("MatMul", other, unit)
        between = B.op("Mul", cosines, 1.0 - np.eye(count, dtype=t.dtype))
        pairs = max(count * (count - 1), 1)
        return _l1(between, self.factor / pairs)


l1 = L1
l2 = L2
l1_l2 = L1L2
orthogonal_regularizer = OrthogonalRegularizer

_BY_NAME = by_name((L1, L2, L1L2, OrthogonalRegularizer))


def get(identifier: Any) -> Any:
    """A regularizer from its name ("l2"), class or configuration, or the function itself."""
    return find(identifier, _BY_NAME, Regularizer, "regularizer", functions=True)


def _l1(x: Tensor, strength: float) -> Tensor:
    return B.op("Mul", B.op("ReduceSum", B.op("Abs", x), keepdims=0), strength)


def _l2(x: Tensor, strength: float) -> Tensor:
    return B.op("Mul", B.op("ReduceSumSquare", x, keepdims=0), strength)


def _strength(name: str, value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is a number, not {value!r}")
    if not (value >= 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} is zero or more, and finite, not {value}")
    return float(value)


if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, globals())
