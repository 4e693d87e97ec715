"""Comparison, logic and choice, elementwise, with NumPy's broadcasting."""

from __future__ import annotations

from typing import Any

from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.promotion import BOOL, numeric, operands, widened
from onnxtape.tensor import Tensor

__all__ = [
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
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


def where(condition: Any, x1: Any, x2: Any) -> Tensor:
    """x1 where the condition holds, x2 elsewhere."""
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


def bitwise_and(x1: Any, x2: Any) -> Tensor:
    """The bits set in both; on booleans, logical_and."""
    return _bitwise("And", "BitwiseAnd", x1, x2)


def bitwise_or(x1: Any, x2: Any) -> Tensor:
    """The bits set in either; on booleans, logical_or."""
    return _bitwise("Or", "BitwiseOr", x1, x2)


def bitwise_xor(x1: Any, x2: Any) -> Tensor:
    """The bits set in one of them; on booleans, logical_xor."""
    return _bitwise("Xor", "BitwiseXor", x1, x2)


def bitwise_not(x: Any) -> Tensor:
    """The bits not set; on booleans, logical_not."""
    return _bitwise("Not", "BitwiseNot", x)
