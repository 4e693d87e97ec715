"""Compute equal things once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from onnxtape.compiler.errors import RECOMPUTED
from onnxtape.compiler.operators import RANDOM
from onnxtape.compiler.passes import GraphPass, applies


class EliminateCommonSubexpressions(GraphPass):
    """Merges nodes with the same operator, inputs and attributes.

    Two equal nodes that are both graph outputs stay two outputs, one of them an Identity.
    """

    adds = frozenset({"Identity"})

    def run(self, model: ir.Model) -> bool:
        # Two draws are not one, and what is computed again on purpose is not what was computed
        # before: while the library's pass runs, such nodes are of different kinds.
        marked = []
        for i, node in enumerate(model.graph.all_nodes()):
            kind = node.metadata_props.get(RECOMPUTED, "")
            if applies(node, *RANDOM):
                kind = f"draw {i}"
            if kind:
                node.overload = kind
                marked.append(node)
        try:
            return bool(CommonSubexpressionEliminationPass()(model).modified)
        finally:
            for node in marked:
                node.overload = ""
