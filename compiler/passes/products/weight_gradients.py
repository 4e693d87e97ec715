"""The order of the operands of a weight's gradient: the wider one is the one to be transposed."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import known_shape
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.products import ProductsPass, flag, fuse

#: Products of fewer multiplications are not worth another node.
_LEAST = 1 << 24
#: With fewer rows, turning the result costs more than the copies of the operand.
_LEAST_ROWS = 512


class WideOperandsFirst(ProductsPass):
    """X^T G as (G^T X)^T where G is at least twice as wide as X, and has many rows.

    ONNX Runtime copies a left operand that it takes transposed once for every 128 columns of the
    result, and packs the right one again on each thread. For 1024x128 and 1024x512 on two threads:
    0.85 instead of 0.95 ms, the Transpose of the small result included; but 64x128 and 64x32000:
    6.8 instead of 2.6.
    """

    adds = frozenset(["FusedMatMul", "Transpose"])
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        found = [node for node in model.graph if _is_narrow_first(node)]
        for node in found:
            x, g = node.inputs[:2]
            # ONNX Runtime would turn a Gemm round again, the Transpose after it included.
            fuse(model, node)
            node.attributes.pop("beta", None)
            node.replace_input_with(0, g)
            node.replace_input_with(1, x)
            node.resize_inputs(2)
            result = node.outputs[0]
            turned = ir.Node(
                "",
                "Transpose",
                [result],
                attributes=[ir.AttrInt64s("perm", [1, 0])],
                metadata_props=dict(node.metadata_props),
            )
            value = turned.outputs[0]
            ir.convenience.replace_all_uses_with(result, value, replace_graph_outputs=True)
            turned.replace_input_with(0, result)
            name, value.type, value.shape = result.name, result.type, result.shape
            result.name = builder.unique_name("Gemm")
            value.name, turned.name = name, f"{name}_turned"
            if result.shape is not None:
                result.shape = ir.Shape(list(result.shape.dims)[::-1])
            model.graph.insert_after(node, turned)
        return bool(found)


def _is_narrow_first(node: ir.Node) -> bool:
    if not applies(node, "Gemm") or not flag(node, "transA") or flag(node, "transB"):
        return False
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return False
    left, right = (known_shape(x) for x in node.inputs[:2])
    if left is None or right is None:
        return False
    (rows, narrow), (_, wide) = left, right
    return rows >= _LEAST_ROWS and wide >= 2 * narrow and rows * narrow * wide >= _LEAST
