"""Fewer Transposes: each part of the graph in the layout in which least has to be moved.

A channels-last network is full of pairs of Transposes around its convolutions, forward and
backward, with operators in between (activations, sums, concatenations) that care for no order of
axes. Let q be the permutation of such a pair. Every value of its rank then has two versions, v and
Transpose(v, q), and each of these operators can work on either. Choosing is a minimum cut: an
operator's side of the cut is its version, and a value whose producer and consumers are on different
sides costs its size, once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.passes.axis_free import AxisFree, axis_free
from onnxtape.compiler.subgraphs import unlink

Perm = tuple[int, ...]
#: What a dimension of unknown size counts as.
_TYPICAL_SIZE = 64


class SinkTransposes(GraphPass):
    """Merges Transposes of Transposes, and moves others to where the fewest elements pass them.

    Pads of some axes become pads of all. Operators are not added, but for cheap ones that keep what
    depends on the order of axes: a Gather of a Shape, an Unsqueeze of a bias.
    """

    adds = frozenset({"Transpose", "Gather", "Unsqueeze"})
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        changed = _merge(model.graph)
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed |= _pad_all_axes(builder, model.graph)
        for perm in _permutations(model.graph):
            changed |= _Layouts(builder, model.graph, perm).choose()
        return changed


def _perm(node: ir.Node) -> Perm | None:
    if not applies(node, "Transpose") or "perm" not in node.attributes:
        return None
    return tuple(node.attributes["perm"].as_ints())


def _inverse(perm: Perm) -> Perm:
    return tuple(int(i) for i in np.argsort(perm))


def _permutations(graph: ir.Graph) -> list[Perm]:
    """One of each pair of inverse permutations in the graph."""
    found: dict[Perm, None] = {}
    for node in graph:
        perm = _perm(node)
        if perm is not None and _inverse(perm) not in found:
            found[perm] = None
    return list(found)


def _merge(graph: ir.Graph) -> bool:
    """Transposes of Transposes as one, or none."""
    changed = False
    removed = []
    for node in graph:
        perm, x = _perm(node), node.inputs[0] if node.inputs else None
        inner = None if x is None else x.producer()
        first = None if inner is None else _perm(inner)
        if perm is None or inner is None or first is None:
            continue
        both = tuple(first[i] for i in perm)
        if list(both) != sorted(both):
            node.replace_input_with(0, inner.inputs[0])
            node.attributes["perm"] = ir.AttrInt64s("perm", both)
        elif node.outputs[0].is_graph_output() or inner.inputs[0] is None:
            continue
        else:
            ir.convenience.replace_all_uses_with(node.outputs[0], inner.inputs[0])
            unlink(node)
            removed.append(node)
        if not inner.outputs[0].uses() and not inner.outputs[0].is_graph_output():
            unlink(inner)
            removed.append(inner)
        changed = True
    graph.remove(removed)
    return changed


def _pad_all_axes(builder: GraphBuilder, graph: ir.Graph) -> bool:
    """Pads of some axes as pads of all.

    ONNX Runtime 1.32 fails where its own optimizer moves a Transpose past a Pad with `axes`.
    """
    changed = False
    for node in graph:
        x = node.inputs[0] if node.inputs else None
        if applies(node, "Pad") and len(node.inputs) > 3 and node.inputs[3] is not None:
            rank = None if x is None else builder.rank(x)
            free = None if rank is None else axis_free(builder, node, rank)
            if free is not None and rank is not None:
                free.turn(builder, tuple(range(rank)))
                changed = True
    return changed


class _Parities:
    """Which values are in the same version, as far as operators tell: union-find with parities."""

    def __init__(self) -> None:
        self._parent: dict[Any, tuple[Any, int]] = {}
        self._count: dict[Any, int] = {}

    def find(self, item: Any) -> tuple[Any, int]:
        """The item's representative, and whether it is in the other version."""
        parity = 0
        while item in self._parent:
            item, step = self._parent[item]
            parity ^= step
        return item, parity

    def join(self, a: Any, b: Any, parity: int) -> bool:
        """Note that `a` and `b` are in the same version (0) or not (1); False if that cannot be."""
        (root_a, at_a), (root_b, at_b) = self.find(a), self.find(b)
        if root_a is root_b:
            return at_a ^ at_b == parity
        count_a, count_b = self._count.get(root_a, 1), self._count.get(root_b, 1)
        small, large = (root_a, root_b) if count_a < count_b else (root_b, root_a)
        self._parent[small] = (large, at_a ^ at_b ^ parity)
        self._count[large] = count_a + count_b
        return True


class _Layouts:
    """The choice for one permutation q: Transpose(v, q) is version 1 of a v in version 0."""

    def __init__(self, builder: GraphBuilder, graph: ir.Graph, perm: Perm) -> None:
        self.b, self.graph = builder, graph
        #: What makes version k out of the other one.
        self.perms = (_inverse(perm), perm)
        self.rank = len(perm)
        self._links: dict[ir.Node, None] = {}
        self._free: dict[ir.Node, AxisFree] = {}
        self._readers: dict[ir.Node, AxisFree] = {}
        self._parities = _Parities()
        self._made: dict[ir.Value, ir.Value] = {}
        self._collect()

    def _collect(self) -> None:
        """The Transposes by q, and the operators connected with them that work on any version."""
        own_inverse = self.perms[0] == self.perms[1]
        for node in self.graph:
            perm, x = _perm(node), node.inputs[0] if node.inputs else None
            if perm not in self.perms or x is None or node.outputs[0].is_graph_output():
                continue
            if own_inverse:
                linked = self._parities.join(x, node.outputs[0], 1)
            else:
                version = self.perms.index(perm)
                linked = self._parities.join(x, "version 0", 1 - version)
                linked = linked and self._parities.join(node.outputs[0], "version 0", version)
            if linked:
                self._links[node] = None
        for node in self.graph:
            free = axis_free(self.b, node, self.rank)
            if free is None:
                continue
            if not free.keeps_rank:
                # Of a Shape turned, the result is another value; an output has to stay.
                if not (applies(node, "Shape") and node.outputs[0].is_graph_output()):
                    self._readers[node] = free
                continue
            if any(output.is_graph_output() for output in node.outputs):
                continue
            first, *others = [*free.values, *node.outputs]
            if all(self._parities.join(first, other, 0) for other in others):
                self._free[node] = free
        touched = {self._parities.find(link.outputs[0])[0] for link in self._links}

        def near(free: AxisFree) -> bool:
            return self._parities.find(free.values[0])[0] in touched

        self._free = {node: free for node, free in self._free.items() if near(free)}
        self._readers = {
            node: free
            for node, free in self._readers.items()
            if near(free) and free.reads_any(self.perms[self._version(free.values[0])])
        }

    def _version(self, value: ir.Value) -> int:
        """The version in which the graph has the value now.

        Where q is its own inverse, nothing tells the two apart, and either may be version 0.
        """
        (root, parity), (ground, offset) = map(self._parities.find, (value, "version 0"))
        return parity ^ offset if root is ground else parity

    def _origin(self, value: ir.Value) -> ir.Value:
        """The value that this one is a Transpose of, itself otherwise."""
        node = value.producer()
        while node is not None and node in self._links:
            source = node.inputs[0]
            assert source is not None
            value, node = source, source.producer()
        return value

    def _origins(self) -> Iterator[tuple[ir.Value, list[ir.Value]]]:
        """Each value that is here in two versions or near such: its original, and all of it."""
        classes: dict[ir.Value, dict[ir.Value, None]] = {}
        for link in self._links:
            classes.setdefault(self._origin(link.outputs[0]), {})[link.outputs[0]] = None
        for node, free in self._free.items():
            for value in (*free.values, *node.outputs):
                classes.setdefault(self._origin(value), {})
        for origin, others in classes.items():
            yield origin, [origin, *others]

    def choose(self) -> bool:
        """Move the Transposes if that makes them fewer, by elements; whether it did."""
        if not self._links:
            return False
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from([0, 1])
        classes = list(self._origins())
        now = 0
        for number, (origin, members) in enumerate(classes):
            size = _size(origin)
            now += size * (len(members) > 1)
            maker = self._side(origin.producer(), self._version(origin))
            takers = dict.fromkeys(taker for value in members for taker in self._takers(value))
            # Side 0 is the source's. A size is paid once, for any number of takers elsewhere.
            out, back = ("out", number), ("back", number)
            _pay(graph, maker, out, size)
            _pay(graph, back, maker, size)
            for taker in takers:
                graph.add_edge(out, taker)
                graph.add_edge(taker, back)
        cost, (_, others) = networkx.minimum_cut(graph, 0, 1)
        if cost >= now:
            return False
        self._rewrite(classes, {node for node in self._free if node in others})
        return True

    def _side(self, node: ir.Node | None, version: int) -> Any:
        """The graph's node that stands for this operator: itself, or the side where it is fixed."""
        return node if node is not None and node in self._free else version

    def _takers(self, value: ir.Value) -> Iterator[Any]:
        if value.is_graph_output():
            yield self._version(value)
        for node, _ in value.uses():
            if node not in self._links and node not in self._readers:
                yield self._side(node, self._version(value))

    # Rewriting --------------------------------------------------------------------------------

    def _rewrite(
        self, classes: Sequence[tuple[ir.Value, list[ir.Value]]], firsts: set[ir.Node]
    ) -> None:
        """Give each operator its version: 1 for `firsts`, 0 for the other free ones."""
        chosen = {node: int(node in firsts) for node in self._free}
        before = {v: self._version(v) for _, members in classes for v in members}
        moved = [n for n, version in chosen.items() if version != before[n.outputs[0]]]
        places = [
            (origin, before[value], node, index)
            for origin, members in classes
            for value in members
            for node, index in value.uses()
            if node not in self._links
        ]
        made_in = {
            origin: chosen[maker]
            if (maker := origin.producer()) is not None and maker in chosen
            else before[origin]
            for origin, _ in classes
        }
        for node in moved:
            back = self.perms[before[node.outputs[0]]]
            for output in node.outputs:
                dims = output.shape.dims if output.shape is not None else ()
                output.shape = ir.Shape([dims[i] for i in _inverse(back)])
        for origin, version, node, index in places:
            if node in self._readers:
                if made_in[origin] != version:
                    self._readers[node].turn(self.b, self.perms[version])
                node.replace_input_with(index, origin)
                continue
            aside = node in self._free and index in self._free[node].others
            wanted = version if aside else chosen.get(node, version)
            same = made_in[origin] == wanted
            node.replace_input_with(index, origin if same else self._other(origin, wanted))
        for node in moved:
            self._free[node].turn(self.b, self.perms[before[node.outputs[0]]])
        self.graph.remove(self._links, safe=True)

    def _other(self, origin: ir.Value, version: int) -> ir.Value:
        """The value in this version, in which it is not made."""
        found = self._made.get(origin)
        if found is not None:
            return found
        maker, perm = origin.producer(), self.perms[version]
        node = ir.Node("", "Transpose", [origin], attributes=[ir.AttrInt64s("perm", perm)])
        if maker is not None:
            node.metadata_props.update(maker.metadata_props)
            self.graph.insert_after(maker, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        value = self._made[origin] = node.outputs[0]
        value.name = self.b.unique_name("Transpose")
        node.name = f"{value.name}_node"
        value.type = origin.type
        if origin.shape is not None:
            value.shape = ir.Shape([origin.shape.dims[i] for i in perm])
        return value


def _pay(graph: Any, a: Any, b: Any, size: int) -> None:
    if a != b:
        graph.add_edge(a, b, capacity=size)


def _size(value: ir.Value) -> int:
    """About how many elements the value has."""
    dims = value.shape.dims if value.shape is not None else ()
    return max(1, math.prod(d if isinstance(d, int) else _TYPICAL_SIZE for d in dims))
