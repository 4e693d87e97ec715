"""Operators that have no CUDA kernel, or a wrong one, written with operators that have."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.autodiff import record_of
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.passes.cuda.lowerings import lowering_of


class LowerForCuda(GraphPass):
    """Writes nodes so that CUDA kernels run them, with equal results; the files beside it say how.

    A node without a CUDA kernel runs on the CPU, and each of its operands is copied there and back;
    a step with such a node cannot be recorded. What ONNX Runtime has kernels for was asked of
    itself: `tests/cuda/`.
    """

    adds = frozenset(
        [
            *("Abs", "Add", "ArgMax", "ArgMin", "Cast", "Clip", "Concat", "ConstantOfShape"),
            *("ConvTranspose", "Cos"),
            *("Div", "Equal", "Exp", "Expand", "EyeLike", "Gather", "GatherND", "Greater"),
            *("GreaterOrEqual", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod", "Mul"),
            *("Neg", "Pad", "Reciprocal", "ReduceProd", "ReduceSum", "Reshape"),
            *("ScatterElements", "Shape", "Sign", "Sin", "Slice", "Split", "Sqrt", "Squeeze"),
            *("Sub", "Tanh", "Tile", "TopK", "Unsqueeze", "Where"),
        ]
    )
    may_grow = True
    required = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph.all_nodes()):
            lower = lowering_of(node.op_type)
            if lower is None or not applies(node, node.op_type):
                continue
            with builder.before(node):
                values = lower(builder, record_of(node))
                if values is not None:
                    builder.take_place(node, *values)
                    changed = True
        return changed
