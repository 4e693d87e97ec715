"""ScatterND that adds up: in pieces that ONNX Runtime leaves to one thread."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.distinct_rows import SERIAL, add_rows, distinct_rows
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.scattered import reduction_of

#: Noted on nodes that are pieces.
_PIECE = "onnxtape.piece"


class SerialScatters(GraphPass):
    """Cuts up what a ScatterND with a reduction takes in, so that no two threads run it.

    ONNX Runtime's CPU kernel divides the updates among its threads, which then read, add to and
    write the same places at the same time where indices are equal: sums come out too small, and
    differ from run to run. Of 20,480 rows added to one, half were lost on two threads. With fewer
    than `SERIAL` elements there is one thread only.

    A table with more rows than are added gets the sums of equal rows at once, at different places.
    Where the number of updates is not known, a Loop takes piece after piece.
    """

    adds = frozenset(
        [
            *("Add", "And", "Concat", "ConstantOfShape", "Div", "Equal", "Gather", "Greater"),
            *("Compress", "GatherElements", "Identity", "Loop", "Max", "Mul", "Not", "Range"),
            *("ReduceProd", "Reshape", "ScatterElements", "ScatterND", "Shape", "Slice", "Split"),
            *("Squeeze", "Sub", "Unsqueeze"),
        ]
    )
    may_grow = True
    required = True

    def run(self, model: ir.Model) -> bool:
        changed = False
        for chosen, replaced in ((_is_sparse, _by_distinct_rows), (_is_divided, _cut_up)):
            found = [node for node in model.graph.all_nodes() if chosen(node)]
            if found:
                builder = GraphBuilder(model.graph, opset=model.opset_imports[""])
                changed = True
            for node in found:
                operands = [x for x in node.inputs if x is not None]
                with builder.before(node):
                    builder.take_place(node, replaced(builder, reduction_of(node), *operands))
        return changed


def _is_divided(node: ir.Node) -> bool:
    """Whether two threads may run the node, which reads what it writes."""
    if not applies(node, "ScatterND") or reduction_of(node) == "none":
        return False
    _, indices, updates = (None if x is None else shape_of(x) for x in node.inputs)
    single = is_static(indices) and math.prod(indices[:-1]) == 1
    small = is_static(updates) and math.prod(updates) <= SERIAL
    return not single and not small and _PIECE not in node.metadata_props


def _is_sparse(node: ir.Node) -> bool:
    """Whether it adds to fewer rows than a table has."""
    if not _is_divided(node) or reduction_of(node) != "add":
        return False
    data, indices, _ = (None if x is None else shape_of(x) for x in node.inputs)
    if data is None or not is_static(indices) or indices[-1] != 1:
        return False
    return isinstance(data[0], int) and data[0] >= math.prod(indices)


def _by_distinct_rows(
    b: GraphBuilder, reduction: str, data: ir.Value, indices: ir.Value, updates: ir.Value
) -> ir.Value:
    """Only equal rows are added up in pieces: each piece is scattered into a copy of what there is,
    here of so many rows instead of the table."""
    indices, updates = _in_rows(b, indices, updates)
    places = b.op("Squeeze", indices, [-1])
    rows = distinct_rows(b, b.op("Shape", data, end=1), places, updates)
    result: ir.Value = add_rows(b, data, rows)
    return result


def _cut_up(
    b: GraphBuilder, reduction: str, data: ir.Value, indices: ir.Value, updates: ir.Value
) -> ir.Value:
    """The same in pieces, one after the other."""
    indices, updates = _in_rows(b, indices, updates)
    shape = b.shape(updates)
    if not is_static(shape):
        return _loop(b, reduction, data, indices, updates)
    rows, step = shape[0], max(1, SERIAL // max(1, math.prod(shape[1:])))
    sizes = [min(step, rows - start) for start in range(0, rows, step)]
    cuts = [b.op_multi("Split", x, sizes, outputs=len(sizes), axis=0) for x in (indices, updates)]
    for piece in zip(*cuts, strict=True):
        data = _piece(b, reduction, data, *piece)
    return data


def _piece(
    b: GraphBuilder, reduction: str, data: ir.Value, indices: ir.Value, updates: ir.Value
) -> ir.Value:
    made = b.op("ScatterND", data, indices, updates, reduction=reduction)
    node = made.producer()
    assert node is not None
    node.metadata_props[_PIECE] = "1"
    return made


def _in_rows(b: GraphBuilder, indices: ir.Value, updates: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Indices of shape (n, k), and updates of n rows."""
    if b.rank(indices) == 2:
        return indices, updates
    before = b.op("Shape", indices, end=-1)
    count = b.op("ReduceProd", before, keepdims=1)
    whole = b.op("Concat", count, b.op("Shape", indices, start=-1), axis=0)
    # As many axes as there are before the last of the indices are one in the updates.
    rest = b.op("Slice", b.op("Shape", updates), b.op("Shape", before), [2**31])
    places = b.op("Reshape", indices, whole, allowzero=1)
    rows = b.op("Reshape", updates, b.op("Concat", count, rest, axis=0), allowzero=1)
    known, shape = b.shape(indices), b.shape(updates)
    if known is not None and shape is not None:
        lead = known[:-1]
        total = math.prod(lead) if is_static(lead) else None
        places = b.refine_shape(places, (total, known[-1]))
        rows = b.refine_shape(rows, (total, *shape[len(lead) :]))
    return places, rows


def _loop(
    b: GraphBuilder, reduction: str, data: ir.Value, indices: ir.Value, updates: ir.Value
) -> ir.Value:
    """As many pieces as there are when the step runs."""
    count = b.op("Shape", indices, end=1)
    width = b.op("ReduceProd", b.op("Shape", updates, start=1), keepdims=1)
    step = b.op("Max", b.op("Div", b.constant([SERIAL]), b.op("Max", width, [1])), [1])
    trips = b.op("Div", b.op("Add", count, b.op("Sub", step, [1])), step)
    inner = b.nested("pieces")
    number = inner.input("piece", np.dtype(np.int64), ())
    going = inner.input("going", np.dtype(np.bool_), ())
    table = inner.input_like(data)
    begin = inner.op("Mul", step, number)
    end = inner.op("Add", begin, step)
    piece = (inner.op("Slice", x, begin, end, [0]) for x in (indices, updates))
    inner.subgraph.outputs.extend(
        [inner.op("Identity", going), _piece(inner, reduction, table, *piece)]
    )
    trips = b.op("Squeeze", trips)
    (result,) = b.emit_with_subgraphs(
        "Loop", [trips, None, data], {"body": inner.subgraph}, 1, [step, indices, updates]
    )
    return b.refine_shape(result, b.shape(data))
