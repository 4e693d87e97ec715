"""A step's graph as one for each part of the batch, and the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.notes import cloned
from onnxtape.compiler.operators import RANDOM
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.costs import byte_count, flop_count
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.sharding.placement import Placement, Shard, Spread, local_shape
from onnxtape.compiler.sharding.rules import Local, placed
from onnxtape.compiler.subgraphs import graphs_in

#: The input of a part's graph that says which sample is its first.
FIRST_SAMPLE = "first_sample"
#: One thread of a recent processor, on arrays in its cache; handing work to a second one.
_FLOPS_PER_SECOND, _BYTES_PER_SECOND = 1e11, 5e10
_SECONDS_PER_NODE, _SECONDS_TO_SHARE = 1e-6, 1e-5
#: Operators of less than that are not divided between threads.
_LEAST_SHARED_SECONDS = 2e-5
#: Operators that ONNX Runtime's CPU kernels leave to one thread.
_SERIAL = (
    *("Concat", "Expand", "Pad", "Resize", "ScatterElements", "Slice", "Split", "Tile"),
    "Transpose",
)
#: What starting the parts and waiting for them takes.
_SECONDS_TO_START = 1e-4
#: The parts have to be so much faster, by estimate: where it says 0.92 and 0.93, measurements did
#: not tell which was.
_WORTHWHILE = 0.91


class Split(NamedTuple):
    """A step in two graphs.

    Attributes:
        part: takes inputs of the step, whole, and `FIRST_SAMPLE`, int64 (1,); its outputs are a
            part's values.
        samples: how many samples a part has.
        rest: has the step's signature, and for each output x of `part` the inputs x.part0,
            x.part1, ... besides.
    """

    part: ir.Model
    samples: int
    rest: ir.Model


def part_name(name: str, part: int) -> str:
    """The rest's input that holds what a part has made."""
    return f"{name}.part{part}"


def split_batch(model: ir.Model, batch: Collection[str], parts: int) -> Split | None:
    """Cut a step in two, if its parts can run at the same time and that is faster, by estimate.

    Args:
        model: the step, of static shapes; it is left as it is.
        batch: the names of its batch inputs; those whose first dimension is the batch's are
            divided.
        parts: how many parts there are, one for each thread.
    """
    plan = _Plan(model, batch, parts)
    if not plan.worthwhile():
        return None
    return Split(_part(plan), plan.batch // parts, _rest(plan))


class _Plan:
    """Where the values of a graph are, and whose nodes run in the parts."""

    def __init__(self, model: ir.Model, batch: Collection[str], parts: int) -> None:
        self.model, self.graph, self.parts = model, model.graph, parts
        self.placements: dict[ir.Value, Placement] = {}
        self.local: dict[ir.Node, Local] = {}
        first = [(shape_of(value) or (0,))[0] for value in self.graph.inputs if value.name in batch]
        sizes = Counter(size for size in first if isinstance(size, int))
        self.batch = sizes.most_common(1)[0][0] if sizes else 0
        self.costs = _Costs(model.graph, parts)
        divides = self.batch >= 2 * parts and self.batch % parts == 0
        self.possible = divides and self.costs.least < self.costs.limit
        if not self.possible:
            return
        for value in self.graph.inputs:
            shape = shape_of(value)
            if value.name in batch and shape and shape[0] == self.batch:
                self.placements[value] = Shard(0)
        if not all(self._place(node) for node in self.graph):
            self.possible = False
            return
        #: What the rest needs of the parts.
        self.handed = [
            value for node in self.graph for value in node.outputs if self._is_handed(value)
        ]
        self.possible = bool(self.handed) and all(
            not isinstance(p, Shard) or p.outer == 1 for p in map(self.placement, self.handed)
        )

    def placement(self, value: ir.Value) -> Placement:
        return self.placements.get(value, Spread.REPLICATED)

    def _place(self, node: ir.Node) -> bool:
        """Say where a node's outputs are; False if a size is not known."""
        values = [x for x in (*node.inputs, *node.outputs) if x is not None]
        if not all(is_static(shape_of(value)) for value in values):
            return False
        inputs = [None if x is None else self.placement(x) for x in node.inputs]
        found: Sequence[Placement] | None = None
        if Spread.GLOBAL not in inputs and not graphs_in(node) and not applies(node, *RANDOM):
            if all(p in (None, Spread.REPLICATED) for p in inputs):
                return True
            local = Local(node, inputs, self.batch, self.parts)
            found = placed(local)
            if found is not None:
                self.local[node] = local
        for i, value in enumerate(node.outputs):
            self.placements[value] = Spread.GLOBAL if found is None else found[i]
        return True

    def _is_handed(self, value: ir.Value) -> bool:
        if self.placement(value) in (Spread.REPLICATED, Spread.GLOBAL):
            return False
        return value.is_graph_output() or any(
            self.placement(user.outputs[0]) is Spread.GLOBAL for user, _ in value.uses()
        )

    def needed(self) -> list[ir.Node]:
        """The nodes of a part, in order."""
        found: set[ir.Node] = set()
        left = [value.producer() for value in self.handed]
        while left:
            node = left.pop()
            if node is not None and node not in found:
                found.add(node)
                left += [x.producer() for x in node.inputs if x is not None]
        return [node for node in self.graph if node in found]

    def worthwhile(self) -> bool:
        """Whether the parts would be faster than the whole."""
        if not self.possible:
            return False
        needed = set(self.needed())
        seconds = _SECONDS_TO_START
        for node, work in self.costs.works.items():
            if node not in needed:
                seconds += self.costs.of_all(node)
            elif node in self.local:
                seconds += _SECONDS_PER_NODE + work / self.parts
            else:  # each part does all of it, and the rest may once more
                seconds += _SECONDS_PER_NODE + work + self.costs.of_all(node)
        return seconds < self.costs.limit


class _Costs:
    """What a graph's nodes cost, by estimate.

    Attributes:
        works: what one thread needs for each node, without the node's fixed cost, in seconds.
        limit: parts must take less than that to be worthwhile.
        least: what parts take at best.
    """

    def __init__(self, graph: ir.Graph, parts: int) -> None:
        self.parts = parts
        self.works = {node: _work(node) for node in graph}
        alone = sum(_SECONDS_PER_NODE + work for work in self.works.values())
        self.limit = _WORTHWHILE * min(alone, sum(map(self.of_all, self.works)))
        self.least = _SECONDS_TO_START + _SECONDS_PER_NODE * len(self.works)
        self.least += sum(self.works.values()) / parts

    def of_all(self, node: ir.Node) -> float:
        """What all threads take for a node, one operator after the other."""
        work = self.works[node]
        if work > _LEAST_SHARED_SECONDS and not applies(node, *_SERIAL):
            work = work / self.parts + _SECONDS_TO_SHARE
        return _SECONDS_PER_NODE + work


def _work(node: ir.Node) -> float:
    """What one thread needs for a node, without the node's fixed cost."""
    moved = sum(byte_count(x) for x in (*node.inputs, *node.outputs) if x is not None)
    return flop_count(node) / _FLOPS_PER_SECOND + moved / _BYTES_PER_SECOND


class _Part:
    """The graph of a part, as it grows."""

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        opsets = dict(plan.graph.opset_imports)
        graph = ir.Graph([], [], nodes=[], opset_imports=opsets, name=f"{plan.graph.name}_part")
        self.graph = graph
        self.builder = GraphBuilder(graph, opset=opsets.get("", 21))
        self.values: dict[ir.Value, ir.Value] = {}
        self._cut: dict[tuple[ir.Value, Shard], ir.Value] = {}
        self._bounds: dict[int, tuple[ir.Value, ir.Value]] = {}
        for value in (*plan.graph.inputs, *plan.graph.initializers.values()):
            self.builder.claim_name(value.name or "")
        for node in plan.graph:
            for value in node.outputs:
                self.builder.claim_name(value.name or "")
        self._first = self.builder.input(FIRST_SAMPLE, np.dtype(np.int64), (1,))

    def value(self, old: ir.Value) -> ir.Value:
        """What a part has for a value: itself, its samples' elements, or its share of a sum."""
        found = self.values.get(old)
        if found is not None:
            return found
        # An input or a constant, as all nodes are made in order.
        tensor = ir.convenience.get_const_tensor(old)
        made = ir.Value(name=old.name, shape=old.shape, type=old.type, const_value=tensor)
        if tensor is not None and not old.is_graph_input():
            self.graph.register_initializer(made)
        else:
            self.graph.inputs.append(made)
        shard = self.plan.placement(old)
        self.values[old] = self._slice(made, shard) if isinstance(shard, Shard) else made
        return self.values[old]

    def cut(self, old: ir.Value, shard: Shard) -> ir.Value:
        """A part's elements of a value that it has as a whole."""
        key = (old, shard)
        if key not in self._cut:
            self._cut[key] = self._slice(self.value(old), shard)
        return self._cut[key]

    def _slice(self, value: ir.Value, shard: Shard) -> ir.Value:
        if shard.inner not in self._bounds:
            begin = self._first
            if shard.inner > 1:
                (begin,) = self.builder.emit("Mul", [begin, self.builder.constant(shard.inner)], {})
            length = self.builder.constant([self.plan.batch // self.plan.parts * shard.inner])
            (end,) = self.builder.emit("Add", [begin, length], {})
            self._bounds[shard.inner] = (begin, end)
        begin, end = self._bounds[shard.inner]
        shape: Sequence[int] = shape_of(value) or ()  # type: ignore[assignment]
        wanted = local_shape(shape, shard, self.plan.parts)
        axis, outer = shard.axis, shard.outer
        if outer > 1:  # several times all samples: as an axis of their own
            table = [*shape[:axis], outer, shape[axis] // outer, *shape[axis + 1 :]]
            (value,) = self.builder.emit("Reshape", [value, self.builder.constant(table)], {})
            axis += 1
        axes = self.builder.constant([axis])
        (made,) = self.builder.emit("Slice", [value, begin, end, axes], {})
        if outer > 1:
            (made,) = self.builder.emit("Reshape", [made, self.builder.constant(wanted)], {})
        made.shape = ir.Shape(wanted)
        return made

    def copy(self, node: ir.Node) -> None:
        """The same operator on what a part has."""
        local = self.plan.local.get(node)
        inputs: list[ir.Value | None] = []
        for i, x in enumerate(node.inputs):
            if x is None:
                inputs.append(None)
            elif local is not None and i in local.constants:
                inputs.append(self.builder.constant(local.constants[i]))
            elif local is not None and i in local.cuts:
                inputs.append(self.cut(x, local.cuts[i]))
            else:
                inputs.append(self.value(x))
        made = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            num_outputs=len(node.outputs),
            name=node.name,
            metadata_props=dict(node.metadata_props),
        )
        self.graph.append(made)
        for old, new in zip(node.outputs, made.outputs, strict=True):
            placement = self.plan.placement(old)
            shape: Sequence[int] = shape_of(old) or ()  # type: ignore[assignment]
            new.name, new.type = old.name, old.type
            new.shape = ir.Shape(local_shape(shape, placement, self.plan.parts))
            self.values[old] = new
            if local is not None and local.averaged:
                new.name = self.builder.claim_name(f"{old.name}.own")
                self.values[old] = self._share_of_mean(new)
                self.values[old].name = old.name

    def _share_of_mean(self, value: ir.Value) -> ir.Value:
        assert value.dtype is not None
        share = self.builder.constant(np.asarray(1 / self.plan.parts, value.dtype.numpy()))
        (made,) = self.builder.emit("Mul", [value, share], {})
        return made


def _part(plan: _Plan) -> ir.Model:
    part = _Part(plan)
    for node in plan.needed():
        part.copy(node)
    part.graph.outputs.extend(part.values[value] for value in plan.handed)
    return ir.Model(part.graph, ir_version=plan.model.ir_version)


def _rest(plan: _Plan) -> ir.Model:
    """A copy of the step that takes what the parts make."""
    model = cloned(plan.model)
    graph = model.graph
    nodes = list(graph)
    copies = {value.name: value for node in nodes for value in node.outputs}
    for old in plan.handed:
        placement, name = plan.placement(old), old.name or ""
        value, shape = copies[name], shape_of(old) or ()
        inputs = [
            ir.Value(
                name=part_name(name, i),
                shape=ir.Shape(local_shape(shape, placement, plan.parts)),  # type: ignore[arg-type]
                type=value.type,
            )
            for i in range(plan.parts)
        ]
        graph.inputs.extend(inputs)
        producer = value.producer()
        assert producer is not None
        if isinstance(placement, Shard):
            joined = ir.Node("", "Concat", inputs, [ir.AttrInt64("axis", placement.axis)])
        else:
            joined = ir.Node("", "Add" if plan.parts == 2 else "Sum", inputs)
        joined.name = f"{name}_joined"
        joined.metadata_props.update(producer.metadata_props)
        (whole,) = joined.outputs
        whole.shape, whole.type = value.shape, value.type
        graph.insert_before(nodes[0], joined)
        ir.convenience.replace_all_uses_with(value, whole, replace_graph_outputs=True)
        value.name, whole.name = f"{name}.local", name
    RemoveDeadCode().run(model)
    return model
