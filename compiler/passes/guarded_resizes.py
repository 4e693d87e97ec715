"""Resize by cubic interpolation, which ONNX Runtime takes through transposes and then refuses."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies


class GuardResizes(GraphPass):
    """No Transpose comes right before a cubic Resize, but a Flatten that is reshaped again.

    ONNX Runtime's optimizer moves a Transpose behind the Resize, whose kernel then finds the axes
    in places that it has no code for: a graph that runs as it is fails when it is optimized.
    Transposes do not move through the Reshape; neither of the two copies anything.
    """

    adds = frozenset(["Flatten", "Reshape", "Shape"])
    may_grow = True
    required = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph.all_nodes()):
            image = node.inputs[0] if applies(node, "Resize") and _is_cubic(node) else None
            if image is None or _is_guarded(image):
                continue
            with builder.before(node):
                sizes = builder.shape_tensor(image)
                whole = builder.op("Reshape", builder.op("Flatten", image, axis=1), sizes)
                builder.refine_shape(whole, builder.shape(image))
            node.replace_input_with(0, whole)
            changed = True
        return changed


def _is_cubic(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    return mode is not None and mode.as_string() == "cubic"


def _is_guarded(image: ir.Value) -> bool:
    maker = image.producer()
    if maker is None or not applies(maker, "Reshape") or maker.inputs[0] is None:
        return maker is None
    before = maker.inputs[0].producer()
    return before is not None and applies(before, "Flatten")
