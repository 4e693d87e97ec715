"""Signs of many numbers by kernels that run on all threads."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.gradients.activations import STEEP
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies


class SignsByClip(GraphPass):
    """Sign(x) of float32 as x * 1e38, clipped to [-1, 1].

    That is -1, 0 or 1 for all numbers but subnormal ones, which a step takes as zeros, and NaN for
    NaN. ONNX Runtime's Sign is one thread's: 0.78 ms for 262,144 numbers, the two kernels take
    0.09. To be run on a graph for the CPU: in float16 zero would be multiplied by infinity.
    """

    adds = frozenset(["Clip", "Mul"])
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        b = GraphBuilder(model.graph, opset=model.opset_imports[""])
        found = [
            node
            for node in model.graph
            if applies(node, "Sign") and node.outputs[0].dtype == ir.DataType.FLOAT
        ]
        for node in found:
            with b.before(node):
                b.take_place(node, b.op("Clip", b.op("Mul", node.inputs[0], STEEP), -1.0, 1.0))
        return bool(found)
