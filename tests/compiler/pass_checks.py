"""What the tests of passes have in common."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes import GraphPass, run_passes
from tests.compiler.graphs import Array, model_of, spread


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


def apply(graph_pass: GraphPass, graph: ir.Graph) -> bool:
    """Run one pass under its contract; whether it says that it changed anything."""
    model, before = model_of(graph), [repr(node) for node in graph]
    changed: list[bool] = []

    class Watched(type(graph_pass)):  # type: ignore[misc]
        def run(self, model: ir.Model) -> bool:
            changed.append(graph_pass.run(model))
            return changed[-1]

    watched = Watched.__new__(Watched)
    run_passes(model, [watched], verify=True)
    if not changed[0]:
        assert [repr(node) for node in graph] == before
    return changed[0]


def opaque(graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value]) -> ir.Value:
    """An operator of a custom domain with a standard one's name, which means something else."""
    node = ir.Node("com.example", op_type, inputs, name=f"opaque_{op_type}")
    node.outputs[0].name = f"opaque_{op_type}_out"
    node.outputs[0].type, node.outputs[0].shape = inputs[0].type, inputs[0].shape
    graph.append(node)
    return node.outputs[0]


def feeds_of(graph: ir.Graph, rows: int) -> dict[str, Array]:
    feeds = {}
    for i, value in enumerate(graph.inputs):
        assert value.shape is not None
        shape = [d if isinstance(d, int) else rows for d in value.shape.dims]
        assert value.dtype is not None
        feeds[value.name or ""] = spread(shape, -1, 1.1, seed=i).astype(value.dtype.numpy())
    return feeds


def conditional(
    b: GraphBuilder, condition: ir.Value, x: ir.Value, first: str, second: str
) -> ir.Value:
    """If condition: first(x), else second(x)."""
    branches = []
    for op_type in (first, second):
        inner = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name=op_type)
        inner_builder = GraphBuilder(inner)
        inner.outputs.append(inner_builder.op(op_type, x))
        inner.outputs[0].name = b.unique_name("inner")
        branches.append(inner)
    out = b.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    out.type, out.shape = x.type, x.shape
    return out
