"""Rows that are added to a table, in a form whose shapes are fixed."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.distinct_rows import increments, row_sums
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.notes import composites
from onnxtape.compiler.passes import GraphPass


class AddRowsOfFixedShape(GraphPass):
    """Adds as many rows to a table as are given, one with the sum of a place's, and zeros.

    How many places there are, the host would have to be told in the middle of the step, which then
    cannot be recorded. As in the CPU's form, the whole gradient is never there.
    """

    adds = frozenset(
        [
            *("ConstantOfShape", "GatherElements", "Mul", "Range", "ScatterElements"),
            *("ScatterND", "Shape", "Squeeze", "Unsqueeze"),
        ]
    )
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        b = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        noted = [c for c in composites(model.graph) if c.op_type == "AddedRows"]
        for composite in noted:
            table, places, rows, *factor = composite.inputs
            maker = composite.output.producer()
            assert maker is not None
            with b.before(maker):
                sums = row_sums(b, b.op("Shape", table, end=1), places, rows)
                new = increments(b, sums, *factor)
                indices = b.op("Unsqueeze", places, [-1])
                added = b.op("ScatterND", table, indices, new, reduction="add")
            b.take_place(maker, added)
        return bool(noted)
