"""Rows that are read, added to and written: in one go."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.passes import GraphPass, applies


class AddToRows(GraphPass):
    """ScatterND(t, places, Gather(t, places) + rows) as a ScatterND that adds `rows`.

    A ScatterND without a reduction has no place twice, so its threads do not meet (see
    `SerialScatters`). For 18,500 rows of 64 of a table that is not in the cache, on 2 cores: 1.3 ms
    instead of 1.6.
    """

    def run(self, model: ir.Model) -> bool:
        changed = False
        for node in list(model.graph):
            rows = _added_rows(node)
            if rows is not None:
                node.replace_input_with(2, rows)
                node.attributes["reduction"] = ir.AttrString("reduction", "add")
                changed = True
        return changed


def _added_rows(node: ir.Node) -> ir.Value | None:
    """What the node adds to the rows of its table."""
    if not applies(node, "ScatterND") or "reduction" in node.attributes:
        return None
    table, places, new = node.inputs
    total = None if new is None else new.producer()
    if new is None or total is None or not applies(total, "Add") or len(new.uses()) > 1:
        return None
    for old, rows in (total.inputs, total.inputs[::-1]):
        read = None if old is None else old.producer()
        if read is None or not applies(read, "Gather") or read.inputs[0] is not table:
            continue
        axis = read.attributes.get("axis")
        if (axis is None or axis.as_int() == 0) and _unsqueezed(places) is _unsqueezed(
            read.inputs[1]
        ):
            return rows
    return None


def _unsqueezed(value: ir.Value | None) -> ir.Value | None:
    """The numbers, whatever axes of size 1 they have been given."""
    node = None if value is None else value.producer()
    if node is not None and applies(node, "Squeeze", "Unsqueeze"):
        return _unsqueezed(node.inputs[0])
    return value
