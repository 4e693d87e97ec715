"""Numbers added into a sum where they belong, instead of to zeros first."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.autodiff import record_of
from onnxtape.compiler.dims import same_shape
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.passes.simplify import adds_to_zeros


class ScatterIntoSums(GraphPass):
    """A ScatterElements that adds to zeros, and what its result is added to, as one that adds to
    that; minus a product, with the product's smaller factor negated.

    So ends the gradient of a cross-entropy: what the right classes get, minus the probabilities
    times what all classes of a row get. The zeros and a pass over all classes are spared.
    """

    adds = frozenset(["Neg"])

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph):
            for scattered, other in _terms(node):
                scatter = _adds_to_zeros(builder, scattered)
                if scatter is None or other is None:
                    continue
                if not same_shape(shape_of(other), shape_of(node.outputs[0])):
                    continue
                if node.op_type == "Sub" and not _negate(builder, other, scatter):
                    continue
                # The node itself, which may fail, and whose notes say what that means.
                model.graph.remove(scatter)
                scatter.replace_input_with(0, other)
                model.graph.insert_before(node, scatter)
                builder.take_place(node, scatter.outputs[0])
                changed = True
                break
        return changed


def _terms(node: ir.Node) -> list[tuple[ir.Value | None, ir.Value | None]]:
    """The terms of a sum in the orders in which the first may be the scattered one."""
    if applies(node, "Add"):
        return [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])]
    return [(node.inputs[0], node.inputs[1])] if applies(node, "Sub") else []


def _adds_to_zeros(builder: GraphBuilder, value: ir.Value | None) -> ir.Node | None:
    """The ScatterElements that adds to zeros for this value's only use."""
    node = None if value is None else value.producer()
    if value is None or node is None or not _is_used_once(value):
        return None
    return node if adds_to_zeros(builder, node) else None


def _is_used_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _negate(builder: GraphBuilder, value: ir.Value, scatter: ir.Node) -> bool:
    """Negate a product that is used once, in a factor that is constant or has one number for all
    places along the scatter's axis; whether it is one."""
    product = value.producer()
    if product is None or not applies(product, "Mul") or not _is_used_once(value):
        return False
    whole, axis = shape_of(value), record_of(scatter).attribute("axis", 0)
    for index in (1, 0):
        factor = product.inputs[index]
        if factor is None:
            continue
        constant, shape = builder.constant_value(factor), shape_of(factor)
        if constant is not None:
            negative = builder.constant(-constant)
        elif whole and shape and len(shape) == len(whole) and shape[axis] == 1:
            with builder.before(product):
                negative = builder.op("Neg", factor)
        else:
            continue
        product.replace_input_with(index, negative)
        return True
    return False
