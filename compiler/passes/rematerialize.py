"""Recompute in the backward pass what does not fit in a memory budget.

What the backward pass reads of the forward pass must be kept, or computed again from what is kept.
For a price of memory, the best choice is a minimum cut (Chen et al., arXiv:1604.06174, name the
trade; the cut is that of PyTorch's min-cut partitioner, with the cost of computing again added): on
the source's side is what only the forward pass computes, on the sink's side what the backward pass
has. A value whose operator is on the first side and which is itself on the second is kept, at the
price of its bytes; an operator on the second side is run again, at the price of its time.

A cut counts bytes kept, not the peak: to compute a whole network again from its input needs all of
it at once. So the forward pass is also divided into segments, at waists where little crosses over,
whose crossing values stay; the peak of each choice is counted on the order in which it would run,
and the one that computes least again is taken among those that fit.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxtape.compiler.errors import RECOMPUTED
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.operators import RANDOM
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.passes.costs import byte_count, flop_count
from onnxtape.compiler.subgraphs import captured, graphs_in

#: Seconds for which one would keep a byte: the prices of memory that are tried.
_PRICES = (3e-10, 5e-10, 1e-9, 2e-9, 4e-9, 1e-6)
#: How many segments the forward pass is divided into.
_SEGMENTS = (1, 2, 4, 8)
#: The machine of the estimates: what is compared is only their ratio.
_FLOPS_PER_SECOND, _BYTES_PER_SECOND, _SECONDS_PER_NODE = 1e11, 1e10, 1e-6
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
#: Prices and times as whole numbers, in picoseconds.
_TICKS = 1e12


class Rematerialize(GraphPass):
    """Lets backward operators read copies of forward operators, until the values in use fit.

    Args:
        budget: the most that values between operators may take at once: bytes if 1 or more, else
            a share of what they take without recomputation.
    """

    may_grow = True
    may_copy = True

    def __init__(self, budget: float) -> None:
        self._budget = budget
        # A step's graph is made for its session, and again when somebody asks for it.
        self._has_warned = False

    @property
    def key(self) -> str:
        return f"{self.name}({self._budget})"

    def run(self, model: ir.Model) -> bool:
        joint = _Joint(model.graph)
        kept = joint.peak(frozenset())
        limit = self._budget if self._budget >= 1 else self._budget * kept
        if kept <= limit or not joint.needed:
            return False
        choices = [
            joint.choose(price, segments)
            for segments in _SEGMENTS
            if segments == 1 or segments * 4 <= len(joint.forward)
            for price in _PRICES
        ]
        peaks = {choice: joint.peak(choice) for choice in dict.fromkeys(choices)}
        fitting = [choice for choice, peak in peaks.items() if peak <= limit]
        if fitting:
            best = min(fitting, key=lambda choice: (joint.seconds(choice), peaks[choice]))
        else:
            best = min(peaks, key=lambda choice: (peaks[choice], joint.seconds(choice)))
        if not fitting and not self._has_warned:
            self._has_warned = True
            least = min(peaks[best], kept)
            warnings.warn(
                f"the memory budget of {limit / 1e6:.1f} MB cannot be kept: by estimate this step "
                f"needs {kept / 1e6:.1f} MB between operators, and with the recomputation that "
                f"saves most {least / 1e6:.1f} MB",
                UserWarning,
                stacklevel=2,
            )
        if peaks[best] >= kept:
            return False
        return _rewrite(model, joint, best)


def estimated_peak(graph: ir.Graph) -> int:
    """The most bytes that results of nodes take at once, if each has memory of its own."""
    return _Joint(graph).peak(frozenset())


#: Nodes that run again, by their place in the graph.
Choice = frozenset[int]


@dataclass(slots=True)
class _Step:
    """One run of a node, in the order in which nodes run."""

    place: int
    again: bool


class _Joint:
    """The forward and the backward pass of a graph, as far as this pass looks at them.

    Attributes:
        nodes: all of the graph, in order.
        forward: the places of nodes that no backward node comes before.
        needed: the places of forward nodes whose results backward nodes read.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes = list(graph)
        self._place = {id(node): i for i, node in enumerate(self.nodes)}
        #: Per node, the places of the nodes whose results it reads.
        self._sources = [
            [self._place[id(p)] for p in _producers(node) if id(p) in self._place]
            for node in self.nodes
        ]
        self._bytes = [sum(byte_count(o) for o in node.outputs if o.name) for node in self.nodes]
        self._views = {i for i, node in enumerate(self.nodes) if applies(node, *_VIEWS)}
        later: set[int] = set()
        for i, node in enumerate(self.nodes):
            phase = node.metadata_props.get("onnxtape.phase", "")
            again = node.metadata_props.get(RECOMPUTED)
            if phase in ("backward", "update") or again or later.intersection(self._sources[i]):
                later.add(i)
        self._later = later
        self.forward = [i for i in range(len(self.nodes)) if i not in later]
        self.needed = {s for i in later for s in self._sources[i] if s not in later}
        self._outputs = {
            self._place[id(p)] for v in graph.outputs if (p := v.producer()) is not None
        }

    def is_later(self, node: ir.Node) -> bool:
        """Whether the node belongs to the backward pass, or comes after it."""
        return self._place[id(node)] in self._later

    def choose(self, price: float, segments: int) -> Choice:
        """The cheapest choice where a byte kept costs `price` seconds."""
        import networkx

        flow = networkx.DiGraph()
        flow.add_nodes_from(["source", "sink"])
        fixed = self._crossing(segments)
        for i in self._before(self.needed):
            run, result = ("run", i), ("result", i)
            if i not in fixed and _may_run_again(self.nodes[i]):
                flow.add_edge("source", run, capacity=round(self._seconds(i) * _TICKS))
            else:
                flow.add_edge("source", run)  # without a capacity: not to be cut
            flow.add_edge(run, result, capacity=round(self._bytes[i] * price * _TICKS))
            for source in self._sources[i]:
                flow.add_edge(("result", source), run)
            if i in self.needed:
                flow.add_edge(result, "sink")
        _, (_, again) = networkx.minimum_cut(flow, "source", "sink")
        return frozenset(i for kind, i in again - {"sink"} if kind == "run")

    def _before(self, places: set[int]) -> set[int]:
        """These nodes, and all whose results they use."""
        found, pending = set(places), list(places)
        while pending:
            fresh = set(self._sources[pending.pop()]) - found
            found |= fresh
            pending += fresh
        return found

    def _crossing(self, segments: int) -> set[int]:
        """Nodes whose results later segments of the forward pass read; few bytes, where possible.

        And all of the last segment, which the backward pass begins with.
        """
        count = len(self.forward)
        last = dict.fromkeys(self.forward, -1)
        position = {i: p for p, i in enumerate(self.forward)}
        for i in self.forward:
            for source in self._sources[i]:
                last[source] = max(last[source], position[i])
        changes = [0] * (count + 1)
        for i, end in last.items():
            if end > position[i]:
                changes[position[i]] += self._bytes[i]
                changes[end] -= self._bytes[i]
        width = list(itertools.accumulate(changes))
        made = list(itertools.accumulate(self._bytes[i] for i in self.forward))
        found: set[int] = set()
        for k in range(1, segments):
            # Near where a k-th of all bytes is made, the narrowest place.
            near = [
                p
                for p in range(count)
                if (k - 0.5) / segments <= made[p] / max(made[-1], 1) < (k + 0.5) / segments
            ]
            if near:
                waist = min(near, key=lambda p: width[p])
                found |= {i for i in self.forward if position[i] <= waist < last[i]}
                if k == segments - 1:
                    found.update(self.forward[waist + 1 :])
        return found

    def seconds(self, choice: Choice) -> float:
        """What it costs to run these nodes again."""
        return sum(self._seconds(i) for i in choice)

    def _seconds(self, i: int) -> float:
        node = self.nodes[i]
        if i in self._views:
            return _SECONDS_PER_NODE
        moved = self._bytes[i] + sum(byte_count(x) for x in node.inputs if x is not None)
        return flop_count(node) / _FLOPS_PER_SECOND + moved / _BYTES_PER_SECOND + _SECONDS_PER_NODE

    def peak(self, choice: Choice) -> int:
        """The most bytes that results of nodes take at once, if these nodes run again."""
        steps = list(self._order(choice))
        last: dict[tuple[int, bool], int] = {}
        for place, step in enumerate(steps):
            pending = list(self._reads(step, choice))
            while pending:  # who reads a view reads what it is a view of
                source = pending.pop()
                last[source] = place
                if source[0] in self._views:
                    pending.extend(self._reads(_Step(*source), choice))
        now = peak = 0
        freed: list[list[int]] = [[] for _ in steps]
        for place, step in enumerate(steps):
            size = 0 if step.place in self._views else self._bytes[step.place]
            now += size
            peak = max(peak, now)
            if step.again or step.place not in self._outputs:
                freed[last.get((step.place, step.again), place)].append(size)
            now -= sum(freed[place])
        return peak

    def _reads(self, step: _Step, choice: Choice) -> Iterator[tuple[int, bool]]:
        behind = step.again or step.place in self._later
        for source in self._sources[step.place]:
            yield source, behind and source in choice

    def _order(self, choice: Choice) -> Iterator[_Step]:
        """Nodes in order, each that runs again just before what first needs it."""
        done: set[int] = set()
        for i in range(len(self.nodes)):
            if i in self._later:
                yield from (_Step(j, True) for j in self._missing(i, choice, done))
            yield _Step(i, False)

    def _missing(self, i: int, choice: Choice, done: set[int]) -> list[int]:
        """The nodes that must run again before this one, in order; they are `done` then."""
        found: set[int] = set()
        pending = [i]
        while pending:
            fresh = {s for s in self._sources[pending.pop()] if s in choice} - done
            done |= fresh
            found |= fresh
            pending += fresh
        return sorted(found)


def _rewrite(model: ir.Model, joint: _Joint, choice: Choice) -> bool:
    """Copy the chosen nodes, each before the first that needs it, and let the backward pass read
    the copies."""
    graph = model.graph
    builder = GraphBuilder(graph, opset=model.opset_imports.get("", 21))
    copies: dict[ir.Value, ir.Value] = {}
    for step in list(joint._order(choice)):
        if not step.again:
            anchor = joint.nodes[step.place]
            continue
        original = joint.nodes[step.place]
        node = ir.Node(
            original.domain,
            original.op_type,
            [copies.get(x, x) if x is not None else None for x in original.inputs],
            attributes=list(original.attributes.values()),
            num_outputs=len(original.outputs),
            metadata_props=dict(original.metadata_props),
        )
        node.metadata_props[RECOMPUTED] = "1"
        node.metadata_props["onnxtape.phase"] = "backward"
        for made, old in zip(node.outputs, original.outputs, strict=True):
            made.name = builder.unique_name(original.op_type) if old.name else ""
            made.type, made.shape = old.type, old.shape
            copies[old] = made
        node.name = f"{node.outputs[0].name}_node"
        graph.insert_after(anchor, node)
        anchor = node
    for old, made in copies.items():
        for user, index in old.uses():
            if user.graph is graph and _reads_copy(joint, user):
                user.replace_input_with(index, made)
    return bool(copies)


def _reads_copy(joint: _Joint, user: ir.Node) -> bool:
    return id(user) in joint._place and joint.is_later(user)


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes whose results this one uses, inside its subgraphs too; each once."""
    used = [*node.inputs, *(value for graph in graphs_in(node) for value in captured(graph))]
    makers = (value.producer() for value in used if value is not None)
    yield from dict.fromkeys(maker for maker in makers if maker is not None)


def _may_run_again(node: ir.Node) -> bool:
    """Not two draws of random numbers; nor what holds graphs, whose captures are not followed."""
    captured_inside = any(
        user.graph is not node.graph for output in node.outputs for user, _ in output.uses()
    )
    standard = node.domain in ("", "ai.onnx")
    return standard and not (captured_inside or applies(node, *RANDOM) or graphs_in(node))
