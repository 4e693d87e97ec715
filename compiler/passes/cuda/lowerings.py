"""The table of operators that are written with others for CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder

#: Writes a node with other operators: one value per output; None where its kernel will do.
Lowering = Callable[[GraphBuilder, ir.Node], Sequence[ir.Value] | None]

#: Operators that compute on bfloat16 in kernels of their own. The others, comparisons among them,
#: have none on any provider, and ONNX Runtime opens no session with them.
BFLOAT16 = frozenset(
    [
        *("Abs", "Add", "Div", "Erf", "Exp", "Expand", "Gemm", "IsInf", "IsNaN"),
        *("LayerNormalization", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceMean"),
        *("ReduceSum", "Relu", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Softmax"),
        *("Sqrt", "Sub", "Sum", "Tanh", "Tile", "Trilu", "Where"),
    ]
)

LOWERINGS: dict[str, Lowering] = {}


def lowering(*op_types: str) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for these operators of the default domain."""

    def register(lower: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(op_types, lower))
        return lower

    return register


def required(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[index]
    assert value is not None
    return value
