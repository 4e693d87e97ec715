"""Operators that have CUDA kernels for other types only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dtypes import from_onnx, to_onnx
from onnxtape.compiler.passes.cuda.lowerings import Lowering, lowering
from onnxtape.compiler.record import Record

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
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
def in_another_type(b: Builder[Any], n: Record[Any]) -> Sequence[Any] | None:
    if b.dtype(n.required(0)) == _INT64 and n.op_type in _OF_INT64:
        return _OF_INT64[n.op_type](b, n)
    return _in_a_wider_type(b, n)


def _in_a_wider_type(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
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


# int64, which no other type holds ------------------------------------------------------------


def _arg_max(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """TopK, which of equal numbers takes the first as ArgMax does."""
    if n.attribute("select_last_index", 0):
        return None
    axis, largest = n.attribute("axis", 0), int(n.op_type == "ArgMax")
    attributes = {"axis": axis, "largest": largest}
    _, found = b.emit("TopK", [n.required(0), b.constant([1])], attributes, 2)
    return [found if n.attribute("keepdims", 1) else b.op("Squeeze", found, [axis])]


def _pad(b: Builder[Any], n: Record[Any]) -> list[Any]:
    """The upper and the lower half of each number by itself, in float64."""
    half = b.constant(np.int64(1 << 32))

    def padded(part: Callable[[Any], Any]) -> Any:
        inputs = [
            b.cast(part(value), _FLOAT64) if i in (0, 2) and value is not None else value
            for i, value in enumerate(n.inputs)
        ]
        return b.cast(b.emit("Pad", inputs, dict(n.attributes))[0], _INT64)

    upper = padded(lambda x: b.op("Div", x, half))
    lower = padded(lambda x: b.op("Sub", x, b.op("Mul", b.op("Div", x, half), half)))
    return [b.op("Add", b.op("Mul", upper, half), lower)]


_OF_INT64: dict[str, Lowering] = {"ArgMax": _arg_max, "ArgMin": _arg_max, "Pad": _pad}
