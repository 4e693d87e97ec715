"""Each shape of a value once: Reshapes of Reshapes, and those that change nothing, go."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import known_shape
from onnxtape.compiler.passes import GraphPass, applies


class MergeViews(GraphPass):
    """Reshapes and Flattens of one value to one shape become one, made of the value itself.

    ONNX Runtime puts a pair of Reshapes around each product of a stack of matrices with a matrix,
    after its own merging of equal nodes. They copy nothing, but each costs a microsecond or two.

    Args:
        late: the names of values that are not to be there earlier, see `schedule_updates`.
    """

    def __init__(self, late: Collection[str] = ()) -> None:
        self.late = late

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        made: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
        changed = False
        for node in list(model.graph):
            if not self._is_view(node):
                continue
            source, output = _source(node), node.outputs[0]
            shape = known_shape(output) or _target(builder, node)
            if source is None or shape is None:
                continue
            same = source if known_shape(source) == shape else made.get((source, shape))
            if same is not None:
                ir.convenience.replace_all_uses_with(output, same)
                model.graph.remove(node, safe=True)
                changed = True
                continue
            if source is not node.inputs[0] and _target(builder, node) is not None:
                node.replace_input_with(0, source)
                changed = True
            made[source, shape] = output
        return changed

    def _is_view(self, node: ir.Node) -> bool:
        if not applies(node, "Reshape", "Flatten") or node.outputs[0].is_graph_output():
            return False
        return node.outputs[0].name not in self.late


def _source(node: ir.Node) -> ir.Value | None:
    """What the view is of, after all."""
    value = node.inputs[0]
    while value is not None:
        maker = value.producer()
        if (
            maker is None
            or maker.graph is not node.graph
            or not applies(maker, "Reshape", "Flatten")
        ):
            break
        value = maker.inputs[0]
    return value


def _target(builder: GraphBuilder, node: ir.Node) -> tuple[int, ...] | None:
    """The shape that a Reshape gives to anything, if it is written out."""
    given = node.inputs[1] if applies(node, "Reshape") else None
    array = None if given is None else builder.constant_value(given)
    if array is None or (array <= 0).any():
        return None
    return tuple(int(size) for size in array)
