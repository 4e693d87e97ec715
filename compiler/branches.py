"""The backward pass of an If."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.autodiff import backward
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.subgraphs import Scope, add_outputs, copy_into, records_of, remove_unused

_BRANCHES = ("then_branch", "else_branch")


def if_gradients(
    b: Builder[Any], n: Record[Any], wanted: Sequence[bool], grads: Sequence[Any]
) -> list[Any]:
    """One gradient per input of the record, None for the condition; see `gradients.control_flow`.

    Each branch runs the forward branch again as far as its backward pass needs it.
    """
    scope = Scope(b)
    sources = {i: scope.symbol(x) for i, x in enumerate(n.inputs) if i and wanted[i]}
    for x in n.inputs[1:]:
        scope.symbol(x)
    seeds = {k: scope.symbol(g) for k, g in enumerate(grads) if g is not None}
    builders, found = [], []
    for name in _BRANCHES:
        graph: ir.Graph = n.attribute(name)
        inner = b.nested(f"{graph.name or name}_backward")
        outputs = copy_into(inner, graph, {})
        records = records_of(inner.subgraph)
        targets = [outputs[k] for k in seeds]
        builders.append(inner)
        found.append(
            backward(inner, records, targets, list(sources.values()), list(seeds.values()))
        )
    results: list[Any] = [None] * len(n.inputs)
    used = [j for j in range(len(sources)) if any(branch[j] is not None for branch in found)]
    if not used:
        return results
    symbols = list(sources.values())
    for inner, gradients in zip(builders, found, strict=True):
        given = [gradients[j] for j in used]
        zeros = [
            inner.full_like(symbols[j], 0.0) if g is None else g
            for j, g in zip(used, given, strict=True)
        ]
        add_outputs(inner, zeros)
        remove_unused(inner.subgraph)
    branches = {name: inner.subgraph for name, inner in zip(_BRANCHES, builders, strict=True)}
    made = b.emit_with_subgraphs("If", [n.inputs[0]], branches, len(used), scope.values)
    places = list(sources)
    for j, gradient in zip(used, made, strict=True):
        results[places[j]] = gradient
    return results
