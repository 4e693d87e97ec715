"""Elementwise arithmetic, with NumPy's broadcasting."""

from __future__ import annotations

from typing import Any

from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.promotion import BOOL, numeric, operands, widened
from onnxtape.tensor import Tensor

__all__ = [
    "abs",
    "absolute",
    "add",
    "ceil",
    "clip",
    "divide",
    "floor",
    "floor_divide",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "negative",
    "power",
    "reciprocal",
    "round",
    "sign",
    "square",
    "subtract",
    "true_divide",
]


def add(x1: Any, x2: Any) -> Tensor:
    """x1 + x2; of booleans, whether either holds."""
    return _or_logical("Add", "Or", *operands(x1, x2))


def subtract(x1: Any, x2: Any) -> Tensor:
    """x1 - x2."""
    return B.op("Sub", *numeric(x1, x2))


def multiply(x1: Any, x2: Any) -> Tensor:
    """x1 * x2; of booleans, whether both hold."""
    return _or_logical("Mul", "And", *operands(x1, x2))


def _or_logical(op_type: str, logical: str, x: Tensor, y: Tensor) -> Tensor:
    """What arithmetic on booleans is in NumPy and Keras."""
    return B.op(logical if x.dtype == BOOL else op_type, x, y)


def divide(x1: Any, x2: Any) -> Tensor:
    """x1 / x2, in floating point."""
    return B.op("Div", *operands(x1, x2, floating=True))


true_divide = divide


def floor_divide(x1: Any, x2: Any) -> Tensor:
    """The largest integer not above x1 / x2, in the operands' dtype."""
    x, y = numeric(x1, x2)
    if not is_float(x.dtype):
        # ONNX truncates; Python rounds down.
        return B.op("Div", B.op("Sub", x, B.op("Mod", x, y)), y)
    # Not Floor(x / y), because x / y may be rounded up to a whole number.
    remainder, wrong = _truncated_remainder(x, y)
    whole = B.op("Round", B.op("Div", B.op("Sub", x, remainder), y))
    floored = B.op("Sub", whole, B.cast(wrong, x.dtype))
    return B.op("Where", B.op("Equal", y, 0.0), B.op("Div", x, y), floored)


def mod(x1: Any, x2: Any) -> Tensor:
    """The remainder with the sign of x2, as Python's %."""
    x, y = numeric(x1, x2)
    if not is_float(x.dtype):
        return B.op("Mod", x, y)
    remainder, wrong = _truncated_remainder(x, y)
    return B.op("Where", wrong, B.op("Add", remainder, y), remainder)


def _truncated_remainder(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """C's fmod, which is exact, and where its sign is not that of y."""
    remainder = B.op("Mod", x, y, fmod=1)
    differs = B.op("Xor", B.op("Less", remainder, 0.0), B.op("Less", y, 0.0))
    return remainder, B.op("And", differs, B.op("Not", B.op("Equal", remainder, 0.0)))


def power(x1: Any, x2: Any) -> Tensor:
    """x1 ** x2.

    Raises:
        ValueError: integers to a negative power.
    """
    x, y = numeric(x1, x2)
    if isinstance(x2, int) and x2 < 0 and not is_float(x.dtype):
        raise ValueError("power: integers have no negative powers; convert them with ops.cast")
    return B.cast(B.op("Pow", widened(x), widened(y)), x.dtype)


def maximum(x1: Any, x2: Any) -> Tensor:
    """The larger of the two; tied elements share the gradient."""
    return _extreme("Max", "Or", x1, x2)


def minimum(x1: Any, x2: Any) -> Tensor:
    """The smaller of the two; tied elements share the gradient."""
    return _extreme("Min", "And", x1, x2)


def _extreme(op_type: str, logical: str, x1: Any, x2: Any) -> Tensor:
    x, y = operands(x1, x2)
    if x.dtype == BOOL:
        return B.op(logical, x, y)
    return B.cast(B.op(op_type, widened(x), widened(y)), x.dtype)


def clip(x: Any, x_min: Any, x_max: Any) -> Tensor:
    """x, no less than x_min and no more than x_max."""
    t, low, high = numeric(x, x_min, x_max)
    if B.shape(low) == () and B.shape(high) == ():
        clipped = B.op("Clip", *map(widened, (t, low, high)))
        return B.cast(clipped, t.dtype)
    return minimum(maximum(t, low), high)


def negative(x: Any) -> Tensor:
    """-x."""
    return B.op("Neg", *numeric(x))


def absolute(x: Any) -> Tensor:
    """|x|."""
    t = convert_to_tensor(x)
    return t if t.dtype == BOOL else B.op("Abs", t)


abs = absolute


def sign(x: Any) -> Tensor:
    """-1, 0 or 1."""
    return B.op("Sign", *numeric(x))


def square(x: Any) -> Tensor:
    """x * x."""
    (t,) = numeric(x)
    return B.op("Mul", t, t)


def reciprocal(x: Any) -> Tensor:
    """1 / x."""
    return B.op("Reciprocal", *operands(x, floating=True))


def floor(x: Any) -> Tensor:
    """The largest integer not above x, in floating point."""
    return B.op("Floor", *operands(x, floating=True))


def ceil(x: Any) -> Tensor:
    """The smallest integer not below x, in floating point."""
    return B.op("Ceil", *operands(x, floating=True))


def round(x: Any, decimals: int = 0) -> Tensor:
    """x to the nearest multiple of 10**-decimals, halves to even, in x's dtype."""
    (t,) = numeric(x)
    if not is_float(t.dtype):
        if decimals >= 0:
            return t
        (rounded,) = operands(t, floating=True)
        return B.cast(_rounded(rounded, decimals), t.dtype)
    return _rounded(t, decimals)


def _rounded(t: Tensor, decimals: int) -> Tensor:
    if decimals == 0:
        return B.op("Round", t)
    # Both ways by a whole power of ten, which is exact.
    scale = 10.0 ** (decimals if decimals > 0 else -decimals)
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return B.op(back, B.op("Round", B.op(there, t, scale)), scale)
