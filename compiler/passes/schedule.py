"""An order of the nodes in which state can be updated in place.

A state output may share its state input's buffer when nothing can read the old value after the new
one has begun to be written. `schedule_updates` finds an order in which that holds for as many
entries as possible and says which they are. It must see the graph that will really run, after all
other rewrites, and whoever runs it must keep to the order (ONNX Runtime: optimizations off,
ExecutionOrder.PRIORITY_BASED).
"""

from __future__ import annotations

import functools
import heapq
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from onnxtape.compiler.dims import is_static, same_shape
from onnxtape.compiler.errors import RECOMPUTED
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.subgraphs import captured, graphs_in

#: Operators whose result may be a view of their first input's memory: readers of it are readers of
#: that memory.
VIEWS = frozenset(
    ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Optional", "Dropout")
)

#: Operators that read each element before they write the one in its place, and no other after.
_ELEMENTWISE = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Abs",
        "Sqrt",
        "Exp",
        "Log",
        "Reciprocal",
        "Identity",
        "Where",
        "Max",
        "Min",
        "Clip",
        "Relu",
        "Sigmoid",
        "Tanh",
        "BitwiseXor",
        "BitwiseAnd",
        "BitwiseOr",
        "Cast",
    ]
)

#: So many elements are written in no time.
_SMALL = 1024


def recomputed_values(model: ir.Model) -> frozenset[str]:
    """The names of what is computed again on purpose, rather than kept."""
    nodes = (node for node in model.graph if node.metadata_props.get(RECOMPUTED))
    return frozenset(output.name for node in nodes for output in node.outputs if output.name)


def schedule_updates(
    model: ir.Model, state: Mapping[str, str], late: Collection[str] = ()
) -> frozenset[str]:
    """Reorder the nodes of `model` so that updates come after the readers of what they overwrite.

    Args:
        model: the graph as it will run; operators of any domain.
        state: state input name -> state output name.
        late: the names of values that are made where they are first needed, and not before: what
            is computed again to save memory must not be there earlier.

    Returns:
        The state inputs whose outputs may be written in place in this order.
    """
    graph = model.graph
    nodes = _postponed(list(graph), late)
    index = {id(node): i for i, node in enumerate(nodes)}
    inputs = {v.name: v for v in graph.inputs}
    outputs = {v.name: v for v in graph.outputs}

    owner = dict(index)  # nodes of subgraphs belong to the node that holds the subgraph
    for i, node in enumerate(nodes):
        for inner in _inner_nodes(node):
            owner[id(inner)] = i

    # Per writer: the nodes that must have run before it may write in place.
    readers: dict[int, set[int]] = {}
    writers: dict[str, int] = {}
    for source, target in state.items():
        producer = outputs[target].producer() if target in outputs else None
        if producer is None or source not in inputs or inputs[source].is_graph_output():
            continue
        reading, views = _readers(inputs[source], owner)
        writer = index[id(producer)]
        if writer in reading and not _writes_elementwise(producer, inputs[source], views):
            continue
        writers[source] = writer
        readers.setdefault(writer, set()).update(reading - {writer})

    order = _order(nodes, index, readers)
    position = {node: place for place, node in enumerate(order)}
    graph.remove(nodes)
    graph.extend(nodes[i] for i in order)
    return frozenset(
        source
        for source, writer in writers.items()
        if all(position[r] < position[writer] for r in readers[writer])
    )


def _postponed(nodes: list[ir.Node], late: Collection[str]) -> list[ir.Node]:
    """The nodes in order, those that make `late` values just before the first that needs them.

    Among these belong nodes that only such nodes use, what the runtime's rewrites put between.
    """
    if not late:
        return nodes
    moved: set[int] = set()
    for node in reversed(nodes):
        users = [user for output in node.outputs for user, _ in output.uses()]
        whole = users and not any(output.is_graph_output() for output in node.outputs)
        made_late = any(output.name in late for output in node.outputs)
        if whole and (made_late or all(id(user) in moved for user in users)):
            moved.add(id(node))
    order: list[ir.Node] = []
    done: set[int] = set()
    for node in nodes:
        if id(node) in moved:
            continue
        pending = [node]
        while pending:
            top = pending[-1]
            missing = [p for p in _producers(top) if id(p) in moved and id(p) not in done]
            if missing:
                pending.extend(missing)
                continue
            pending.pop()
            if id(top) not in done:
                done.add(id(top))
                order.append(top)
    return order


def _readers(value: ir.Value, owner: Mapping[int, int]) -> tuple[set[int], set[int]]:
    """The nodes that may read the value's memory, and the values that may be views of it."""
    reading: set[int] = set()
    pending, views = [value], {id(value)}
    while pending:
        for node, place in pending.pop().uses():
            reading.add(owner[id(node)])
            if node.op_type in VIEWS and place == 0:
                fresh = [o for o in node.outputs if id(o) not in views]
                views.update(map(id, fresh))
                pending.extend(fresh)
    return reading, views


def _writes_elementwise(node: ir.Node, source: ir.Value, views: set[int]) -> bool:
    """Whether `node` may overwrite `source`, which it reads, element by element."""
    if node.op_type not in _ELEMENTWISE or node.domain not in ("", "ai.onnx"):
        return False
    output = node.outputs[0]
    # With more than two operands these write the first result before they read the third.
    if node.op_type in ("Max", "Min") and len(node.inputs) > 2:
        return False
    shapes = shape_of(source), shape_of(output)
    if None not in shapes and not same_shape(*shapes):
        return False
    # Only the operand itself lines up with what is written; a view of it may be broadcast.
    aliases = [x for x in node.inputs if id(x) in views]
    return all(x is source for x in aliases) and source.dtype == output.dtype


def _inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    for graph in graphs_in(node):
        yield from graph.all_nodes()


def _order(
    nodes: list[ir.Node], index: Mapping[int, int], readers: Mapping[int, set[int]]
) -> list[int]:
    """Topological, by the given order; a writer waits for its readers while others can run.

    Writers of little that no large update needs (metrics, random streams) come last, so that a step
    whose batch makes it fail has written nothing yet. Those of much do well to follow what they
    read, which is cached then.
    """
    successors: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    # Per node, as the bits of a number: the writers that it depends on.
    bits = {writer: 1 << k for k, writer in enumerate(readers)}
    after = [0] * len(nodes)
    for i, node in enumerate(nodes):
        sources = {index[id(p)] for p in _producers(node) if id(p) in index}
        missing[i] = len(sources)
        for source in sources:
            successors[source].append(i)
            after[i] |= after[source] | bits.get(source, 0)

    # To wait for a reader of the old value that needs the new one too would be in vain.
    waits = {
        writer: set(reading)
        for writer, reading in readers.items()
        if not any(after[reader] & bits[writer] for reader in reading)
    }
    blocks: dict[int, list[int]] = {}
    for writer, reading in waits.items():
        for reader in reading:
            blocks.setdefault(reader, []).append(writer)

    large = [writer for writer in readers if not _is_small(nodes[writer].outputs[0])]
    needed = functools.reduce(operator.or_, (after[w] | bits[w] for w in large), 0)
    last = [i in readers and not bits[i] & needed for i in range(len(nodes))]
    ready = [(last[i], i) for i, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    held: set[int] = set()
    order: list[int] = []
    while ready or held:
        if ready:
            _, i = heapq.heappop(ready)
            if waits.get(i):
                held.add(i)
                continue
        else:
            i = _in_a_circle(held, waits, after, bits)
            held.discard(i)
        order.append(i)
        for writer in blocks.get(i, ()):
            waits[writer].discard(i)
            if not waits[writer] and writer in held:
                held.discard(writer)
                heapq.heappush(ready, (last[writer], writer))
        for successor in successors[i]:
            missing[successor] -= 1
            if missing[successor] == 0:
                heapq.heappush(ready, (last[successor], successor))
    return order


def _is_small(value: ir.Value) -> bool:
    shape = shape_of(value)
    return is_static(shape) and math.prod(shape) <= _SMALL


def _in_a_circle(
    held: set[int],
    waits: Mapping[int, set[int]],
    after: Sequence[int],
    bits: Mapping[int, int],
) -> int:
    """One of the writers that wait for each other: it cannot write in place, the others may."""
    by_bit = {bits[writer]: writer for writer in held}
    everyone = sum(by_bit)
    writer = min(held)
    seen: set[int] = set()
    while writer not in seen:
        seen.add(writer)
        for reader in waits[writer]:
            blockers = (after[reader] | bits.get(reader, 0)) & everyone
            if blockers:
                writer = by_bit[blockers & -blockers]
                break
    return writer


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes whose outputs `node` uses, inside its subgraphs too."""
    used = [*node.inputs, *(value for graph in graphs_in(node) for value in captured(graph))]
    for value in used:
        if value is not None and (producer := value.producer()) is not None:
            yield producer


def copy_updates_last(model: ir.Model, outputs: Sequence[str]) -> None:
    """Let these state outputs be copies, made by nodes of their own, of what is computed for them.

    What another node reads of the old value it can then read before: `schedule_updates` finds an
    order in which they are updated in place, for the price of the copies.
    """
    graph = model.graph
    for place, value in enumerate(list(graph.outputs)):
        if value.name not in outputs or value.producer() is None:
            continue
        name = value.name
        value.name = f"{name}.made"
        copied = ir.Node("", "Identity", [value], num_outputs=1, name=f"{name}.copy")
        made = copied.outputs[0]
        made.name, made.type, made.shape = name, value.type, value.shape
        graph.append(copied)
        graph.outputs[place] = made
