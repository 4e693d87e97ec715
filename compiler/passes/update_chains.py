"""Finding the elementwise chains of nodes that give state its new values.

An optimizer's update of a variable is elementwise: from the variable, its averages and its
gradient, all of one shape, and a few numbers. Chains that differ only in the variable can run as
one, on the variables laid end to end; and a chain can run piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.schedule import VIEWS

#: Operators that give each element from the elements in its place, of equal shapes or numbers.
_ELEMENTWISE = frozenset(
    [
        *("Abs", "Add", "Clip", "Div", "Exp", "Log", "Max", "Min", "Mul", "Neg", "Pow"),
        *("Reciprocal", "Relu", "Sign", "Sqrt", "Sub", "Tanh", "Where"),
    ]
)


#: A variable with as many elements is updated by itself.
LARGE = 1 << 18


@dataclass(frozen=True)
class Chain:
    """The nodes that together update state entries of one shape.

    Attributes:
        nodes: in topological order.
        sources: the state inputs that are updated.
        targets: the state outputs, in the same order.
        arrays: what else of that shape the nodes read, gradients above all.
        scalars: the single numbers that they read.
        scattered: sources that the nodes read only after rows were scattered into them: by the
            place among the sources, the result of that ScatterND.
        signature: equal for chains that compute the same from the same numbers.
    """

    nodes: Sequence[ir.Node]
    sources: Sequence[ir.Value]
    targets: Sequence[ir.Value]
    arrays: Sequence[ir.Value]
    scalars: Sequence[ir.Value]
    scattered: Mapping[int, ir.Value]
    signature: Any

    @property
    def shape(self) -> tuple[int, ...]:
        shape = shape_of(self.sources[0])
        assert is_static(shape)
        return shape

    @property
    def size(self) -> int:
        """The number of elements of each entry."""
        return _size(self.sources[0])


def update_chains(model: ir.Model, state: Mapping[str, str]) -> list[Chain]:
    """The chains of a graph, each as long as nobody outside reads what is computed inside.

    Args:
        model: a graph with the shapes of its values; operators of any domain.
        state: state input name -> state output name.
    """
    graph = model.graph
    inputs = {v.name: v for v in graph.inputs}
    targets = {target: inputs[source] for source, target in state.items() if source in inputs}
    nodes = list(graph)
    parent: dict[int, int] = {}  # a forest over the places of nodes that belong together

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    place_of = {id(node): i for i, node in enumerate(nodes)}
    for i, node in reversed(list(enumerate(nodes))):
        if not _belongs(node, targets):
            continue
        users = [place_of.get(id(user)) for user, _ in node.outputs[0].uses()]
        if any(user is None or user not in parent for user in users):
            continue
        if not users and not node.outputs[0].is_graph_output():
            continue
        parent[i] = i
        for user in users:
            assert user is not None
            parent[root(user)] = root(i)

    members: dict[int, list[ir.Node]] = {}
    for i, node in enumerate(nodes):
        if i in parent:
            members.setdefault(root(i), []).append(node)
    order = {source: n for n, source in enumerate(state)}
    found = (_chain(chain, targets, order) for chain in members.values())
    chains = [chain for chain in found if chain is not None]
    # In an order that does not depend on the rest of the graph.
    return sorted(chains, key=lambda chain: order[chain.sources[0].name or ""])


def _belongs(node: ir.Node, targets: Mapping[str, ir.Value]) -> bool:
    """Whether the node is elementwise over one static shape and float32, numbers aside."""
    if node.op_type not in _ELEMENTWISE or node.domain not in ("", "ai.onnx"):
        return False
    output = node.outputs[0]
    if output.is_graph_output() and output.name not in targets:
        return False
    shape = shape_of(output)
    if not is_static(shape) or output.dtype != ir.DataType.FLOAT or math.prod(shape) < 2:
        return False
    return all(
        value is None
        or (shape_of(value) == shape and value.dtype == ir.DataType.FLOAT)
        or _is_number(value)
        for value in node.inputs
    )


def _size(value: ir.Value) -> int:
    shape = shape_of(value)
    assert is_static(shape)
    return math.prod(shape)


def _is_number(value: ir.Value) -> bool:
    return shape_of(value) in ((), (1,))


def _chain(
    nodes: Sequence[ir.Node], targets: Mapping[str, ir.Value], order: Mapping[str, int]
) -> Chain | None:
    """The chain of these nodes, unless it reads what is not there at the end of a step."""
    ends = [n.outputs[0] for n in nodes if n.outputs[0].is_graph_output()]
    ends.sort(key=lambda end: order[targets[end.name or ""].name or ""])
    sources = [targets[end.name or ""] for end in ends]
    if any(shape_of(s) != shape_of(ends[0]) or s.dtype != ends[0].dtype for s in sources):
        return None
    inside = {id(node) for node in nodes}
    if _size(ends[0]) < LARGE:
        inside -= {id(node) for node in nodes if _scales_a_gradient(node, inside)}
    nodes = _from_the_ends(ends, inside)
    made = {id(node.outputs[0]): i for i, node in enumerate(nodes)}
    own = {id(source): role for role, source in enumerate(sources)}
    scattered = _scattered(nodes, own)
    own |= {id(value): role for role, value in scattered.items()}
    arrays: dict[int, ir.Value] = {}
    scalars: dict[int, ir.Value] = {}

    def described(value: ir.Value | None) -> Any:
        if value is None:
            return None
        if id(value) in made:
            return ("node", made[id(value)])
        if id(value) in own:
            return ("state", own[id(value)])
        if _is_number(value):
            scalars[id(value)] = value
            return ("number", id(value))
        arrays.setdefault(id(value), value)
        return ("array", list(arrays).index(id(value)))

    operations = tuple(
        (
            node.op_type,
            tuple(sorted((name, str(a.value)) for name, a in node.attributes.items())),
            tuple(described(value) for value in node.inputs),
        )
        for node in nodes
    )
    # Somebody else's state, or a constant: it would have to be copied at every step.
    if any(value.producer() is None for value in arrays.values()):
        return None
    # A number that is updated too may have its new value already when the chain runs.
    if any(_viewed(value).name in order for value in scalars.values()):
        return None
    signature = (operations, tuple(made[id(end)] for end in ends), tuple(scattered))
    numbers = list(scalars.values())
    return Chain(nodes, sources, ends, list(arrays.values()), numbers, scattered, signature)


def _scattered(nodes: Sequence[ir.Node], own: Mapping[int, int]) -> dict[int, ir.Value]:
    """See `Chain.scattered`. Nobody else may read the source, whose memory is written early.

    ONNX Runtime's ScatterND writes the rows alone when its result is bound to its input's memory.
    """
    found = {}
    for value in (value for node in nodes for value in node.inputs):
        scatter = None if value is None else value.producer()
        if value is None or scatter is None or not applies(scatter, "ScatterND"):
            continue
        source = scatter.inputs[0]
        if source is None or id(source) not in own or value.is_graph_output():
            continue
        if len(source.uses()) == 1 and shape_of(value) == shape_of(source):
            found[own[id(source)]] = value
    return found


def _scales_a_gradient(node: ir.Node, inside: set[int]) -> bool:
    """Whether the node multiplies an array from outside the chain by a constant.

    Some gradients have that factor inside already (see `FoldScale`), which must not set their
    variables apart: the traces of one step for different shapes would then pack differently.
    """
    if node.op_type != "Mul" or node.outputs[0].is_graph_output():
        return False
    for array, factor in (node.inputs, node.inputs[::-1]):
        maker = None if array is None else array.producer()
        if maker is None or array is None or factor is None or id(maker) in inside:
            continue
        if len(array.uses()) == 1 and factor.is_initializer() and not _is_number(array):
            return True
    return False


def _viewed(value: ir.Value) -> ir.Value:
    """The value whose memory this one may share."""
    while (node := value.producer()) is not None and node.op_type in VIEWS:
        if (source := node.inputs[0]) is None:
            break
        value = source
    return value


def _from_the_ends(ends: Sequence[ir.Value], inside: set[int]) -> list[ir.Node]:
    """The nodes in a topological order that depends on what they compute alone."""
    done: dict[int, ir.Node] = {}
    pending = [(end.producer(), False) for end in reversed(ends)]
    while pending:
        node, expanded = pending.pop()
        if node is None or id(node) not in inside or id(node) in done:
            continue
        if expanded:
            done[id(node)] = node
            continue
        pending.append((node, True))
        pending.extend((v.producer(), False) for v in reversed(node.inputs) if v is not None)
    return list(done.values())
