"""Which operands torch.onnx.export (dynamo) has noted to be detached, and which it has lost.

The exporter writes `detach` as an Identity, which its optimizer removes. What is left is the call
that each node stems from, as "%add : ...aten.add.Tensor](args = (%x, %detach))": of the values that
the nodes of this call take, the one that the call does not name is the detached one.

Where PyTorch's exporters note nothing (below opset 18, with dynamo=False), (y - x) + x is taken for
the straight-through estimator x + (y - x).detach(), without which it would be y.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxtape import context

if TYPE_CHECKING:
    import onnx

#: The key under which a node's call is noted.
CALL = "pkg.torch.onnx.fx_node"

_NAME = re.compile(r"%(\w+)")
_DETACHED = re.compile(r"detach(?:_(\d+))?")


@dataclass(slots=True)
class _Call:
    """A call of the framework's program, and the nodes that it has become.

    Attributes:
        result: its name in the program.
        names: of the values that it takes there.
        taken: the values that the nodes take, without constants.
    """

    result: str
    names: Collection[str]
    nodes: list[onnx.NodeProto]
    taken: frozenset[str]

    @property
    def unnamed(self) -> frozenset[str]:
        """What the nodes take and the call does not name."""
        return frozenset(t for t in self.taken if _as_written(t).isdisjoint(self.names))

    @property
    def detached(self) -> frozenset[str]:
        return frozenset(name for name in self.names if _DETACHED.fullmatch(name))


def calls_of(graph: onnx.GraphProto, op_type: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    """The nodes of an operator, with the calls that they stem from."""
    for node in graph.node:
        if node.op_type == op_type:
            yield from ((node, p.value) for p in node.metadata_props if p.key == CALL)


def has_call(node: onnx.NodeProto) -> bool:
    """Whether the exporter has noted the call that a node stems from."""
    return any(p.key == CALL for p in node.metadata_props)


def detached_inputs(
    graph: onnx.GraphProto, parameters: Collection[str]
) -> dict[str, frozenset[int]]:
    """By a node's first output: the inputs through which no gradient flows in the framework.

    Warns where the optimizer has removed calls of `detach` whose places the notes do not tell.
    """
    values = {name for node in graph.node for name in node.output}
    found = {
        node.output[0]: frozenset([0])
        for node, call in calls_of(graph, "Identity")
        if "[target=torch.ops.aten.detach.default]" in call
    }
    calls = list(_calls(graph, parameters))
    mentioned = {name for call in calls for name in (call.result, *call.names)}
    numbers = [int(m[1] or 0) for m in map(_DETACHED.fullmatch, mentioned) if m]
    lost = len(numbers) <= max(numbers, default=-1)
    merged = _merged(calls, values)
    for call in calls:
        removed = call.detached - values
        if not removed:
            continue
        if len(removed) > 1 or len(call.unnamed) != 1 or call.result in merged:
            lost = True
            continue
        for node in call.nodes:
            places = frozenset(i for i, name in enumerate(node.input) if name in call.unnamed)
            if places:
                found[node.output[0]] = places
    if lost:
        context.warn_user(
            "the exporter's optimizer has removed calls of torch.Tensor.detach, and its notes do "
            "not tell from where: gradients flow there that PyTorch stops. Export the model with "
            "torch.onnx.export(..., optimize=False)"
        )
    return found


def straight_through(graph: onnx.GraphProto) -> dict[str, frozenset[int]]:
    """By a node's first output: the difference y - x in a sum (y - x) + x without notes."""
    differences = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "Sub"}
    found = {}
    for node in graph.node:
        if node.op_type == "Add" and not has_call(node):
            for i, x in enumerate(reversed(node.input)):
                if differences.get(node.input[i]) == x:
                    found[node.output[0]] = frozenset([i])
    return found


def _calls(graph: onnx.GraphProto, parameters: Collection[str]) -> Iterator[_Call]:
    """The calls that are noted; each has a text of its own."""
    constants = {t.name for t in graph.initializer if t.name not in parameters}
    constants.update(n.output[0] for n in graph.node if n.op_type == "Constant")
    constants.update(i.name for i in graph.input)
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for noted in node.metadata_props:
            if noted.key == CALL:
                nodes.setdefault(noted.value, []).append(node)
    for text, made in nodes.items():
        result, *names = _NAME.findall(text) or [""]
        inside = {name for node in made for name in node.output}
        taken = {name for node in made for name in node.input if name}
        yield _Call(result, frozenset(names), made, frozenset(taken - inside - constants))


def _merged(calls: Collection[_Call], values: Collection[str]) -> set[str]:
    """The results that now stand for other calls' too, which differed at most by what is detached.

    Where a call names "mse_loss_1", which nothing makes, and takes "mse_loss", these were one.
    """
    merged: set[str] = set()
    for call in calls:
        gone = {_stem(name) for name in call.names if name not in values}
        merged.update(name for name in call.taken if _stem(name) in gone)
    return merged


def _as_written(name: str) -> set[str]:
    """What calls name a value of the graph: a parameter "a.b" is "p_a_b" there."""
    return {name, "p_" + name.replace(".", "_").lower()}


def _stem(name: str) -> str:
    return re.sub(r"_\d+$", "", name)
