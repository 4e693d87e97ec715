"""Comparison, logic and choice, elementwise, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.promotion import BOOL, INT32, INT64, UINT64, numeric, operands, widened
from onnxtape.tensor import Tensor

__all__ = [
    "allclose",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "isclose",
    "isfinite",
    "isin",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "left_shift",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
    "right_shift",
    "select",
    "where",
]


def equal(x1: Any, x2: Any) -> Tensor:
    """x1 == x2."""
    return B.op("Equal", *operands(x1, x2))


def not_equal(x1: Any, x2: Any) -> Tensor:
    """x1 != x2."""
    return B.op("Not", equal(x1, x2))


def less(x1: Any, x2: Any) -> Tensor:
    """x1 < x2."""
    return B.op("Less", *numeric(x1, x2))


def less_equal(x1: Any, x2: Any) -> Tensor:
    """x1 <= x2."""
    return B.op("LessOrEqual", *numeric(x1, x2))


def greater(x1: Any, x2: Any) -> Tensor:
    """x1 > x2."""
    return B.op("Greater", *numeric(x1, x2))


def greater_equal(x1: Any, x2: Any) -> Tensor:
    """x1 >= x2."""
    return B.op("GreaterOrEqual", *numeric(x1, x2))


def isnan(x: Any) -> Tensor:
    """Whether an element is a NaN."""
    return B.op("IsNaN", *operands(x, floating=True))


def isinf(x: Any) -> Tensor:
    """Whether an element is an infinity."""
    return B.op("IsInf", *operands(x, floating=True))


def isfinite(x: Any) -> Tensor:
    """Whether an element is neither."""
    return B.op("Not", B.op("Or", isnan(x), isinf(x)))


def isposinf(x: Any) -> Tensor:
    """Whether an element is plus infinity."""
    return B.op("IsInf", *operands(x, floating=True), detect_negative=0)


def isneginf(x: Any) -> Tensor:
    """Whether an element is minus infinity."""
    return B.op("IsInf", *operands(x, floating=True), detect_positive=0)


def isclose(
    x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether |x1 - x2| <= atol + rtol * |x2|; infinities are close to themselves.

    Args:
        equal_nan: whether NaNs are close to each other.
    """
    x, y = operands(x1, x2, floating=True)
    tolerance = B.op("Add", B.op("Mul", B.op("Abs", y), rtol), atol)
    near = B.op("LessOrEqual", B.op("Abs", B.op("Sub", x, y)), tolerance)
    near = B.op("And", near, B.op("Not", B.op("IsInf", y)))
    close = B.op("Or", near, B.op("Equal", x, y))
    if equal_nan:
        close = B.op("Or", close, B.op("And", B.op("IsNaN", x), B.op("IsNaN", y)))
    return close


def allclose(
    x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether `isclose` holds for all elements: a scalar."""
    close = B.cast(isclose(x1, x2, rtol, atol, equal_nan), INT32)
    return B.cast(B.op("ReduceMin", close, keepdims=0), BOOL)


def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element of x1 is among those of x2.

    Args:
        assume_unique: is not needed; for NumPy's sake.
        invert: whether it is not among them.
    """
    x, y = operands(x1, x2)
    pairs = B.op("Equal", B.op("Unsqueeze", x, [-1]), B.op("Reshape", y, [-1]))
    # A sum, as there may be nothing to reduce.
    found = B.cast(B.op("ReduceSum", B.cast(pairs, INT32), [-1], keepdims=0), BOOL)
    return B.op("Not", found) if invert else found


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tensor:
    """Of the choices, for each element, the first whose condition holds; else the default.

    Raises:
        ValueError: there is not one choice per condition, or none at all.
    """
    if len(condlist) != len(choicelist) or not condlist:
        raise ValueError(
            f"select takes one choice per condition, not {len(choicelist)} for {len(condlist)}"
        )
    *choices, chosen = operands(*choicelist, default)
    for condition, choice in zip(reversed(condlist), reversed(choices), strict=True):
        chosen = where(condition, choice, chosen)
    return chosen


@overload
def where(condition: Any) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Any, x1: Any, x2: Any) -> Tensor: ...
def where(condition: Any, x1: Any = None, x2: Any = None) -> Tensor | tuple[Tensor, ...]:
    """x1 where the condition holds, x2 elsewhere; without the two, `nonzero(condition)`."""
    if x1 is None and x2 is None:
        from onnxtape.ops.sorting import nonzero

        return nonzero(condition)
    if x1 is None or x2 is None:
        raise ValueError("where takes both x1 and x2, or neither of them")
    chosen = convert_to_tensor(condition, bool)
    x, y = operands(x1, x2)
    return B.cast(B.op("Where", chosen, widened(x), widened(y)), x.dtype)


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


def _bitwise(logical: str, bitwise: str, *xs: Any) -> Tensor:
    tensors = operands(*xs)
    return B.op(logical if tensors[0].dtype == BOOL else bitwise, *tensors)


def bitwise_and(x: Any, y: Any) -> Tensor:
    """The bits set in both; on booleans, logical_and."""
    return _bitwise("And", "BitwiseAnd", x, y)


def bitwise_or(x: Any, y: Any) -> Tensor:
    """The bits set in either; on booleans, logical_or."""
    return _bitwise("Or", "BitwiseOr", x, y)


def bitwise_xor(x: Any, y: Any) -> Tensor:
    """The bits set in one of them; on booleans, logical_xor."""
    return _bitwise("Xor", "BitwiseXor", x, y)


def bitwise_not(x: Any) -> Tensor:
    """The bits not set; on booleans, logical_not."""
    return _bitwise("Not", "BitwiseNot", x)


bitwise_invert = bitwise_not


def bitwise_left_shift(x: Any, y: Any) -> Tensor:
    """The bits of x moved up by y places; what goes beyond the dtype's width is lost."""
    t, places = numeric(x, y)
    return B.cast(_shifted(B.cast(t, INT64), places, "LEFT"), t.dtype)


def bitwise_right_shift(x: Any, y: Any) -> Tensor:
    """The bits of x moved down by y places; the sign stays: x // 2**y."""
    t, places = numeric(x, y)
    if t.dtype.kind == "u":
        return B.cast(_shifted(t, places, "RIGHT"), t.dtype)
    wide = B.cast(t, INT64)
    negative = B.op("Less", wide, 0)
    # -1 - x has the bits of x turned over: those of a number that is not negative.
    turned = B.op("Where", negative, B.op("BitwiseNot", wide), wide)
    moved = _shifted(turned, places, "RIGHT")
    return B.cast(B.op("Where", negative, B.op("BitwiseNot", moved), moved), t.dtype)


left_shift = bitwise_left_shift
right_shift = bitwise_right_shift


def _shifted(t: Tensor, places: Tensor, direction: str) -> Tensor:
    """By BitShift, which takes unsigned numbers, and back."""
    moved = B.op("BitShift", B.cast(t, UINT64), B.cast(places, UINT64), direction=direction)
    return moved if t.dtype == UINT64 else B.cast(moved, INT64)
