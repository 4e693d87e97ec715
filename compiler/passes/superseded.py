"""Forward operators that their own gradients compute again."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.notes import SUPERSEDED
from onnxtape.compiler.passes import GraphPass

_PHASE = "onnxtape.phase"


class UseSuperseding(GraphPass):
    """Puts values that gradient rules computed again in the place of the original ones.

    The original operators are dead code then, and their results the backward pass's own.
    """

    def run(self, model: ir.Model) -> bool:
        graph = model.graph
        superseded: dict[ir.Value, ir.Value] = graph.meta.pop(SUPERSEDED, {})
        for old, new in superseded.items():
            if new.is_graph_output():
                continue
            if old.is_graph_output():
                old.name, new.name = new.name, old.name
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            _mark_as_forward(new)
        if superseded:
            # What uses them came before what makes them now.
            graph.sort()
        return bool(superseded)


def _mark_as_forward(value: ir.Value) -> None:
    """Note that what makes the value is now part of the forward pass."""
    pending = [value.producer()]
    while pending:
        node = pending.pop()
        if node is not None and node.metadata_props.get(_PHASE) == "backward":
            node.metadata_props[_PHASE] = "forward"
            pending.extend(x.producer() for x in node.inputs if x is not None)
