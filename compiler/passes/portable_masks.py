"""Masks by comparison, for providers other than the CPU's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.gradients.activations import STEEP
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies


class PortableMasks(GraphPass):
    """HardSigmoid(x) of the slope that gradient rules make masks with is Cast(x > 0).

    OpenVINO computes it wrongly for such a slope, and whoever computes in float16 multiplies
    infinity by zero.

    Args:
        compares: False writes Ceil(Clip(x, 0, 1)), which is the same for all numbers, and fast on
            the CPU too: for what is exported.
    """

    adds = frozenset(["Cast", "Ceil", "Clip", "Greater"])
    may_grow = True
    required = True

    def __init__(self, *, compares: bool = True) -> None:
        self._compares = compares

    @property
    def key(self) -> str:
        return f"{self.name}({self._compares})"

    def run(self, model: ir.Model) -> bool:
        masks = [node for node in model.graph.all_nodes() if _is_mask(node)]
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        for node in masks:
            (x,) = node.inputs
            with builder.before(node):
                if self._compares:
                    positive = builder.op("Greater", x, 0.0)
                    mask = builder.op("Cast", positive, to=ir.DataType.FLOAT.value)
                else:
                    mask = builder.op("Ceil", builder.op("Clip", x, 0.0, 1.0))
                builder.take_place(node, mask)
        return bool(masks)


def _is_mask(node: ir.Node) -> bool:
    if not applies(node, "HardSigmoid") or "alpha" not in node.attributes:
        return False
    return node.attributes["alpha"].as_float() == np.float32(STEEP)
