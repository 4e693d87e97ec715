"""Squares of transposed gradients, after ONNX Runtime has moved the Transposes."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies


class SquareTurned(GraphPass):
    """Transpose(a * a) beside Transpose(a) as the square of the latter.

    ONNX Runtime's optimizer moves a Transpose behind the Mul that squares a gradient for Adam's
    second average. There are two Transposes then, where one of the gradient was enough, and the
    square is none of the nodes that an update runs piece by piece in the cache.
    """

    may_copy = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        place = {node: i for i, node in enumerate(model.graph)}
        changed = False
        for node in list(model.graph):
            other = _turned(node)
            if other is None:
                continue
            # Not later than it was: others may read it in between.
            if place[other] > place[node]:
                model.graph.remove(other)
                model.graph.insert_before(node, other)
                place[other] = place[node]
            with builder.before(node):
                square = builder.op("Mul", other.outputs[0], other.outputs[0])
            builder.take_place(node, square)
            changed = True
        return changed


def _turned(node: ir.Node) -> ir.Node | None:
    """For the Transpose of a square: the same Transpose of what is squared."""
    square = node.inputs[0].producer() if applies(node, "Transpose") and node.inputs[0] else None
    if square is None or not applies(square, "Mul") or len(square.outputs[0].uses()) > 1:
        return None
    value, again = square.inputs
    if value is None or value is not again or square.outputs[0].is_graph_output():
        return None
    for user, _ in value.uses():
        if applies(user, "Transpose") and user.graph is node.graph and _order(user) == _order(node):
            return user
    return None


def _order(node: ir.Node) -> list[int] | None:
    return list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
