"""Convolutions that make few maps of many channels, from the image's side."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies

#: Rows of a product below which ONNX Runtime's kernels are much slower for each element.
_FEW = 4


class FewMapsByTransposedConvolutions(GraphPass):
    """A Conv without strides to few maps becomes a ConvTranspose with the kernel turned round.

    Conv unfolds the image, every channel of it, for a product with few rows. ConvTranspose makes
    the product first and folds its result, which is small: 8.1 ms instead of 109 for 64x128x28x28
    to one map by 7x7, on 2 cores.
    """

    adds = frozenset({"ConvTranspose", "Slice", "Transpose"})
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph):
            pads = _pads(builder, node)
            if pads is not None:
                with builder.before(node):
                    builder.take_place(node, _by_image(builder, node, pads))
                changed = True
        return changed


def _pads(b: GraphBuilder, node: ir.Node) -> list[int] | None:
    """The pads of the ConvTranspose that is to take the node's place, None where it is to stay."""
    if not applies(node, "Conv") or node.inputs[1] is None:
        return None
    kernel = b.shape(node.inputs[1])
    if kernel is None or not is_static(kernel):
        return None
    outs, ins, *sizes = kernel
    rank = len(sizes)

    def listed(name: str, default: int, count: int = rank) -> list[int]:
        given = node.attributes.get(name)
        return [default] * count if given is None else list(given.as_ints())

    auto_pad = node.attributes.get("auto_pad")
    if auto_pad is not None and auto_pad.as_string() != "NOTSET":
        return None
    group = node.attributes.get("group")
    if max(listed("strides", 1)) > 1 or (group is not None and group.as_int() > 1):
        return None
    if outs > _FEW or ins < 4 * outs or math.prod(sizes) == 1:
        return None
    reach = [(k - 1) * d for k, d in zip(sizes, listed("dilations", 1), strict=True)]
    pads = [r - p for r, p in zip(reach * 2, listed("pads", 0, 2 * rank), strict=True)]
    return None if min(pads) < 0 else pads


def _by_image(b: GraphBuilder, node: ir.Node, pads: list[int]) -> ir.Value:
    x, w, *bias = node.inputs
    assert w is not None
    rank = len(b.shape(w) or ()) - 2
    back, ends = [-1] * rank, [-(2**31)] * rank
    turned = b.op("Slice", w, back, ends, list(range(2, 2 + rank)), back)
    swapped = b.op("Transpose", turned, perm=[1, 0, *range(2, 2 + rank)])
    given = node.attributes.get("dilations")
    dilations = None if given is None else list(given.as_ints())
    return b.op("ConvTranspose", x, swapped, *bias, pads=pads, dilations=dilations)
