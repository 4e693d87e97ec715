"""Algebraic identities: x * 1, x + 0, -(-x), casts and transposes that undo each other, ..."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.autodiff import record_of
from onnxtape.compiler.dims import same_shape
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.scattered import is_filled_with_zeros, reduction_of
from onnxtape.compiler.subgraphs import unlink


class Simplify(GraphPass):
    """Replaces a node by one of its inputs where the two are equal for every value.

    x + 0 and x * 1 count as x; x * 0 does not count as 0, because of infinities and NaNs.
    """

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        removed = []
        for node in list(model.graph):
            if node.domain not in ("", "ai.onnx"):
                continue
            if any(output.is_graph_output() for output in node.outputs):
                continue
            same = _equal_input(builder, node)
            if same is not None:
                ir.convenience.replace_all_uses_with(node.outputs[0], same)
                unlink(node)
                removed.append(node)
        model.graph.remove(removed)
        return bool(removed)


def _equal_input(b: GraphBuilder, node: ir.Node) -> ir.Value | None:
    op, inputs, out = node.op_type, node.inputs, node.outputs[0]
    x = inputs[0] if inputs else None
    if x is None:
        return None
    if op == "Identity":
        return x
    if op in ("Mul", "Add", "Sub", "Div"):
        neutral = 1.0 if op in ("Mul", "Div") else 0.0
        commutes = op in ("Mul", "Add")
        for value, other in ((x, inputs[1]), *(((inputs[1], x),) if commutes else ())):
            if value is None or other is None:
                continue
            constant = b.constant_value(other)
            if constant is not None and constant.size == 1 and constant.item() == neutral:
                return value if same_shape(b.shape(value), b.shape(out)) else None
        return None
    if op == "Neg":
        inner = x.producer()
        return inner.inputs[0] if inner is not None and applies(inner, "Neg") else None
    if op == "Where":
        same = inputs[1] if inputs[1] is inputs[2] else None
        return same if same is not None and same_shape(b.shape(same), b.shape(out)) else None
    if op == "Cast":
        return x if x.dtype == out.dtype else None
    if op in ("Reshape", "Expand"):
        return x if same_shape(b.shape(x), b.shape(out)) else None
    if op == "Transpose":
        return _untransposed(node, x)
    if op == "ReduceSum":
        return _scattered_once(b, node, x)
    return None


def _untransposed(node: ir.Node, x: ir.Value) -> ir.Value | None:
    perm: Any = node.attributes["perm"].value if "perm" in node.attributes else None
    if perm is None:
        return None
    if list(perm) == sorted(perm):
        return x
    inner = x.producer()
    if inner is None or not applies(inner, "Transpose") or "perm" not in inner.attributes:
        return None
    first: Any = inner.attributes["perm"].value
    both = np.asarray(first)[np.asarray(perm)]
    return inner.inputs[0] if list(both) == sorted(perm) else None


def _scattered_once(b: GraphBuilder, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """What was added to zeros, one element in each line along an axis, and is summed over it.

    So begins the gradient of a cross-entropy: LogSoftmax's needs the sum of what its classes get.
    """
    scatter, keepdims = x.producer(), node.attributes.get("keepdims")
    if scatter is None or len(node.inputs) < 2 or not adds_to_zeros(b, scatter):
        return None
    _, places, updates = scatter.inputs
    over = None if node.inputs[1] is None else b.constant_value(node.inputs[1])
    whole, named = b.shape(x), None if places is None else b.shape(places)
    if over is None or whole is None or named is None or len(over) != 1:
        return None
    axis = record_of(scatter).attribute("axis", 0) % len(whole)
    once = (*whole[:axis], 1, *whole[axis + 1 :])
    if int(over[0]) % len(whole) != axis or not same_shape(named, once):
        return None
    kept = keepdims is None or keepdims.as_int() == 1
    return updates if kept else None


def adds_to_zeros(b: GraphBuilder, node: ir.Node) -> bool:
    """Whether it is a ScatterElements that adds to what is known to be zero in all places."""
    if not applies(node, "ScatterElements") or reduction_of(node) != "add":
        return False
    zeros = node.inputs[0]
    array = None if zeros is None else b.constant_value(zeros)
    if zeros is None or array is not None:
        return array is not None and not array.any()
    return is_filled_with_zeros(zeros)
