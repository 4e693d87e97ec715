"""Matrix products as ONNX Runtime's CPU kernels do them best; rewrites of the graph that a session
runs, never of what is exported."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxtape.compiler.passes import GraphPass, applies

DOMAIN = "com.microsoft"


class ProductsPass(GraphPass):
    """Base of these passes: FusedMatMul takes transposed and scaled operands as they are."""

    domains: ClassVar[frozenset[str]] = frozenset([DOMAIN])


def is_product(node: ir.Node) -> bool:
    """Whether the node is a MatMul of float32, or a FusedMatMul without batches in the middle."""
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if applies(node, "MatMul"):
        return True
    if node.domain != DOMAIN or node.op_type != "FusedMatMul":
        return False
    return not any(flag(node, name) for name in ("transBatchA", "transBatchB"))


def flag(node: ir.Node, name: str) -> int:
    """An attribute that is 0 or 1, and 0 if it is absent."""
    return node.attributes[name].as_int() if name in node.attributes else 0


def fuse(model: ir.Model, node: ir.Node) -> None:
    """Make a MatMul, or a Gemm without C, a FusedMatMul."""
    node.domain, node.op_type = DOMAIN, "FusedMatMul"
    node.version = None
    model.opset_imports.setdefault(DOMAIN, 1)
