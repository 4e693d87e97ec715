"""Operators on bfloat16, for which ONNX Runtime's CPU provider has next to no kernels."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import GraphPass, applies

_FLOAT32 = np.dtype(np.float32)

#: What moves elements and has kernels for every dtype, and what only holds other nodes.
MOVES = (
    *("Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "Flatten"),
    *("Gather", "GatherElements", "GatherND", "Identity", "If", "Loop", "Pad", "Reshape", "Scan"),
    *("Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)


class ComputeInFloat32(GraphPass):
    """What computes on bfloat16 does so in float32; each result is rounded to bfloat16.

    So do the kernels of other providers, as they add up in float32.

    Args:
        kept: operators that stay as they are, as the provider has kernels for them.
    """

    adds = frozenset(["Cast"])
    may_grow = True
    required = True

    def __init__(self, kept: Collection[str] = ()) -> None:
        self._kept = frozenset(kept)

    @property
    def key(self) -> str:
        return f"{self.name}({sorted(self._kept)})"

    def run(self, model: ir.Model) -> bool:
        nodes = model.graph.all_nodes()
        found = [node for node in nodes if _computes(node) and node.op_type not in self._kept]
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        for node in found:
            with builder.before(node):
                wide = [builder.cast(x, _FLOAT32) if _narrow(x) else x for x in node.inputs]
                made = builder.emit(node.op_type, wide, dict(node.attributes), len(node.outputs))
                results = [
                    builder.op("Cast", y, to=ir.DataType.BFLOAT16.value) if _narrow(old) else y
                    for y, old in zip(made, node.outputs, strict=True)
                ]
                builder.take_place(node, *results)
        return bool(found)


def _computes(node: ir.Node) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and not applies(node, *MOVES)
        and any(map(_narrow, (*node.inputs, *node.outputs)))
    )


def _narrow(value: ir.Value | None) -> TypeGuard[ir.Value]:
    """Whether it is a tensor of bfloat16."""
    return (
        value is not None
        and isinstance(value.type, ir.TensorType)
        and value.dtype == ir.DataType.BFLOAT16
    )
