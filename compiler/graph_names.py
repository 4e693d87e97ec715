"""The names in a graph, which new ones must not repeat: of values and of dimensions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from onnxtape.compiler.dims import Dim


def values_in(graph: ir.Graph) -> Iterator[ir.Value]:
    """All values of the graph, those of its subgraphs included."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
        for attr in node.attributes.values():
            if attr.type == ir.AttributeType.GRAPH:
                yield from values_in(attr.as_graph())


#: What a builder appends to the name of a node's first value for the node's own.
NODE_SUFFIX = "_node"


def taken_in(graph: ir.Graph) -> tuple[set[str], set[str]]:
    """Names that values cannot have, and the symbols in shapes.

    Besides the values' those that would give a node another's name: ONNX Runtime's rewrites keep a
    node's name and change its values'.
    """
    names = {(node.name or "").removesuffix(NODE_SUFFIX) for node in graph.all_nodes()}
    dims: set[Dim] = set()
    for value in values_in(graph):
        if value.name:
            names.add(value.name)
        if value.shape is not None:
            dims.update(d.value for d in value.shape.dims if not isinstance(d, int))
    return names, symbols_in(dims)


def symbols_in(dims: Iterable[Dim]) -> set[str]:
    """The symbols in expressions such as `2*batch`."""
    return {s for d in dims if isinstance(d, str) for s in re.findall(r"[^\W\d]\w*", d)}
