"""Updates of state laid end to end, in pieces that stay in the cache.

A rewrite of the graph that one session is going to run on the CPU, not of what is exported. Where
many small variables are updated alike, each array of the update (the variables, each average, the
gradients) becomes one block of memory; the variables are views of it. The update then runs over the
block: a few nodes instead of a few for each variable, and on arrays that are long enough for ONNX
Runtime to use several threads (a float32 operator of one arithmetic operation uses a second one
from 88 thousand elements on). Where a block is long, the whole chain of nodes runs piece by piece.

In the graph, a piece is an input and an output of its own. That they share memory with each other,
with the variables' inputs and with the gradients' outputs is not to be seen there: the pieces stand
at the end of the graph, after everything that reads the variables or computes a gradient, and
whoever runs it must keep to the order (see `schedule`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxtape.compiler.passes.schedule import schedule_updates
from onnxtape.compiler.passes.update_chains import LARGE, Chain, update_chains

#: The least number of elements in a piece: enough for two threads, and half a megabyte.
PIECE = 1 << 17
#: Pieces become longer rather than more.
MOST_PIECES = 64
#: Variables begin at multiples of so many elements, 64 bytes.
ALIGNMENT = 16


@dataclass(frozen=True)
class Block:
    """A block of float32 memory, and what the graph sees of it.

    Attributes:
        size: its number of elements.
        members: state inputs, each with the element it begins at. They need not be inputs of the
            graph any more.
        results: outputs that are written there, each with the element it begins at and its shape.
        inputs: inputs of the graph that are slices of the block: name, first element, end.
        outputs: such outputs.
    """

    size: int
    members: dict[str, int] = field(default_factory=dict)
    results: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    inputs: list[tuple[str, int, int]] = field(default_factory=list)
    outputs: list[tuple[str, int, int]] = field(default_factory=list)


def schedule_packed(
    model: ir.Model, state: Mapping[str, str], late: Collection[str] = ()
) -> tuple[frozenset[str], list[Block]]:
    """Pack the updates of `model` and order its nodes so that state can be updated in place.

    Args:
        model: the graph as it will run, on the CPU.
        state: state input name -> state output name.
        late: see `schedule_updates`.

    Returns:
        The state inputs outside of blocks whose outputs may be written in place, as
        `schedule_updates` says; and the blocks.
    """
    groups: dict[object, list[Chain]] = {}
    for chain in update_chains(model, state):
        alone = id(chain) if chain.size >= LARGE else None
        groups.setdefault((chain.signature, alone), []).append(chain)
    packed: list[Block] = []
    count = 0
    last: list[ir.Node] = []
    left = dict(state)
    for chains in groups.values():
        if len(chains) == 1 and chains[0].size < 2 * PIECE:
            continue
        template = _template(chains[0])
        if template is None:
            continue
        for chain in chains:
            for source in chain.sources:
                del left[source.name or ""]
        blocks, nodes = _pack(model.graph, chains, template, f"update{count}")
        count += 1
        packed += blocks
        last += nodes
    in_place = schedule_updates(model, left, late)
    model.graph.extend(last)
    return in_place, packed


def _template(chain: Chain) -> ir.Graph | None:
    """The chain as a graph of its own, in an order in which it can write all state in place.

    Its inputs are the chain's sources, arrays and scalars. None if there is no such order.
    """
    copies: dict[int, ir.Value] = {}

    def copy(value: ir.Value) -> ir.Value:
        made = ir.Value(name=value.name, shape=value.shape, type=value.type)
        return copies.setdefault(id(value), made)

    inputs = [copy(v) for v in [*chain.sources, *chain.arrays, *chain.scalars]]
    copies |= {id(value): inputs[role] for role, value in chain.scattered.items()}
    nodes = []
    for node in chain.nodes:
        made = _repeated(node, copies)
        made.outputs[0].name = node.outputs[0].name
        nodes.append(made)
    outputs = [copies[id(target)] for target in chain.targets]
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 21}, name="update")
    pairs = zip(chain.sources, chain.targets, strict=True)
    state = {source.name or "": target.name or "" for source, target in pairs}
    in_place = schedule_updates(ir.Model(graph, ir_version=10), state)
    return graph if in_place == state.keys() else None


def _repeated(node: ir.Node, values: dict[int, ir.Value]) -> ir.Node:
    """The same operation on `values`, by the ids of those that it has now; extends `values`."""
    used = [None if v is None else values[id(v)] for v in node.inputs]
    attributes, metadata = node.attributes.values(), dict(node.metadata_props)
    made = ir.Node(node.domain, node.op_type, used, attributes, metadata_props=metadata)
    (output,) = node.outputs
    made.outputs[0].shape, made.outputs[0].type = output.shape, output.type
    values[id(output)] = made.outputs[0]
    return made


def _pack(
    graph: ir.Graph, chains: Sequence[Chain], template: ir.Graph, name: str
) -> tuple[list[Block], list[ir.Node]]:
    """Take the chains out of the graph; return their blocks, and the nodes that update these."""
    starts, size = [], 0
    for chain in chains:
        starts.append(size)
        size += -(-chain.size // ALIGNMENT) * ALIGNMENT
    if len(chains) == 1:
        size = chains[0].size
    scalars = chains[0].scalars
    blocks = [
        Block(size, {c.sources[role].name or "": s for c, s in zip(chains, starts, strict=True)})
        for role in range(len(template.outputs))
    ]
    arrays = [Block(size) for _ in chains[0].arrays]
    nodes: list[ir.Node] = []
    _take_out(graph, chains)
    for chain, start in zip(chains, starts, strict=True):
        for block, value in zip(arrays, chain.arrays, strict=True):
            result = _as_output(graph, value)
            block.results[result.name or ""] = (start, chain.shape)
        for role, value in chain.scattered.items():
            scatter = value.producer()
            assert scatter is not None
            graph.outputs.append(value)
            blocks[role].results[value.name or ""] = (start, chain.shape)
            # Where nothing can fail any more: it writes into the state.
            graph.remove(scatter)
            nodes.append(scatter)
    blocks += arrays

    pieces = max(1, min(size // PIECE, MOST_PIECES))
    step = -(-size // (pieces * ALIGNMENT)) * ALIGNMENT
    for piece, begin in enumerate(range(0, size, step)):
        end = min(begin + step, size)
        shape = ir.Shape([end - begin])
        values: dict[int, ir.Value] = {}
        for role, (block, inner) in enumerate(zip(blocks, template.inputs, strict=False)):
            view = ir.Value(name=f"{name}.{role}.{piece}", shape=shape, type=inner.type)
            values[id(inner)] = view
            graph.inputs.append(view)
            block.inputs.append((view.name or "", begin, end))
        for inner, number in zip(template.inputs[len(blocks) :], scalars, strict=True):
            values[id(inner)] = number
        for i, node in enumerate(template):
            made = _repeated(node, values)
            made.name = f"{name}.node{i}.{piece}"
            made.outputs[0].name, made.outputs[0].shape = f"{name}.value{i}.{piece}", shape
            nodes.append(made)
        for block, inner in zip(blocks, template.outputs, strict=False):
            graph.outputs.append(values[id(inner)])
            block.outputs.append((values[id(inner)].name or "", begin, end))
    return blocks, nodes


def _take_out(graph: ir.Graph, chains: Sequence[Chain]) -> None:
    """Remove the chains' nodes, their outputs, and those of their inputs that nobody else reads."""
    _drop(graph.outputs, {id(target) for chain in chains for target in chain.targets})
    # All at once: each call looks through all outputs.
    graph.remove([node for chain in chains for node in chain.nodes], safe=True)
    sources = (source for chain in chains for source in chain.sources)
    _drop(graph.inputs, {id(source) for source in sources if not source.uses()})


def _drop(values: MutableSequence[ir.Value], gone: set[int]) -> None:
    for index in reversed(range(len(values))):
        if id(values[index]) in gone:
            del values[index]


def _as_output(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """The value as an output of the graph that is written nowhere else."""
    if value.is_graph_output():
        node = ir.Node("", "Identity", [value], name=f"{value.name}.copy_node")
        copy = node.outputs[0]
        copy.name, copy.shape, copy.type = f"{value.name}.copy", value.shape, value.type
        graph.append(node)
        value = copy
    graph.outputs.append(value)
    return value
