"""Running statistics that BatchNormalization may write over."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.passes import GraphPass, applies

# Operators whose results lie in memory of their own: no views.
_MAKERS = ("BatchNormalization", "Concat", "Neg")


class OwnStatistics(GraphPass):
    """Statistics that BatchNormalization in training mode takes are copied where others read them.

    ONNX Runtime's kernels write the running statistics over those that they are given, whoever else
    may read them, unless what they give is an output of the graph. A copy is a Concat of one
    tensor, as ONNX Runtime removes Identity. It also makes equal nodes one; so copies of the same
    tensor differ in how they write the axis, the bits of their numbers.
    """

    adds = frozenset(["Concat"])
    may_grow = True
    required = True

    def run(self, model: ir.Model) -> bool:
        readers: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
        for node in model.graph.all_nodes():
            training = applies(node, "BatchNormalization") and node.attributes.get("training_mode")
            if not training or not training.as_int():
                continue
            for index in (3, 4):
                value, following = node.inputs[index], node.outputs[index - 2 :][:1]
                kept = value is None or any(x.is_graph_output() for x in following)
                if value is not None and not kept and not _is_own(value):
                    readers.setdefault(value, []).append((node, index))
        for value, places in readers.items():
            bits = max(1, (len(places) - 1).bit_length())
            for number, (node, index) in enumerate(places):
                copy = value
                for bit in range(bits):
                    copy = _copied(copy, -(number >> bit & 1), node)
                node.replace_input_with(index, copy)
        return bool(readers)


def _is_own(value: ir.Value) -> bool:
    """Whether nobody but one node reads this value's memory."""
    maker = value.producer()
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return alone and maker is not None and applies(maker, *_MAKERS)


def _copied(value: ir.Value, axis: int, before: ir.Node) -> ir.Value:
    copy = ir.Node(
        "",
        "Concat",
        [value],
        attributes=[ir.AttrInt64("axis", axis)],
        metadata_props=dict(before.metadata_props),
    )
    copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
    before.prepend(copy)
    return copy.outputs[0]
