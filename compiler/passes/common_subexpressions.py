"""Compute equal things once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from onnxtape.compiler.passes import RANDOM, GraphPass, applies


class EliminateCommonSubexpressions(GraphPass):
    """Merges nodes with the same operator, inputs and attributes.

    Two equal nodes that are both graph outputs stay two outputs, one of them an Identity.
    """

    adds = frozenset({"Identity"})

    def run(self, model: ir.Model) -> bool:
        # Two draws are not one: while the library's pass runs, no random node equals another.
        random = [node for node in model.graph if applies(node, *RANDOM)]
        for i, node in enumerate(random):
            node.overload = f"draw {i}"
        try:
            return bool(CommonSubexpressionEliminationPass()(model).modified)
        finally:
            for node in random:
                node.overload = ""
