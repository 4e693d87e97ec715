"""Elementwise functions that ONNX has no operator for, made of those that it has."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnxtape.dtypes import is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import clip, maximum, minimum
from onnxtape.ops.creation import cast, stop_gradient
from onnxtape.ops.elementary import log1p
from onnxtape.ops.promotion import numeric, operands
from onnxtape.tensor import Tensor

__all__ = [
    "arctan2",
    "cbrt",
    "deg2rad",
    "divide_no_nan",
    "erfc",
    "erfinv",
    "exp2",
    "fabs",
    "fmax",
    "fmin",
    "fmod",
    "heaviside",
    "hypot",
    "i0",
    "ldexp",
    "logaddexp",
    "logaddexp2",
    "nan_to_num",
    "rad2deg",
    "saturate_cast",
    "signbit",
    "sinc",
    "trunc",
]


def _float(x: Any) -> Tensor:
    return operands(x, floating=True)[0]


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(info.min), float(info.max)


def exp2(x: Any) -> Tensor:
    """2 ** x."""
    t = _float(x)
    return B.op("Pow", B.scalar(2.0, t.dtype), t)


def ldexp(x1: Any, x2: Any) -> Tensor:
    """x1 * 2 ** x2."""
    x, y = operands(x1, x2, floating=True)
    return B.op("Mul", x, exp2(y))


def cbrt(x: Any) -> Tensor:
    """The cube root, negative for negative numbers."""
    (t,) = operands(x, long=True)
    return B.op("Mul", B.op("Sign", t), B.op("Pow", B.op("Abs", t), 1.0 / 3.0))


def deg2rad(x: Any) -> Tensor:
    """Degrees in radians."""
    return B.op("Mul", *operands(x, long=True), math.pi / 180.0)


def rad2deg(x: Any) -> Tensor:
    """Radians in degrees."""
    return B.op("Mul", *operands(x, long=True), 180.0 / math.pi)


def fabs(x: Any) -> Tensor:
    """|x|, in floating point."""
    return B.op("Abs", _float(x))


def signbit(x: Any) -> Tensor:
    """Whether the sign is minus, that of -0.0 too."""
    (t,) = numeric(x)
    below = B.op("Less", t, 0)
    if not is_float(t.dtype):
        return below
    # The reciprocal of -0.0 is minus infinity.
    return B.op("Or", below, B.op("Less", B.op("Reciprocal", t), 0.0))


def arctan2(x1: Any, x2: Any) -> Tensor:
    """The angle of the point (x2, x1), from -pi to pi; signed zeros and infinities as in C.

    The quotient is taken the way round that keeps it within 1. Derivatives at the origin are zero.
    """
    # Two infinities become equals, whose quotient is 1.
    y, x = (B.op("Clip", t, *_limits(t.dtype)) for t in operands(x1, x2, floating=True))
    steep = B.op("Greater", B.op("Abs", y), B.op("Abs", x))
    numerator = B.op("Where", steep, B.op("Neg", x), y)
    denominator = B.op("Where", steep, y, x)
    at_origin = B.op("Equal", denominator, 0.0)
    numerator = B.op("Where", at_origin, stop_gradient(numerator), numerator)
    quotient = B.op("Div", numerator, B.op("Where", at_origin, 1.0, denominator))
    turn = B.op("Where", steep, math.pi / 2, B.op("Where", signbit(x), math.pi, _zero(y)))
    signed = B.op("Where", signbit(y), B.op("Neg", turn), turn)
    return B.op("Add", B.op("Atan", quotient), signed)


def _zero(like: Tensor) -> Tensor:
    return B.scalar(0.0, like.dtype)


def hypot(x1: Any, x2: Any) -> Tensor:
    """sqrt(x1^2 + x2^2), without overflow: both are divided by the larger first."""
    x, y = operands(x1, x2, long=True)
    scale = stop_gradient(B.op("Max", B.op("Abs", x), B.op("Abs", y)))
    usable = B.op("And", B.op("Greater", scale, 0.0), B.op("Not", B.op("IsInf", scale)))
    scale = B.op("Where", usable, scale, B.scalar(1.0, x.dtype))
    x, y = B.op("Div", x, scale), B.op("Div", y, scale)
    squares = B.op("Add", B.op("Mul", x, x), B.op("Mul", y, y))
    return B.op("Mul", B.op("Sqrt", squares), scale)


def logaddexp(x1: Any, x2: Any) -> Tensor:
    """log(exp(x1) + exp(x2)), without overflow: max(x1, x2) + log1p(exp(-|x1 - x2|))."""
    x, y = operands(x1, x2, floating=True)
    return B.op("Add", B.op("Max", x, y), log1p(B.op("Exp", _minus_distance(x, y))))


def logaddexp2(x1: Any, x2: Any) -> Tensor:
    """log2(2 ** x1 + 2 ** x2), without overflow."""
    x, y = operands(x1, x2, floating=True)
    tail = B.op("Mul", log1p(exp2(_minus_distance(x, y))), 1.0 / math.log(2.0))
    return B.op("Add", B.op("Max", x, y), tail)


def _minus_distance(x: Tensor, y: Tensor) -> Tensor:
    """-|x - y|; 0 between infinities of one sign."""
    difference = B.op("Sub", x, y)
    difference = B.op("Where", B.op("IsNaN", difference), _zero(x), difference)
    return B.op("Neg", B.op("Abs", difference))


def sinc(x: Any) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0."""
    t = B.op("Mul", _float(x), math.pi)
    at_zero = B.op("Equal", t, 0.0)
    safe = B.op("Where", at_zero, B.scalar(1.0, t.dtype), t)
    return B.op("Where", at_zero, B.scalar(1.0, t.dtype), B.op("Div", B.op("Sin", safe), safe))


def heaviside(x1: Any, x2: Any) -> Tensor:
    """0 where x1 is negative, x2 where it is 0, 1 where it is positive; in floating point."""
    x, y = operands(x1, x2, long=True)
    step = B.op("Where", B.op("Greater", x, 0.0), B.scalar(1.0, x.dtype), stop_gradient(x))
    step = B.op("Where", B.op("Less", x, 0.0), _zero(x), step)
    return B.op("Where", B.op("Equal", x, 0.0), y, step)


def trunc(x: Any) -> Tensor:
    """The whole part: x rounded towards zero, in x's dtype."""
    t = convert_to_tensor(x)
    if not is_float(t.dtype):
        return t
    return B.op("Where", B.op("Less", t, 0.0), B.op("Ceil", t), B.op("Floor", t))


def fmod(x1: Any, x2: Any) -> Tensor:
    """The remainder with the sign of x1, as in C."""
    return B.op("Mod", *numeric(x1, x2), fmod=1)


def fmax(x1: Any, x2: Any) -> Tensor:
    """The larger of the two; where one is a NaN, the other."""
    return _extreme("Max", x1, x2)


def fmin(x1: Any, x2: Any) -> Tensor:
    """The smaller of the two; where one is a NaN, the other."""
    return _extreme("Min", x1, x2)


def _extreme(op_type: str, x1: Any, x2: Any) -> Tensor:
    x, y = numeric(x1, x2)
    if is_float(x.dtype):
        # Not of the result: the gradient of a NaN's branch would be a NaN, too.
        x, y = (
            B.op("Where", B.op("IsNaN", x), y, x),
            B.op("Where", B.op("IsNaN", y), x, y),
        )
    return (maximum if op_type == "Max" else minimum)(x, y)


def divide_no_nan(x1: Any, x2: Any) -> Tensor:
    """x1 / x2, and 0 where x2 is 0."""
    x, y = operands(x1, x2, floating=True)
    by_zero = B.op("Equal", y, 0.0)
    quotient = B.op("Div", x, B.op("Where", by_zero, B.scalar(1.0, y.dtype), y))
    return B.op("Where", by_zero, _zero(x), quotient)


def nan_to_num(
    x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """x with NaNs and infinities replaced.

    Args:
        nan: in the place of NaNs.
        posinf, neginf: in the place of infinities; by default the dtype's largest and smallest
            numbers.
    """
    t = convert_to_tensor(x)
    if not is_float(t.dtype):
        return t
    lowest, highest = _limits(t.dtype)
    for number, sign in ((posinf, "negative"), (neginf, "positive")):
        if number is not None:
            there = B.op("IsInf", t, **{f"detect_{sign}": 0})
            t = B.op("Where", there, B.scalar(number, t.dtype), t)
    t = B.op("Clip", t, lowest, highest)
    return B.op("Where", B.op("IsNaN", t), B.scalar(nan, t.dtype), t)


def saturate_cast(x: Any, dtype: npt.DTypeLike) -> Tensor:
    """x with another element type; numbers beyond its range become its ends."""
    t, wanted = convert_to_tensor(x), np.dtype(dtype)
    if t.dtype == np.bool_ or wanted == np.bool_:
        return cast(t, wanted)
    low, high = _range(wanted)
    own_low, own_high = _range(t.dtype)
    if low <= own_low and own_high <= high:
        return cast(t, wanted)
    low, high = max(low, own_low), min(high, own_high)
    if is_float(t.dtype) and not is_float(wanted):
        # The last number that the float has below the integers' end: 2^31 is none of int32's.
        end = np.asarray(high, t.dtype)
        low, high = (
            float(low),
            float(np.nextafter(end, 0, dtype=t.dtype) if float(end) > high else end),
        )
    return cast(clip(t, low, high), wanted)


def _range(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if is_float(dtype):
        return _limits(dtype)
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _polynomial(t: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """By Horner's rule, the highest power first."""
    first, *others = coefficients
    p = B.full_like(t, first)
    for c in others:
        p = B.op("Add", B.op("Mul", p, t), c)
    return p


#: W. Press et al., Numerical Recipes, erfcc.
_ERFC = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)


def erfc(x: Any) -> Tensor:
    """1 - erf(x), exact to 1.2e-7 of itself (Numerical Recipes, `erfcc`)."""
    t = _float(x)
    size = B.op("Abs", t)
    u = B.op("Reciprocal", B.op("Add", B.op("Mul", size, 0.5), 1.0))
    exponent = B.op("Sub", _polynomial(u, _ERFC), B.op("Mul", t, t))
    tail = B.op("Mul", u, B.op("Exp", exponent))
    return B.op("Where", B.op("Less", t, 0.0), B.op("Sub", 2.0, tail), tail)


#: M. Giles, "Approximating the erfinv function" (2010), single precision.
_ERFINV_CENTRAL = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_ERFINV_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


def erfinv_central(t: Tensor) -> Tensor:
    """erfinv(t) / t for -log(1 - t^2) < 5, that is for |t| < 0.9966."""
    w = B.op("Neg", B.op("Log", B.op("Sub", 1.0, B.op("Mul", t, t))))
    return _polynomial(B.op("Sub", w, 2.5), _ERFINV_CENTRAL)


def erfinv(x: Any) -> Tensor:
    """The inverse of erf, exact to float32 (M. Giles, "Approximating the erfinv function", 2010).

    Plus or minus infinity at plus or minus 1, a NaN beyond.
    """
    t = _float(x)
    w = B.op("Neg", B.op("Log", B.op("Mul", B.op("Sub", 1.0, t), B.op("Add", t, 1.0))))
    # Either branch within its own range, so that neither spoils the other's gradient.
    central = _polynomial(B.op("Sub", B.op("Min", w, 5.0), 2.5), _ERFINV_CENTRAL)
    root = B.op("Sub", B.op("Sqrt", B.op("Clip", w, 5.0, 100.0)), 3.0)
    factor = B.op("Where", B.op("Less", w, 5.0), central, _polynomial(root, _ERFINV_TAIL))
    return B.op("Mul", t, B.op("Where", B.op("IsInf", w), w, factor))


#: M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 9.8.1 and 9.8.2.
_I0_NEAR = (0.0045813, 0.0360768, 0.2659732, 1.2067492, 3.0899424, 3.5156229, 1.0)
_I0_FAR = (
    *(0.00392377, -0.01647633, 0.02635537, -0.02057706, 0.00916281),
    *(-0.00157565, 0.00225319, 0.01328592, 0.39894228),
)


def i0(x: Any) -> Tensor:
    """The modified Bessel function of order 0, to 2e-7 (Abramowitz and Stegun, 9.8)."""
    t = B.op("Abs", _float(x))
    near = B.op("Min", B.op("Mul", t, 1.0 / 3.75), 1.0)
    small = _polynomial(B.op("Mul", near, near), _I0_NEAR)
    far = B.op("Max", t, 3.75)
    large = _polynomial(B.op("Div", 3.75, far), _I0_FAR)
    large = B.op("Mul", large, B.op("Div", B.op("Exp", far), B.op("Sqrt", far)))
    return B.op("Where", B.op("Less", t, 3.75), small, large)
