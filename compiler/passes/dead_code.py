"""Remove nodes and initializers that no output depends on."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxtape.compiler.passes import GraphPass


class RemoveDeadCode(GraphPass):
    """Keeps what the outputs depend on, and every input."""

    def run(self, model: ir.Model) -> bool:
        return bool(RemoveUnusedNodesPass()(model).modified)
