"""The graphs inside nodes (the branches of an If, the bodies of Loop and Scan).

A subgraph may use values of the graphs around it; it captures them. What asks who uses a value, or
what a node depends on, has to look inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

import onnx_ir as ir

from onnxtape.compiler import registry
from onnxtape.compiler.autodiff import record_of
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dtypes import from_onnx, is_floating
from onnxtape.compiler.record import Record

if TYPE_CHECKING:
    from onnxtape.compiler.graph_builder import GraphBuilder

V = TypeVar("V")

#: The key of `metadata_props` that says how a node is differentiated; see `STOPPED`.
GRADIENT_KEY = "onnxtape.gradient"
#: No gradient flows through the node.
STOPPED = "stopped"


def graphs_in(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs that the node holds itself, those inside them left out."""
    return [
        attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH
    ]


def captured(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values from outside that `graph` and the graphs inside it use; some several times."""
    inside: set[ir.Value] = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        used = [x for x in node.inputs if x is not None]
        for inner in graphs_in(node):
            used.extend(captured(inner))
        yield from (x for x in used if x not in inside)
        inside.update(node.outputs)
    yield from (x for x in graph.outputs if x not in inside)


def record_with_captured(node: ir.Node) -> Record[ir.Value]:
    """The node's record, with what its subgraphs capture as further inputs.

    Without them nothing would show that the result depends on them.
    """
    record = record_of(node)
    taken = dict.fromkeys(x for graph in graphs_in(node) for x in captured(graph))
    return replace(record, inputs=(*record.inputs, *taken)) if taken else record


def records_of(nodes: Iterable[ir.Node]) -> list[Record[ir.Value]]:
    """The nodes as the driver sees them; without those through which no gradient flows."""
    return [
        record_with_captured(node)
        for node in nodes
        if node.metadata_props.get(GRADIENT_KEY) != STOPPED
    ]


def influenced(records: Sequence[Record[ir.Value]], sources: Iterable[ir.Value]) -> set[ir.Value]:
    """What depends on the sources by operators that may carry a derivative, and they themselves."""
    reached = set(sources)
    for record in records:
        if not record.domain and registry.has_zero_gradient(record.op_type):
            continue
        if any(x is not None and x in reached for x in record.inputs):
            reached.update(o for o in record.outputs if o.dtype is None or floats(o))
    return reached


def floats(value: ir.Value) -> bool:
    """Whether the value is known to hold floating-point numbers."""
    return value.dtype is not None and is_floating(from_onnx(value.dtype.value))


def copy_into(
    b: GraphBuilder, graph: ir.Graph, given: Mapping[ir.Value, ir.Value]
) -> list[ir.Value]:
    """Append copies of the graph's nodes to the graph that `b` builds.

    Args:
        given: what stands for the graph's inputs, and for values from outside; those that are
            missing here stand for themselves.

    Returns:
        What stands for the graph's outputs.
    """
    values = dict(given)
    for initializer in graph.initializers.values():
        if initializer.const_value is not None and initializer not in values:
            values[initializer] = b.constant(initializer.const_value.numpy())
    for node in graph:
        values.update(zip(node.outputs, copy_node(b, node, values), strict=True))
    return [values.get(x, x) for x in graph.outputs]


def copy_node(
    b: GraphBuilder, node: ir.Node, given: Mapping[ir.Value, ir.Value]
) -> tuple[ir.Value, ...]:
    """Append a copy of one node, its subgraphs included, to the graph that `b` builds.

    Args:
        given: what stands for the values that it uses; others stand for themselves.
    """
    inputs = [None if x is None else given.get(x, x) for x in node.inputs]
    attributes = [_copied(b, attr, given) for attr in node.attributes.values()]
    return b.copy(node, inputs, attributes)


def _copied(b: GraphBuilder, attr: ir.Attr, values: Mapping[ir.Value, ir.Value]) -> ir.Attr:
    if attr.type != ir.AttributeType.GRAPH:
        return attr
    graph = attr.as_graph()
    inner = b.nested(graph.name or attr.name)
    given = dict(values)
    for x in graph.inputs:
        given[x] = inner.input_like(x)
    add_outputs(inner, copy_into(inner, graph, given))
    return ir.AttrGraph(attr.name, inner.subgraph)


def add_outputs(b: GraphBuilder, values: Iterable[ir.Value]) -> None:
    """Append outputs to a subgraph, each by a node of its own in it, as ONNX Runtime wants them."""
    graph = b.subgraph
    for value in values:
        maker = value.producer()
        if maker is None or maker.graph is not graph or value in graph.outputs:
            value = b.op("Identity", value)
        graph.outputs.append(value)


def detach(node: ir.Node) -> None:
    """Let nothing inside the node, which has been removed, count as a use of what it captured."""
    for graph in graphs_in(node):
        discard(graph)


def discard(graph: ir.Graph) -> None:
    """Let nothing in a subgraph, which no node holds, count as a use of what it captured."""
    for node in graph:
        detach(node)
        unlink(node)


def unlink(node: ir.Node) -> None:
    """Let the node, whose results nobody uses, use nothing itself, until it is removed.

    One removal takes onnx_ir time in proportion to the graph's outputs, however many nodes it is
    given: whoever drops many nodes unlinks each of them, and removes them all at the end.
    """
    for i in range(len(node.inputs)):
        node.replace_input_with(i, None)


def remove_unused(graph: ir.Graph) -> bool:
    """Remove the nodes that the graph's outputs do not depend on, and constants nobody uses.

    Returns:
        Whether there were any.
    """
    kept = set(graph.outputs)
    unused = []
    for node in reversed(graph):
        if not any(o in kept or o.uses() for o in node.outputs):
            unlink(node)
            detach(node)
            unused.append(node)
    graph.remove(unused)
    kept.update(graph.inputs)
    spare = [v for v in graph.initializers.values() if not v.uses() and v not in kept]
    for value in spare:
        del graph.initializers[value.name or ""]
    return bool(unused or spare)


class Scope(Generic[V]):
    """The values of a graph that a subgraph in the making captures.

    Args:
        b: the builder of the graph around it.
    """

    def __init__(self, b: Builder[V]) -> None:
        self._b = b
        self._values: dict[ir.Value, V] = {}

    @property
    def values(self) -> list[V]:
        return list(self._values.values())

    def symbol(self, value: V) -> ir.Value:
        """The value inside the subgraph; no two values are one there.

        (A tensor and itself behind `stop_gradient` share a value of the graph.)
        """
        symbol: ir.Value = self._b.symbol(value)
        if self._values.setdefault(symbol, value) is not value:
            value = self._b.op("Identity", value)
            symbol = self._b.symbol(value)
            self._values[symbol] = value
        return symbol
