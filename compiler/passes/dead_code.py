"""Remove nodes and initializers that no output depends on."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxtape.compiler.passes import GraphPass
from onnxtape.compiler.subgraphs import detach, graphs_in, remove_unused


class RemoveDeadCode(GraphPass):
    """Keeps what the outputs depend on, and every input."""

    def run(self, model: ir.Model) -> bool:
        # The library's pass, which also looks at optional outputs and into subgraphs, removes node
        # by node, each in time proportional to the graph's outputs.
        changed = remove_unused(model.graph)
        while True:
            holders = [node for node in model.graph.all_nodes() if graphs_in(node)]
            changed |= bool(RemoveUnusedNodesPass()(model).modified)
            removed = [node for node in holders if node.graph is None]
            if not removed:
                return changed
            # What only their subgraphs used is dead too.
            for node in removed:
                detach(node)
