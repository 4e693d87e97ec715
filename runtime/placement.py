"""Which execution provider runs which node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onnxtape.runtime.errors import ExecutionError
from onnxtape.runtime.providers import Providers
from onnxtape.runtime.session import create_session

if TYPE_CHECKING:
    from pathlib import Path

CPU_PROVIDER = "CPUExecutionProvider"


class PlacedNode(NamedTuple):
    """A node of a graph as ONNX Runtime runs it.

    Attributes:
        provider: the full name of the execution provider that runs it.
        op_type: its operator, which may be one of ONNX Runtime's own.
        name: its name in the graph; "" where it has none.
        place: the user's file and line that it stems from, where that is known.
    """

    provider: str
    op_type: str
    name: str
    place: str = ""


class Placement(Sequence[PlacedNode]):
    """The nodes of a graph with their providers, in no particular order."""

    def __init__(self, nodes: Sequence[PlacedNode]) -> None:
        self._nodes = tuple(nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, index: int) -> PlacedNode:  # type: ignore[override]
        return self._nodes[index]

    def __iter__(self) -> Iterator[PlacedNode]:
        return iter(self._nodes)

    @property
    def providers(self) -> dict[str, int]:
        """How many nodes each provider runs; the busiest first."""
        return dict(Counter(node.provider for node in self._nodes).most_common())

    def on(self, provider: str) -> list[PlacedNode]:
        """The nodes of the provider with this full name."""
        return [node for node in self._nodes if node.provider == provider]

    @property
    def on_cpu(self) -> list[PlacedNode]:
        """The nodes that the CPU provider runs: where another was asked for, what fell to it."""
        return self.on(CPU_PROVIDER)

    def __str__(self) -> str:
        lines = []
        for provider, count in self.providers.items():
            kinds = Counter(node.op_type for node in self.on(provider)).most_common()
            listed = ", ".join(f"{kind} {number}" for kind, number in kinds)
            lines.append(f"{provider}: {count} nodes ({listed})")
        return "\n".join(lines)


def placement(
    model: bytes | str | Path, providers: Providers = None, *, optimize: bool = True
) -> Placement:
    """Where ONNX Runtime runs each node of a model. Opens a session, and runs nothing.

    Args:
        model: a serialized ONNX model, or the path of one.
        providers: see `resolve_providers`.
        optimize: of the graph as ONNX Runtime rewrites it, not as it is.

    Raises:
        ExecutionError: ONNX Runtime refused the model, or is older than 1.24, which cannot tell.
        ProviderError: a provider cannot be used here.
    """
    session = create_session(
        model, providers, optimize=optimize, threads=1, merge_equal=False, note_placement=True
    )
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise ExecutionError(
            "this ONNX Runtime cannot tell where nodes run; install version 1.24 or later"
        )
    return Placement(
        [
            PlacedNode(part.ep_name, node.op_type, node.name)
            for part in session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
    )
