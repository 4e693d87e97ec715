"""The table of operators that are written with others for CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder

#: Writes a node with other operators: one value per output; None where its kernel will do.
Lowering = Callable[[GraphBuilder, ir.Node], Sequence[ir.Value] | None]

LOWERINGS: dict[str, Lowering] = {}


def lowering(*op_types: str) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for these operators of the default domain."""

    def register(lower: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(op_types, lower))
        return lower

    return register


def required(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[index]
    assert value is not None
    return value
