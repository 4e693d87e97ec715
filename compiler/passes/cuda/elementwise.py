"""Operators that have CUDA kernels for other types only, and functions that have none."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dtypes import from_onnx, to_onnx
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

_SMALL = ("int8", "uint8", "int16", "uint16")
_COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
#: For an operator: the inputs that are converted, from what, to what, which holds all of it; and
#: whether the result is converted back.
_WIDER: dict[str, tuple[tuple[int, ...], tuple[str, ...], str, bool]] = {
    **dict.fromkeys(_COMPARISONS, ((0, 1), _SMALL, "int32", False)),
    **dict.fromkeys(("ArgMax", "ArgMin"), ((0,), (*_SMALL, "int32"), "float64", False)),
    "Clip": ((0, 1, 2), ("int16", "uint16", "int32"), "int64", True),
    "GatherND": ((0,), (*_SMALL, "int32", "uint32"), "int64", True),
    "MatMul": ((0, 1), (*_SMALL, "int32"), "float64", True),
    "Pad": ((0, 2), (*_SMALL, "int32"), "float64", True),
    "Tile": ((0,), (*_SMALL, "bool"), "int32", True),
}


@lowering(*_WIDER)
def in_a_wider_type(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    dtype = b.dtype(n.required(0))
    converted, given, wider, back = _WIDER[n.op_type]
    if dtype.name not in given:
        return None
    inputs = [
        b.cast(value, np.dtype(wider)) if i in converted and value is not None else value
        for i, value in enumerate(n.inputs)
    ]
    (made,) = b.emit(n.op_type, inputs, dict(n.attributes))
    return [b.cast(made, dtype) if back else made]


@lowering("Celu")
def celu(b: Builder[Any], n: Record[Any]) -> list[Any]:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    x, alpha = n.required(0), n.attribute("alpha", 1.0)
    below = b.op("Mul", b.op("Sub", b.op("Exp", b.op("Div", x, alpha)), 1.0), alpha)
    zero = b.constant(np.zeros((), b.dtype(x)))
    return [b.op("Add", b.op("Max", x, zero), b.op("Min", below, zero))]


@lowering("Tan")
def tan(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x = n.required(0)
    return [b.op("Div", b.op("Sin", x), b.op("Cos", x))]


@lowering("Cosh")
def cosh(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x = n.required(0)
    both = b.op("Add", b.op("Exp", x), b.op("Exp", b.op("Neg", x)))
    return [b.op("Mul", both, 0.5)]


@lowering("EyeLike")
def eye_like(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """CUDA makes none of 16 bits."""
    x, given = n.required(0), n.attribute("dtype")
    dtype = b.dtype(x) if given is None else from_onnx(given)
    if dtype.name not in ("float16", "bfloat16", "bool"):
        return None
    attributes = {**n.attributes, "dtype": to_onnx(np.dtype(np.float32))}
    (made,) = b.emit("EyeLike", [b.cast(x, np.dtype(np.float32))], attributes)
    return [b.cast(made, dtype)]
