"""Compute equal things once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from onnxtape.compiler.passes import GraphPass


class EliminateCommonSubexpressions(GraphPass):
    """Merges nodes with the same operator, inputs and attributes.

    Two equal nodes that are both graph outputs stay two outputs, one of them an Identity.
    """

    adds = frozenset({"Identity"})

    def run(self, model: ir.Model) -> bool:
        return bool(CommonSubexpressionEliminationPass()(model).modified)
