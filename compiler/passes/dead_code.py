"""Remove nodes and initializers that no output depends on."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxtape.compiler.passes import GraphPass
from onnxtape.compiler.subgraphs import detach, graphs_in


class RemoveDeadCode(GraphPass):
    """Keeps what the outputs depend on, and every input."""

    def run(self, model: ir.Model) -> bool:
        changed = False
        while True:
            holders = [node for node in model.graph.all_nodes() if graphs_in(node)]
            changed |= bool(RemoveUnusedNodesPass()(model).modified)
            removed = [node for node in holders if node.graph is None]
            if not removed:
                return changed
            # What only their subgraphs used is dead too.
            for node in removed:
                detach(node)
