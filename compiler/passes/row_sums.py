"""Row sums of a product of probabilities and their gradient, by the smaller output's gradient."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import GraphPass, applies


class RowSumsOfOutputs(GraphPass):
    """sum_k((A B^T)_ik P_ik) as sum_d(A_id (P B)_id), where P B is there already and is smaller.

    In attention's backward pass P are the probabilities, A is the gradient of the output P B, and
    A B^T that of P: flash attention's D = rowsum(dO * O) (Dao et al., arXiv:2205.14135). With 128
    keys and heads of size 32 it reads a quarter of the numbers.
    """

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        place = {node: i for i, node in enumerate(model.graph)}
        changed = False
        for node in model.graph:
            weighted = _summed_rows(builder, node)
            if weighted is None:
                continue
            for back, weights in (weighted.inputs, weighted.inputs[::-1]):
                pair = _smaller(back, weights)
                made = None if pair is None else pair[1].producer()
                if pair is None or made is None or place[made] > place[weighted]:
                    continue
                for index, value in enumerate(pair):
                    weighted.replace_input_with(index, value)
                weighted.outputs[0].shape = pair[0].shape
                changed = True
                break
        return changed


def _summed_rows(builder: GraphBuilder, node: ir.Node) -> ir.Node | None:
    """The Mul whose rows are summed here and that nobody else uses."""
    if not applies(node, "ReduceSum") or len(node.inputs) < 2:
        return None
    x, axes = node.inputs[0], node.inputs[1]
    over = None if axes is None else builder.constant_value(axes)
    shape = None if x is None else shape_of(x)
    if (
        x is None
        or over is None
        or shape is None
        or [a % len(shape) for a in over] != [len(shape) - 1]
    ):
        return None
    product = x.producer()
    if product is None or not applies(product, "Mul"):
        return None
    return product if len(x.uses()) == 1 and not x.is_graph_output() else None


def _smaller(back: ir.Value | None, weights: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """A and P B, for `back` = A B^T and `weights` = P, if they are smaller than P."""
    product = None if back is None else back.producer()
    if product is None or weights is None or not applies(product, "MatMul"):
        return None
    a, turned = product.inputs
    swap = None if turned is None else turned.producer()
    if a is None or swap is None or not applies(swap, "Transpose") or not _swaps(swap):
        return None
    for user, index in weights.uses():
        if index == 0 and applies(user, "MatMul") and user.inputs[1] is swap.inputs[0]:
            output = user.outputs[0]
            shape, full = shape_of(output), shape_of(weights)
            if shape is None or full is None or shape != shape_of(a):
                continue
            if isinstance(shape[-1], int) and isinstance(full[-1], int) and shape[-1] < full[-1]:
                return a, output
    return None


def _swaps(node: ir.Node) -> bool:
    """Whether the Transpose exchanges the last two axes."""
    if "perm" not in node.attributes:
        return False
    perm = list(node.attributes["perm"].as_ints())
    last = len(perm)
    return last > 1 and perm == [*range(last - 2), last - 1, last - 2]
