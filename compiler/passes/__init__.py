"""Rewrites of a whole graph, one per module, each under a contract that is enforced.

Every pass keeps the model's signature (input and output names, dtypes and order) and its meaning.
What else it promises is declared on the class; with `verify=True`, `run_passes` checks the promises
and the graph's invariants after each pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import onnx_ir as ir

from onnxtape.compiler.errors import VerificationError
from onnxtape.compiler.verify import verify as verify_model


class GraphPass:
    """Base of all passes.

    Class attributes, the contract:
        adds: operators that the pass may create. It creates no others.
        may_grow: whether the graph may have more nodes afterwards.
        may_copy: whether there may be more of the operators that are there already.
        domains: other domains than the default one, whose operators there may be from then on.
        required: whether the graph would be wrong without the pass, so that it always runs.
    """

    adds: ClassVar[frozenset[str]] = frozenset()
    may_grow: ClassVar[bool] = False
    may_copy: ClassVar[bool] = False
    domains: ClassVar[frozenset[str]] = frozenset()
    required: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def key(self) -> str:
        """The pass and its arguments: equal keys, equal results."""
        return self.name

    def run(self, model: ir.Model) -> bool:
        """Rewrite `model` in place; return whether anything changed."""
        raise NotImplementedError


def applies(node: ir.Node, *op_types: str) -> bool:
    """Whether `node` applies one of these operators of the default domain."""
    return node.op_type in op_types and node.domain in ("", "ai.onnx")


def run_passes(
    model: ir.Model,
    passes: Sequence[GraphPass],
    *,
    verify: bool = False,
    domains: frozenset[str] = frozenset(),
) -> None:
    """Run `passes` in order on `model`, in place.

    Args:
        verify: check the graph's invariants and each pass's contract.
        domains: what other domains than the default one the model may have operators of already.

    Raises:
        VerificationError: (with `verify`) a pass broke its contract or the graph.
    """
    if verify:
        verify_model(model, "tracing", domains)
    for graph_pass in passes:
        before = _Summary(model) if verify else None
        graph_pass.run(model)
        if before is not None:
            domains |= graph_pass.domains
            verify_model(model, graph_pass.name, domains)
            before.check(_Summary(model), graph_pass)


class _Summary:
    """What a contract speaks about."""

    def __init__(self, model: ir.Model) -> None:
        self.signature: list[tuple[Any, ...]] = [
            (kind, value.name, value.dtype)
            for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs))
            for value in values
        ]
        self.operators = Counter(node.op_type for node in model.graph.all_nodes())

    def check(self, after: _Summary, graph_pass: GraphPass) -> None:
        if after.signature != self.signature:
            raise VerificationError(f"{graph_pass.name} changed the model's signature")
        added = {
            op
            for op, count in after.operators.items()
            if count > self.operators[op]
            and op not in graph_pass.adds
            and not (graph_pass.may_copy and self.operators[op])
        }
        if added:
            raise VerificationError(
                f"{graph_pass.name} created {', '.join(sorted(added))} without declaring it"
            )
        if not graph_pass.may_grow and after.operators.total() > self.operators.total():
            raise VerificationError(f"{graph_pass.name} made the graph larger")
