"""What NumPy asks of complex numbers, for real ones: tensors hold no others."""

from __future__ import annotations

import math
from typing import Any

from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.promotion import BOOL, operands
from onnxtape.ops.special import signbit
from onnxtape.tensor import Tensor

__all__ = ["angle", "conj", "conjugate", "imag", "isreal", "real"]


def real(x: Any) -> Tensor:
    """The real part: x."""
    return convert_to_tensor(x)


def imag(x: Any) -> Tensor:
    """The imaginary part: zeros."""
    return B.full_like(convert_to_tensor(x), 0)


def conj(x: Any) -> Tensor:
    """The complex conjugate: x."""
    return convert_to_tensor(x)


conjugate = conj


def isreal(x: Any) -> Tensor:
    """True everywhere."""
    return B.full_like(convert_to_tensor(x), 1, BOOL)


def angle(x: Any) -> Tensor:
    """The angle in the complex plane: 0, or pi where x is negative."""
    (t,) = operands(x, floating=True)
    half_turn, none = B.scalar(math.pi, t.dtype), B.scalar(0.0, t.dtype)
    return B.op("Where", B.op("IsNaN", t), t, B.op("Where", signbit(t), half_turn, none))
