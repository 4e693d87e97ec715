"""Elementwise arithmetic, comparison and logic, with NumPy's broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.dtypes import FLOAT32, is_float, result_type
from onnxtape.engine import B, convert_to_tensor
from onnxtape.tensor import Tensor

_BOOL = np.dtype(bool)


def operands(*xs: Any, floating: bool = False) -> list[Tensor]:
    """The operands as tensors of their common dtype (a floating-point one, if `floating`)."""
    numbers = [x for x in xs if isinstance(x, (int, float)) and not isinstance(x, np.generic)]
    tensors = [
        None
        if isinstance(x, (int, float)) and not isinstance(x, np.generic)
        else convert_to_tensor(x)
        for x in xs
    ]
    dtypes = [t.dtype for t in tensors if t is not None]
    dtype = dtypes[0] if dtypes and not numbers and len(set(dtypes)) == 1 else None
    if dtype is None:
        dtype = result_type(dtypes, numbers)
    if floating and not is_float(dtype):
        dtype = FLOAT32
    return [
        B.scalar(x, dtype) if t is None else (t if t.dtype == dtype else B.cast(t, dtype))
        for x, t in zip(xs, tensors, strict=True)
    ]


def _numeric(*xs: Any) -> list[Tensor]:
    """Operands for arithmetic, which ONNX does not have for booleans."""
    tensors = operands(*xs)
    if tensors[0].dtype == _BOOL:
        return [B.cast(t, np.dtype(np.int32)) for t in tensors]
    return tensors


def add(x1: Any, x2: Any) -> Tensor:
    """x1 + x2."""
    return B.op("Add", *_numeric(x1, x2))


def subtract(x1: Any, x2: Any) -> Tensor:
    """x1 - x2."""
    return B.op("Sub", *_numeric(x1, x2))


def multiply(x1: Any, x2: Any) -> Tensor:
    """x1 * x2."""
    return B.op("Mul", *_numeric(x1, x2))


def divide(x1: Any, x2: Any) -> Tensor:
    """x1 / x2, in floating point."""
    return B.op("Div", *operands(x1, x2, floating=True))


true_divide = divide


def floor_divide(x1: Any, x2: Any) -> Tensor:
    """The largest integer not above x1 / x2, in the operands' dtype."""
    x, y = _numeric(x1, x2)
    if is_float(x.dtype):
        return B.op("Floor", B.op("Div", x, y))
    # ONNX truncates; Python rounds down.
    return B.op("Div", B.op("Sub", x, B.op("Mod", x, y)), y)


def mod(x1: Any, x2: Any) -> Tensor:
    """The remainder with the sign of x2, as Python's %."""
    x, y = _numeric(x1, x2)
    if is_float(x.dtype):
        return B.op("Sub", x, B.op("Mul", B.op("Floor", B.op("Div", x, y)), y))
    return B.op("Mod", x, y)


def power(x1: Any, x2: Any) -> Tensor:
    """x1 ** x2."""
    return B.op("Pow", *_numeric(x1, x2))


def maximum(x1: Any, x2: Any) -> Tensor:
    """The larger of the two; tied elements share the gradient."""
    return B.op("Max", *_numeric(x1, x2))


def minimum(x1: Any, x2: Any) -> Tensor:
    """The smaller of the two; tied elements share the gradient."""
    return B.op("Min", *_numeric(x1, x2))


def clip(x: Any, x_min: Any, x_max: Any) -> Tensor:
    """x, no less than x_min and no more than x_max."""
    if all(isinstance(bound, (int, float)) for bound in (x_min, x_max)):
        t = convert_to_tensor(x)
        low, high = (B.scalar(bound, t.dtype) for bound in (x_min, x_max))
        return B.op("Clip", t, low, high)
    return minimum(maximum(x, x_min), x_max)


def where(condition: Any, x1: Any, x2: Any) -> Tensor:
    """x1 where the condition holds, x2 elsewhere."""
    chosen = convert_to_tensor(condition, bool)
    return B.op("Where", chosen, *operands(x1, x2))


def negative(x: Any) -> Tensor:
    """-x."""
    return B.op("Neg", *_numeric(x))


def absolute(x: Any) -> Tensor:
    """|x|."""
    return B.op("Abs", *_numeric(x))


abs = absolute


def sign(x: Any) -> Tensor:
    """-1, 0 or 1."""
    return B.op("Sign", *_numeric(x))


def _unary(op_type: str, x: Any) -> Tensor:
    return B.op(op_type, *operands(x, floating=True))


def floor(x: Any) -> Tensor:
    """The largest integer not above x."""
    return _unary("Floor", x)


def ceil(x: Any) -> Tensor:
    """The smallest integer not below x."""
    return _unary("Ceil", x)


def round(x: Any, decimals: int = 0) -> Tensor:
    """x to the nearest multiple of 10**-decimals, halves to even."""
    if decimals == 0:
        return _unary("Round", x)
    scale = 10.0**decimals
    return divide(_unary("Round", multiply(x, scale)), scale)


def sqrt(x: Any) -> Tensor:
    """The square root."""
    return _unary("Sqrt", x)


def rsqrt(x: Any) -> Tensor:
    """1 / sqrt(x)."""
    return _unary("Reciprocal", sqrt(x))


def square(x: Any) -> Tensor:
    """x * x."""
    (t,) = _numeric(x)
    return B.op("Mul", t, t)


def reciprocal(x: Any) -> Tensor:
    """1 / x."""
    return _unary("Reciprocal", x)


def exp(x: Any) -> Tensor:
    """e ** x."""
    return _unary("Exp", x)


def expm1(x: Any) -> Tensor:
    """e ** x - 1, exact for small x: 2 sinh(x/2) e^(x/2)."""
    half = multiply(x, 0.5)
    return multiply(multiply(sinh(half), exp(half)), 2.0)


def log(x: Any) -> Tensor:
    """The natural logarithm."""
    return _unary("Log", x)


def log2(x: Any) -> Tensor:
    """The logarithm to base 2."""
    return multiply(log(x), 1.0 / math.log(2.0))


def log10(x: Any) -> Tensor:
    """The logarithm to base 10."""
    return multiply(log(x), 1.0 / math.log(10.0))


def log1p(x: Any) -> Tensor:
    """log(1 + x), exact for small x: 2 artanh(x / (2 + x))."""
    return multiply(arctanh(divide(x, add(x, 2.0))), 2.0)


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


# Comparison and logic ---------------------------------------------------------------------------


def equal(x1: Any, x2: Any) -> Tensor:
    """x1 == x2, elementwise."""
    return B.op("Equal", *operands(x1, x2))


def not_equal(x1: Any, x2: Any) -> Tensor:
    """x1 != x2, elementwise."""
    return B.op("Not", equal(x1, x2))


def less(x1: Any, x2: Any) -> Tensor:
    """x1 < x2, elementwise."""
    return B.op("Less", *_numeric(x1, x2))


def less_equal(x1: Any, x2: Any) -> Tensor:
    """x1 <= x2, elementwise."""
    return B.op("LessOrEqual", *_numeric(x1, x2))


def greater(x1: Any, x2: Any) -> Tensor:
    """x1 > x2, elementwise."""
    return B.op("Greater", *_numeric(x1, x2))


def greater_equal(x1: Any, x2: Any) -> Tensor:
    """x1 >= x2, elementwise."""
    return B.op("GreaterOrEqual", *_numeric(x1, x2))


def logical_and(x1: Any, x2: Any) -> Tensor:
    """Whether both hold."""
    return B.op("And", convert_to_tensor(x1, bool), convert_to_tensor(x2, bool))


def logical_or(x1: Any, x2: Any) -> Tensor:
    """Whether one of them holds."""
    return B.op("Or", convert_to_tensor(x1, bool), convert_to_tensor(x2, bool))


def logical_xor(x1: Any, x2: Any) -> Tensor:
    """Whether exactly one of them holds."""
    return B.op("Xor", convert_to_tensor(x1, bool), convert_to_tensor(x2, bool))


def logical_not(x: Any) -> Tensor:
    """Whether x does not hold."""
    return B.op("Not", convert_to_tensor(x, bool))


def _bitwise(logical: str, bitwise: str, x1: Any, x2: Any) -> Tensor:
    x, y = operands(x1, x2)
    return B.op(logical if x.dtype == _BOOL else bitwise, x, y)


def bitwise_and(x1: Any, x2: Any) -> Tensor:
    """The bits set in both; on booleans, logical_and."""
    return _bitwise("And", "BitwiseAnd", x1, x2)


def bitwise_or(x1: Any, x2: Any) -> Tensor:
    """The bits set in either; on booleans, logical_or."""
    return _bitwise("Or", "BitwiseOr", x1, x2)


def bitwise_xor(x1: Any, x2: Any) -> Tensor:
    """The bits set in one of them; on booleans, logical_xor."""
    return _bitwise("Xor", "BitwiseXor", x1, x2)


def isnan(x: Any) -> Tensor:
    """Whether an element is a NaN."""
    return _unary("IsNaN", x)


def isinf(x: Any) -> Tensor:
    """Whether an element is an infinity."""
    return _unary("IsInf", x)


def isfinite(x: Any) -> Tensor:
    """Whether an element is neither."""
    return B.op("Not", B.op("Or", isnan(x), isinf(x)))


def cast(x: Any, dtype: npt.DTypeLike) -> Tensor:
    """x with another element type; a float becomes an int by truncation."""
    return convert_to_tensor(x, dtype)


def stop_gradient(x: Any) -> Tensor:
    """x, through which no gradient flows."""
    t = convert_to_tensor(x)
    # Another object: a tape knows tensors by identity, so it has never seen this one.
    if t._symbolic is not None:
        passed = Tensor._from_symbol(t._symbol, t._symbolic)
    elif t._ort is not None:
        passed = Tensor._from_ort(t._ort)
        # Holds what it aliases, so that no step writes into it.
        passed._history = t
    else:
        passed = Tensor(t.numpy())
    return passed


__all__ = [
    name
    for name, thing in list(globals().items())
    if callable(thing)
    and not name.startswith("_")
    and name not in ("Any", "Tensor", "convert_to_tensor", "is_float", "result_type", "operands")
]
