"""Masks by comparison, for providers other than the CPU's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.gradients.activations import STEEP
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies


class PortableMasks(GraphPass):
    """HardSigmoid(x) of the slope that gradient rules make masks with is Cast(x > 0).

    OpenVINO gives zero for such a slope, and whoever computes in float16 infinity times zero.
    """

    adds = frozenset(["Cast", "Greater"])
    may_grow = True
    required = True

    def run(self, model: ir.Model) -> bool:
        masks = [node for node in model.graph.all_nodes() if _is_mask(node)]
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        for node in masks:
            (x,) = node.inputs
            with builder.before(node):
                positive = builder.op("Greater", x, 0.0)
                mask = builder.op("Cast", positive, to=ir.DataType.FLOAT.value)
                builder.take_place(node, mask)
        return bool(masks)


def _is_mask(node: ir.Node) -> bool:
    if not applies(node, "HardSigmoid") or "alpha" not in node.attributes:
        return False
    return node.attributes["alpha"].as_float() == np.float32(STEEP)
