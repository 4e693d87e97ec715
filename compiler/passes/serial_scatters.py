"""ScatterND that adds up: in pieces that ONNX Runtime leaves to one thread."""

from __future__ import annotations

import itertools
import math

import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.distinct_rows import SERIAL, add_rows, distinct_rows
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import GraphPass, applies

#: Of updates whose number is not known, so many pieces at most are scattered fast.
_PIECES = 16


class SerialScatters(GraphPass):
    """Cuts up what a ScatterND with a reduction takes in, so that no two threads run it.

    ONNX Runtime's CPU kernel divides the updates among its threads, which then read, add to and
    write the same places at the same time where indices are equal: sums come out too small, and
    differ from run to run. Of 20,480 rows added to one, half were lost on two threads. With fewer
    than `SERIAL` elements there is one thread only.

    A table with more rows than are added gets the sums of equal rows at once, at different places.
    Where the number of updates is not known, those that are left over after as many pieces as a
    step is likely to need go through ScatterElements, which has one thread, and is ten times
    slower.
    """

    adds = frozenset(
        [
            *("Add", "And", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten"),
            *("Gather", "GatherElements", "Greater", "Less", "Max", "Mul", "NonZero", "Not"),
            *("Range", "ReduceProd", "ReduceSum", "Reshape", "ScatterElements", "ScatterND"),
            *("Shape", "Slice", "Split", "Squeeze", "Unsqueeze", "Where"),
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
                    builder.take_place(node, replaced(builder, _reduction(node), *operands))
        return changed


def _reduction(node: ir.Node) -> str:
    return node.attributes["reduction"].as_string() if "reduction" in node.attributes else "none"


def _is_divided(node: ir.Node) -> bool:
    """Whether two threads may run the node, which reads what it writes."""
    if not applies(node, "ScatterND") or _reduction(node) == "none":
        return False
    _, indices, updates = (None if x is None else shape_of(x) for x in node.inputs)
    if indices is None or not isinstance(indices[-1], int):
        return False
    single = is_static(indices) and math.prod(indices[:-1]) == 1
    return not single and (not is_static(updates) or math.prod(updates) > SERIAL)


def _is_sparse(node: ir.Node) -> bool:
    """Whether it adds to fewer rows than a table has."""
    if not _is_divided(node) or _reduction(node) != "add":
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
    return add_rows(b, data, distinct_rows(b, b.op("Shape", data, end=1), places, updates))


def _cut_up(
    b: GraphBuilder, reduction: str, data: ir.Value, indices: ir.Value, updates: ir.Value
) -> ir.Value:
    """The same in pieces, one after the other."""
    indices, updates = _in_rows(b, indices, updates)
    shape = b.shape(updates)
    if is_static(shape):
        rows, step = shape[0], max(1, SERIAL // max(1, math.prod(shape[1:])))
        sizes = [min(step, rows - start) for start in range(0, rows, step)]
        cuts = [
            b.op_multi("Split", x, sizes, outputs=len(sizes), axis=0) for x in (indices, updates)
        ]
        pieces = list(zip(*cuts, strict=True))
    else:
        pieces, rest = _pieces(b, indices, updates)
        data = _one_by_one(b, data, *rest, reduction)
    for places, values in pieces:
        data = b.op("ScatterND", data, places, values, reduction=reduction)
    return data


def _in_rows(b: GraphBuilder, indices: ir.Value, updates: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Indices of shape (n, k), and updates of n rows."""
    shape = b.shape(indices) or ()
    if len(shape) == 2:
        return indices, updates
    count, depth = shape[:-1], shape[-1]
    rows = b.op("ReduceProd", b.op("Shape", indices, end=-1), keepdims=1)
    whole = b.op("Concat", rows, b.op("Shape", updates, start=len(count)), axis=0)
    flat = b.op("Reshape", updates, whole, allowzero=1)
    known = b.shape(updates)
    if known is not None:
        total = math.prod(count) if is_static(count) else None
        flat = b.refine_shape(flat, (total, *known[len(count) :]))
    return b.op("Reshape", indices, [-1, depth]), flat


def _pieces(
    b: GraphBuilder, indices: ir.Value, updates: ir.Value
) -> tuple[list[tuple[ir.Value, ir.Value]], tuple[ir.Value, ir.Value]]:
    """Pieces of rows whose number, or size, is not known, and what is left after them."""
    shape = b.shape(updates)
    width = None if shape is None else shape[1:]
    count = _PIECES
    if is_static(width):
        size = math.prod(width)
        count = min(_PIECES, max(4, size // 8))
        step = b.constant([max(1, SERIAL // max(1, size))])
    else:
        elements = b.op("ReduceProd", b.op("Shape", updates, start=1), keepdims=1)
        step = b.op("Max", b.op("Div", b.constant([SERIAL]), b.op("Max", elements, [1])), [1])
    # Products, so that nobody works out formulas of sizes that nobody needs.
    ends = [b.op("Mul", step, [i]) for i in range(count + 1)]
    ends.append(b.constant([2**31]))
    cuts = [
        tuple(b.op("Slice", x, begin, end, [0]) for x in (indices, updates))
        for begin, end in itertools.pairwise(ends)
    ]
    *pieces, rest = ((places, values) for places, values in cuts)
    return pieces, rest


def _one_by_one(
    b: GraphBuilder, data: ir.Value, indices: ir.Value, updates: ir.Value, reduction: str
) -> ir.Value:
    """The same by ScatterElements, which takes the first axes of data as one."""
    depth = (b.shape(indices) or ())[-1]
    assert isinstance(depth, int)
    flat = (depth, b.rank(data)) == (1, 2)
    table = data if flat else b.op("Flatten", data, axis=depth)
    values = updates if flat else b.op("Flatten", updates, axis=1)
    places = _numbers(b, data, indices, depth)
    places = b.op("Expand", places, b.op("Shape", values))
    result = b.op("ScatterElements", table, places, values, axis=0, reduction=reduction)
    return result if flat else b.reshape_like(result, data)


def _numbers(b: GraphBuilder, data: ir.Value, indices: ir.Value, depth: int) -> ir.Value:
    """The rows' numbers, counted over the first `depth` axes of `data`: of shape (n, 1)."""
    if depth == 1:
        return indices
    sizes = b.op("Shape", data, end=depth)
    indices = b.op("Add", indices, b.op("Where", b.op("Less", indices, [0]), sizes, [0]))
    after = [
        b.op("ReduceProd", b.op("Shape", data, start=axis + 1, end=depth), keepdims=1)
        for axis in range(depth - 1)
    ]
    strides = b.op("Concat", *after, b.constant([1]), axis=0)
    return b.op("ReduceSum", b.op("Mul", indices, strides), [1], keepdims=1)
