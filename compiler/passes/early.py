"""Values made while what they are made of is in the cache, and instead of keeping that."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import known_shape
from onnxtape.compiler.passes import GraphPass, applies

_ELEMENTWISE = frozenset(
    [
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Tanh", "Sign"),
        *("Sigmoid", "HardSigmoid", "Reciprocal", "Relu", "Softplus", "Softsign"),
    ]
)
#: Smaller values stay in the cache, or cost nothing to keep.
_LEAST = 1 << 16
#: The least number of nodes that run between.
_FAR = 16


class MakeEarly(GraphPass):
    """Moves elementwise nodes that make one value of several to where these are used before.

    An activation's slope is made of what the forward pass has computed, and nothing else: made
    there, it is all that has to be kept for the backward pass. Of Gelu that is one array instead
    of two.

    Args:
        late: the names of values that are not to be there earlier, see `schedule_updates`.
    """

    def __init__(self, late: Collection[str] = ()) -> None:
        self.late = late

    def run(self, model: ir.Model) -> bool:
        graph = model.graph
        builder = GraphBuilder(graph, opset=model.opset_imports.get("", 21))
        nodes = list(graph)
        place = {node: i for i, node in enumerate(nodes)}
        moved: set[ir.Node] = set()
        for node in reversed(nodes):
            if node in moved or not self._movable(node):
                continue
            made_by, taken = self._chain(builder, node, moved)
            if len(taken) < 2:
                continue
            inside = set(made_by)
            uses = {user for value in taken for user, _ in value.uses()} - inside
            makers = {maker for value in taken if (maker := value.producer()) is not None}
            near = uses | makers
            if len(makers) < len(taken) or not all(user in place for user in near):
                continue
            after = max(near, key=place.__getitem__)
            if min(map(place.__getitem__, made_by)) - place[after] < _FAR:
                continue
            moved |= inside
            ordered = sorted(made_by, key=place.__getitem__)
            graph.remove(ordered)
            graph.insert_after(after, ordered)
        return bool(moved)

    def _movable(self, node: ir.Node) -> bool:
        if not applies(node, *_ELEMENTWISE) or len(node.outputs) != 1:
            return False
        output = node.outputs[0]
        shape = known_shape(output)
        large = shape is not None and math.prod(shape) >= _LEAST
        return large and not output.is_graph_output() and output.name not in self.late

    def _chain(
        self, builder: GraphBuilder, node: ir.Node, moved: Collection[ir.Node]
    ) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes that make what only `node` uses, itself included, and what these take.

        Numbers and arrays that are constants do not count. Nothing is taken where a value of
        another shape is needed too.
        """
        shape = known_shape(node.outputs[0])
        chain, taken, pending = [node], dict[ir.Value, None](), [node]
        while pending:
            for value in pending.pop().inputs:
                if value is None or builder.constant_value(value) is not None or value in taken:
                    continue
                if known_shape(value) != shape or value.name in self.late:
                    return [], []
                maker = value.producer()
                inside = maker is not None and maker not in moved and self._movable(maker)
                if maker is not None and inside and all(u in chain for u, _ in value.uses()):
                    if maker not in chain:
                        chain.append(maker)
                        pending.append(maker)
                else:
                    taken[value] = None
        return chain, list(taken)
