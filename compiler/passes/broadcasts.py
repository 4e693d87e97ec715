"""Broadcasting that operators do themselves."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.dims import same_shape
from onnxtape.compiler.graph_builder import BROADCASTING, GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import GraphPass, applies


class LeaveBroadcasting(GraphPass):
    """Operators that broadcast take what was expanded for them as it was before, and one number for
    a constant array of equal numbers.

    Where another input has the result's shape already. The gradient of a mean expands it, and then
    adds it to something: 0.13 ms for each Expand to 32x16x32x32, on 2 cores. Of a number, kernels
    make one pass over all rows; of a column, one for each row.
    """

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in model.graph:
            if not applies(node, *BROADCASTING):
                continue
            for index, value in enumerate(node.inputs):
                wanted = shape_of(node.outputs[0])
                others = (x for i, x in enumerate(node.inputs) if i != index and x is not None)
                if value is None or wanted is None:
                    continue
                if not any(same_shape(shape_of(x), wanted) for x in others):
                    continue
                smaller = _smaller(builder, value)
                if smaller is not None:
                    node.replace_input_with(index, smaller)
                    changed = True
        return changed


def _smaller(builder: GraphBuilder, value: ir.Value) -> ir.Value | None:
    """A value of fewer numbers that broadcasts to this one."""
    maker = value.producer()
    if maker is not None and applies(maker, "Expand"):
        return maker.inputs[0]
    array = builder.constant_value(value)
    if array is None or array.size < 2:
        return None
    # Bit by bit: 0 and -0 are two numbers. Most arrays differ in the first two.
    first, second = array.flat[:2]
    if first.tobytes() != second.tobytes() or array.tobytes() != first.tobytes() * array.size:
        return None
    return builder.constant(first)
