"""Operators that have CUDA kernels for other types only, and functions that have none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes.cuda.lowerings import lowering, required

_T = ir.DataType
_SMALL = (_T.INT8, _T.UINT8, _T.INT16, _T.UINT16)
_COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
#: For an operator: the inputs that are converted, from what, to what, which holds all of it; and
#: whether the result is converted back.
_WIDER: dict[str, list[tuple[tuple[int, ...], tuple[ir.DataType, ...], ir.DataType, bool]]] = {
    **{name: [((0, 1), _SMALL, _T.INT32, False)] for name in _COMPARISONS},
    **{name: [((0,), (*_SMALL, _T.INT32), _T.DOUBLE, False)] for name in ("ArgMax", "ArgMin")},
    "Clip": [((0, 1, 2), (_T.INT32, _T.INT16, _T.UINT16), _T.INT64, True)],
    "GatherND": [((0,), (*_SMALL, _T.INT32, _T.UINT32), _T.INT64, True)],
    "MatMul": [((0, 1), (*_SMALL, _T.INT32), _T.DOUBLE, True)],
    "Pad": [((0, 2), (*_SMALL, _T.INT32), _T.DOUBLE, True)],
    "Tile": [((0,), (*_SMALL, _T.BOOL), _T.INT32, True)],
}


@lowering(*_WIDER)
def in_a_wider_type(b: GraphBuilder, node: ir.Node) -> list[ir.Value] | None:
    x = required(node, 0)
    for converted, given, wider, back in _WIDER[node.op_type]:
        if x.dtype not in given:
            continue
        inputs = [
            b.cast(value, wider.numpy()) if i in converted and value is not None else value
            for i, value in enumerate(node.inputs)
        ]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        (made,) = b.emit(node.op_type, inputs, attributes)
        return [b.cast(made, b.dtype(x)) if back else made]
    return None


@lowering("Celu")
def celu(b: GraphBuilder, node: ir.Node) -> list[ir.Value]:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    x, alpha = required(node, 0), node.attributes.get_float("alpha", 1.0)
    below = b.op("Mul", b.op("Sub", b.op("Exp", b.op("Div", x, alpha)), 1.0), alpha)
    zero = b.constant(np.zeros((), b.dtype(x)))
    return [b.op("Add", b.op("Max", x, zero), b.op("Min", below, zero))]


@lowering("Tan")
def tan(b: GraphBuilder, node: ir.Node) -> list[ir.Value]:
    x = required(node, 0)
    return [b.op("Div", b.op("Sin", x), b.op("Cos", x))]


@lowering("Cosh")
def cosh(b: GraphBuilder, node: ir.Node) -> list[ir.Value]:
    x = required(node, 0)
    both = b.op("Add", b.op("Exp", x), b.op("Exp", b.op("Neg", x)))
    return [b.op("Mul", both, 0.5)]
