"""One Transpose instead of two that differ in the last two axes: products take either."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxtape.compiler.errors import RECOMPUTED
from onnxtape.compiler.inference import known_shape
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.products import ProductsPass, flag, fuse, is_product


class TransposedOperands(ProductsPass):
    """Where a value is transposed in two ways, of which one is the other's transposed matrices,
    products take both from the one whose rows stay together.

    Attention's queries, keys, values and their gradients are each transposed to (batch, heads,
    length, size), and for some products to (batch, heads, size, length). ONNX Runtime joins a
    Transpose with a product only where it exchanges just the last two axes, copies a left operand
    that it takes transposed, and so does no worse as long as that one is the smaller.
    """

    adds = frozenset(["FusedMatMul"])

    def run(self, model: ir.Model) -> bool:
        place = {node: i for i, node in enumerate(model.graph)}
        by_source: dict[ir.Value, list[ir.Node]] = {}
        for node in model.graph:
            source = node.inputs[0] if node.inputs else None
            if _perm(node) is not None and source is not None:
                by_source.setdefault(source, []).append(node)
        removed: list[ir.Node] = []
        for nodes in by_source.values():
            kept = next((n for n in nodes if _keeps_rows(n)), None)
            other = None if kept is None else next((n for n in nodes if _swapped(n, kept)), None)
            if kept is None or other is None or not _takes_swapped(other):
                continue
            for user, index in other.outputs[0].uses():
                _swap(model, user, index)
            first, last = sorted((kept, other), key=place.__getitem__)
            _become(first, kept)
            ir.convenience.replace_all_uses_with(last.outputs[0], first.outputs[0])
            removed.append(last)
        model.graph.remove(removed, safe=True)
        return bool(removed)


def _perm(node: ir.Node) -> tuple[int, ...] | None:
    """The order of axes of a Transpose that may be merged with others."""
    if not applies(node, "Transpose") or "perm" not in node.attributes:
        return None
    if node.outputs[0].is_graph_output() or node.metadata_props.get(RECOMPUTED):
        return None
    perm = tuple(node.attributes["perm"].as_ints())
    return perm if len(perm) > 2 else None


def _keeps_rows(node: ir.Node) -> bool:
    perm = _perm(node)
    return perm is not None and perm[-1] == len(perm) - 1


def _swapped(node: ir.Node, other: ir.Node) -> bool:
    a, b = _perm(node), _perm(other)
    return a is not None and b is not None and a == (*b[:-2], b[-1], b[-2])


def _takes_swapped(node: ir.Node) -> bool:
    """Whether all that use the Transpose are products that can do without it."""

    def may(user: ir.Node, index: int) -> bool:
        if not is_product(user) or user.inputs[0] is user.inputs[1]:
            return False
        left, right = (known_shape(x) for x in user.inputs)
        if left is None or right is None or len(left) != len(right):
            return False
        return index == 1 or math.prod(left) <= math.prod(right)

    return all(may(user, index) for user, index in node.outputs[0].uses())


def _swap(model: ir.Model, user: ir.Node, index: int) -> None:
    """Let the product take this operand with the last two axes exchanged."""
    name = ("transA", "transB")[index]
    fuse(model, user)
    user.attributes[name] = ir.AttrInt64(name, 1 - flag(user, name))


def _become(node: ir.Node, kept: ir.Node) -> None:
    """Make `node` the same Transpose as `kept`."""
    shape, perm = kept.outputs[0].shape, _perm(kept)
    assert perm is not None
    node.attributes["perm"] = ir.AttrInt64s("perm", perm)
    node.outputs[0].shape = shape
