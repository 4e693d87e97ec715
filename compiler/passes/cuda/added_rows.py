"""Rows that are added to a table, in a form whose shapes are fixed."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.distinct_rows import add_row_sums, row_sums
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.notes import composites
from onnxtape.compiler.passes import GraphPass


class AddRowsOfFixedShape(GraphPass):
    """Adds all rows to a table, with what equal ones sum up to, instead of one for each place.

    How many places there are, the host would have to be told in the middle of the step, which then
    cannot be recorded. What is kept of the CPU's form: the whole gradient is never there. Of one of
    1,000,000 x 64, which Adam would write once and read three times, that is a gigabyte.
    """

    adds = frozenset(
        [
            *("Add", "ConstantOfShape", "Gather", "GatherElements", "Mul", "Range"),
            *("ScatterElements", "ScatterND", "Shape", "Squeeze", "Unsqueeze"),
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
                added = add_row_sums(b, table, sums, *factor)
            b.take_place(maker, added)
        return bool(noted)
