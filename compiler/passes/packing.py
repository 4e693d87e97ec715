"""Updates of state laid end to end, in pieces that stay in the cache.

A rewrite of the graph that one session is going to run on the CPU, not of what is exported. Where
many small variables are updated alike, each array of the update (the variables, each average, the
gradients) becomes one block of memory; the variables are views of it. The update then runs over the
block: a few nodes instead of a few for each variable, and on arrays that are long enough for ONNX
Runtime to use several threads (a float32 operator of one arithmetic operation uses a second one
from 88 thousand elements on). Where a block is long, the whole chain of nodes runs piece by piece.
Given several workers, each gets a graph of its own with its share of these pieces, which one thread
runs after the step's graph: what an operator leaves in a core's cache is then what the next one
finds there, and threads do not wait for each other between operators.

In the graph, a piece is an input and an output of its own. That they share memory with each other,
with the variables' inputs and with the gradients' outputs is not to be seen there: the pieces stand
at the end of the graph, after everything that reads the variables or computes a gradient, and
whoever runs it must keep to the order (see `schedule`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableSequence, Sequence
from typing import NamedTuple

import onnx_ir as ir

from onnxtape.compiler.passes.pieces import (
    ALIGNMENT,
    Block,
    Shares,
    Update,
    as_output,
    places,
    repeated,
)
from onnxtape.compiler.passes.schedule import schedule_updates
from onnxtape.compiler.passes.stacking import Stack
from onnxtape.compiler.passes.update_chains import LARGE, Chain, update_chains

#: The least number of elements in a piece: enough for two threads, and half a megabyte.
PIECE = 1 << 17
#: Pieces become longer rather than more.
MOST_PIECES = 64
#: The same for a share, which one thread runs: the arrays of a piece, 256 kB each, stay in the
#: cache of a core.
SHARED_PIECE = 1 << 16
MOST_SHARED_PIECES = 512
#: Blocks of fewer elements are updated before shares would have begun.
LEAST_SHARED = 1 << 20


class Packed(NamedTuple):
    """What has become of a graph.

    Attributes:
        in_place: the state inputs outside of blocks whose outputs may be written in place, as
            `schedule_updates` says.
        blocks: the blocks, and what the graph and the shares see of them.
        shares: graphs to be run after the graph, in any order or at the same time.
    """

    in_place: frozenset[str]
    blocks: list[Block]
    shares: list[ir.Model]


def schedule_packed(
    model: ir.Model,
    state: Mapping[str, str],
    late: Collection[str] = (),
    workers: int = 1,
    stacks: bool = False,
    single: bool = False,
) -> Packed:
    """Pack the updates of `model` and order its nodes so that state can be updated in place.

    Args:
        model: the graph as it will run, on the CPU.
        state: state input name -> state output name.
        late: see `schedule_updates`.
        workers: how many shares there are of the updates of long blocks; with one worker all
            updates stay in the graph.
        stacks: lay short blocks out for the products of `Stack`, for processors that have these.
        single: one thread runs the graph, so use them.
    """
    groups: dict[object, list[Chain]] = {}
    for chain in update_chains(model, state):
        alone = id(chain) if chain.size >= LARGE else None
        groups.setdefault((chain.signature, alone), []).append(chain)
    packed: list[Block] = []
    count = 0
    last: list[ir.Node] = []
    shares = Shares(model, workers)
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
        blocks, scatters = _pack(model.graph, chains, template)
        last += scatters
        update = Update(f"update{count}", template, blocks)
        count += 1
        numbers = chains[0].scalars
        stack = Stack(update, numbers) if stacks and update.size < 2 * PIECE else None
        if stack:
            last += stack.nodes(model.graph, products=single)
            packed.append(stack.block)
            continue
        packed += blocks
        handed = None
        if workers > 1 and update.size >= LEAST_SHARED:
            cuts = places(update.size, SHARED_PIECE, MOST_SHARED_PIECES)
            handed = shares.add(update, cuts, numbers)
        if handed is not None:
            packed.append(handed)
            continue
        for piece, place in enumerate(places(update.size, PIECE, MOST_PIECES)):
            last += update.piece(model.graph, piece, place, numbers)
    in_place = schedule_updates(model, left, late)
    model.graph.extend(last)
    return Packed(in_place, packed, shares.models)


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
        made = repeated(node, copies)
        made.outputs[0].name = node.outputs[0].name
        nodes.append(made)
    outputs = [copies[id(target)] for target in chain.targets]
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 21}, name="update")
    pairs = zip(chain.sources, chain.targets, strict=True)
    state = {source.name or "": target.name or "" for source, target in pairs}
    in_place = schedule_updates(ir.Model(graph, ir_version=10), state)
    return graph if in_place == state.keys() else None


def _pack(
    graph: ir.Graph, chains: Sequence[Chain], template: ir.Graph
) -> tuple[list[Block], list[ir.Node]]:
    """Take the chains out of the graph; return their blocks, and the nodes that scatter into them,
    which are to run when all else has been computed."""
    starts, size = [], 0
    for chain in chains:
        starts.append(size)
        size += -(-chain.size // ALIGNMENT) * ALIGNMENT
    if len(chains) == 1:
        size = chains[0].size
    blocks = [
        Block(size, {c.sources[role].name or "": s for c, s in zip(chains, starts, strict=True)})
        for role in range(len(template.outputs))
    ]
    arrays = [Block(size) for _ in chains[0].arrays]
    nodes: list[ir.Node] = []
    _take_out(graph, chains)
    for chain, start in zip(chains, starts, strict=True):
        for block, value in zip(arrays, chain.arrays, strict=True):
            result = as_output(graph, value)
            block.results[result.name or ""] = (start, chain.shape)
        for role, value in chain.scattered.items():
            scatter = value.producer()
            assert scatter is not None
            graph.outputs.append(value)
            blocks[role].results[value.name or ""] = (start, chain.shape)
            # Where nothing can fail any more: it writes into the state.
            graph.remove(scatter)
            nodes.append(scatter)
    return blocks + arrays, nodes


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
