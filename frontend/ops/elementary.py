"""Elementary functions, elementwise, in floating point."""

from __future__ import annotations

import math
from typing import Any

from onnxtape.engine import B
from onnxtape.ops.promotion import operands
from onnxtape.tensor import Tensor

__all__ = [
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "cos",
    "cosh",
    "erf",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "rsqrt",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
]


def _unary(op_type: str, x: Any) -> Tensor:
    return B.op(op_type, *operands(x, floating=True))


def sqrt(x: Any) -> Tensor:
    """The square root."""
    return _unary("Sqrt", x)


def rsqrt(x: Any) -> Tensor:
    """1 / sqrt(x)."""
    return B.op("Reciprocal", sqrt(x))


def exp(x: Any) -> Tensor:
    """e ** x."""
    return _unary("Exp", x)


def expm1(x: Any) -> Tensor:
    """e ** x - 1, exact for small x: tanh(x / 2) (e^x + 1)."""
    (t,) = operands(x, floating=True)
    return B.op("Mul", B.op("Tanh", B.op("Mul", t, 0.5)), B.op("Add", B.op("Exp", t), 1.0))


def log(x: Any) -> Tensor:
    """The natural logarithm."""
    return _unary("Log", x)


def log2(x: Any) -> Tensor:
    """The logarithm to base 2."""
    return B.op("Mul", log(x), 1.0 / math.log(2.0))


def log10(x: Any) -> Tensor:
    """The logarithm to base 10."""
    return B.op("Mul", log(x), 1.0 / math.log(10.0))


def log1p(x: Any) -> Tensor:
    """log(1 + x), exact for small x."""
    (t,) = operands(x, floating=True)
    # What 1 + x lost to rounding, put back to first order; beyond 1 it does not matter.
    near = B.op("Clip", t, -1.0, 1.0)
    sum_ = B.op("Add", near, 1.0)
    lost = B.op("Sub", near, B.op("Sub", sum_, 1.0))
    # Where the sum is 0, nothing was lost, and 0 / 2^-24 says so.
    correction = B.op("Div", lost, B.op("Max", sum_, 2.0**-24))
    return B.op("Add", B.op("Log", B.op("Add", t, 1.0)), correction)


def sin(x: Any) -> Tensor:
    """The sine."""
    return _unary("Sin", x)


def cos(x: Any) -> Tensor:
    """The cosine."""
    return _unary("Cos", x)


def tan(x: Any) -> Tensor:
    """The tangent."""
    return _unary("Tan", x)


def arcsin(x: Any) -> Tensor:
    """The inverse sine."""
    return _unary("Asin", x)


def arccos(x: Any) -> Tensor:
    """The inverse cosine."""
    return _unary("Acos", x)


def arctan(x: Any) -> Tensor:
    """The inverse tangent."""
    return _unary("Atan", x)


def sinh(x: Any) -> Tensor:
    """The hyperbolic sine."""
    return _unary("Sinh", x)


def cosh(x: Any) -> Tensor:
    """The hyperbolic cosine."""
    return _unary("Cosh", x)


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return _unary("Tanh", x)


def arcsinh(x: Any) -> Tensor:
    """The inverse hyperbolic sine."""
    return _unary("Asinh", x)


def arccosh(x: Any) -> Tensor:
    """The inverse hyperbolic cosine."""
    return _unary("Acosh", x)


def arctanh(x: Any) -> Tensor:
    """The inverse hyperbolic tangent."""
    return _unary("Atanh", x)


def erf(x: Any) -> Tensor:
    """The error function."""
    return _unary("Erf", x)
