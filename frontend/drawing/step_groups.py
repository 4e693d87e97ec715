"""The nodes of a compiled step by phase and layer, and what flows between these groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxtape.compiler.errors import Phase, Provenance

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxtape.concrete import ConcreteFunction
    from onnxtape.tracing import InputSpec

_MOST_ROWS = 30


class GroupKey(NamedTuple):
    """What the nodes of a group have in common: the phase, and the layer's path."""

    phase: Phase
    layer: str


#: Where the batch comes in, and where results go out; no layer has such a name.
INPUTS = GroupKey("forward", "\0inputs")
RESULTS = GroupKey("forward", "\0results")


@dataclass(slots=True)
class Group:
    """The nodes of one layer in one phase.

    Attributes:
        operators: the type of each node.
        reads, writes: the variables that come in as state, or go out, without their layers.
        sources: files and lines of the user.
    """

    key: GroupKey
    operators: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)


class StepGroups:
    """A step's graph in groups.

    Updates belong to the layers whose weights they change, or else to the optimizer.

    Args:
        depth: how many levels of layers are told apart; None: as many as give at most 30 rows.

    Attributes:
        items: the groups.
        rows: the layers, in the order in which they first compute.
        edges: how many tensors flow from group to group.
        inputs, results: of the step.
    """

    def __init__(self, concrete: ConcreteFunction, depth: int | None) -> None:
        graph = concrete.traced.model.graph
        self._nodes = list(graph)
        self.inputs: list[InputSpec] = list(concrete.inputs)
        self.results: list[str] = list(concrete.output_names)
        self._state = list(concrete.state)
        paths = self._paths(graph)
        if depth is None:
            levels = max((p.layer.count("/") + 1 for p in paths), default=1)
            depth = next(
                (
                    d
                    for d in range(levels, 1, -1)
                    if len({_shortened(p.layer, d) for p in paths}) <= _MOST_ROWS
                ),
                1,
            )
        keys = [GroupKey(p.phase, _shortened(p.layer, depth)) for p in paths]
        self.items: dict[GroupKey, Group] = {}
        # What a pass has put in may stand anywhere: a layer's own nodes tell its place.
        own = [key for node, key in zip(self._nodes, keys, strict=True) if node.metadata_props]
        for key in own:
            self.items.setdefault(key, Group(key))
        for node, path, key in zip(self._nodes, paths, keys, strict=True):
            group = self.items.setdefault(key, Group(key))
            group.operators.append(node.op_type)
            if path.file:
                group.sources.add(f"{path.file}:{path.line}")
        self.rows = list(dict.fromkeys(key.layer for key in sorted(self.items, key=_by_phase)))
        self.edges = self._flows(graph, keys)

    def count(self, phase: Phase) -> int:
        """How many operators a phase has."""
        return sum(len(group.operators) for key, group in self.items.items() if key.phase == phase)

    def _paths(self, graph: ir.Graph) -> list[Provenance]:
        """Where each node comes from; of updates, where what they change does."""
        found = {id(n): Provenance.from_metadata(n.metadata_props) for n in self._nodes}
        for node in reversed(self._nodes):
            if not node.metadata_props:
                # A pass has put it in, for whoever uses it first.
                users = [user for value in node.outputs for user, _ in value.uses()]
                found[id(node)] = found.get(id(users[0]), Provenance()) if users else Provenance()
        layers = self._updated_layers(graph, found)
        computing = dict.fromkeys(p.layer for p in found.values() if p.phase != "update")
        for node in self._nodes:
            own = found[id(node)]
            if own.phase == "update" and (owner := layers.get(id(node))):
                found[id(node)] = replace(own, layer=_called(owner, computing))
        return [found[id(node)] for node in self._nodes]

    def _updated_layers(self, graph: ir.Graph, paths: dict[int, Provenance]) -> dict[int, str]:
        """The layer of each node all of whose effects are on the state of one layer's weights.

        What a later part of the step makes of new weights, reading them, is no effect of theirs.
        """
        outputs = {value.name: value for value in graph.outputs}
        weights = {e.name for e in self._state if e.role in ("parameter", "buffer")}
        # An optimizer's state is named after the variable: adam/dense_kernel_momentum.
        owners = {name.replace("/", "_"): name for name in weights}
        reached: dict[int, set[str]] = defaultdict(set)
        for entry in self._state:
            if entry.output_name is None or entry.role == "metric":
                continue
            name: str | None = entry.name
            if entry.role == "optimizer":
                own = entry.name.rpartition("/")[2]
                fitting = [owner for owner in owners if own.startswith(f"{owner}_")]
                name = owners[max(fitting, key=len)] if fitting else ""
            value = outputs.get(entry.output_name)
            if value is not None:
                reached[id(value)].add((name or "").rpartition("/")[0] if name else "")
        layers: dict[int, str] = {}
        for node in reversed(self._nodes):
            if paths[id(node)].phase != "update":
                continue
            changed = set().union(*(reached[id(value)] for value in node.outputs))
            for value in node.inputs:
                if value is not None:
                    reached[id(value)] |= changed
            if len(changed) == 1:
                layers[id(node)] = next(iter(changed))
        return layers

    def _flows(self, graph: ir.Graph, keys: list[GroupKey]) -> dict[tuple[GroupKey, GroupKey], int]:
        from onnxtape.compiler.subgraphs import record_with_captured

        made: dict[int, GroupKey] = {}
        for node, key in zip(self._nodes, keys, strict=True):
            made.update({id(value): key for value in node.outputs})
        made.update({id(value): INPUTS for value in graph.inputs[: len(self.inputs)]})
        brought = {
            id(value): entry
            for value, entry in zip(graph.inputs[len(self.inputs) :], self._state, strict=True)
        }
        flowing: dict[tuple[GroupKey, GroupKey], set[int]] = defaultdict(set)
        read: dict[GroupKey, set[int]] = defaultdict(set)
        for node, key in zip(self._nodes, keys, strict=True):
            operands: list[Any] = list(record_with_captured(node).inputs)
            for value in operands:
                source = made.get(id(value))
                if source is not None and source != key:
                    flowing[source, key].add(id(value))
                if id(value) in brought and id(value) not in read[key]:
                    read[key].add(id(value))
                    self.items[key].reads.append(_own_name(brought[id(value)]))
        results = len(self.results)
        for value in graph.outputs[:results]:
            if id(value) in made:
                flowing[made[id(value)], RESULTS].add(id(value))
        changed = [entry for entry in self._state if entry.output_name is not None]
        for value, entry in zip(graph.outputs[results:], changed, strict=True):
            maker = made.get(id(value))
            if maker is not None and maker != INPUTS:
                self.items[maker].writes.append(_own_name(entry))
        return {edge: len(values) for edge, values in flowing.items()}


def _own_name(entry: Any) -> str:
    """A variable's name without its layer; an optimizer's without the variable's."""
    name: str = entry.name.rpartition("/")[2]
    return name.rpartition("_")[2] if entry.role == "optimizer" and "/" in entry.name else name


def _called(owner: str, computing: Iterable[str]) -> str:
    """The layer that a variable belongs to, by the path under which it computes.

    A layer that was built before it became part of a model has a shorter path in its variables.
    """
    longer = [layer for layer in computing if layer == owner or layer.endswith(f"/{owner}")]
    return longer[0] if len(longer) == 1 else owner


def _shortened(layer: str, depth: int) -> str:
    return "/".join(layer.split("/")[:depth])


def _by_phase(key: GroupKey) -> int:
    return ("forward", "backward", "update").index(key.phase)
