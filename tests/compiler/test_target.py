"""What lowerings are told of where a graph will run."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from onnxtape.compiler import differentiate, registry
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.target import CPU, Target
from onnxtape.tracing import default_passes


def test_a_builder_is_for_the_cpu_unless_told_otherwise() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    assert GraphBuilder(graph).target == CPU == Target("cpu")
    assert GraphBuilder(graph).target.is_cpu


def test_subgraphs_are_for_the_same_target() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    builder = GraphBuilder(graph, target=Target("cuda"))
    assert builder.nested("body").target == Target("cuda")
    assert not builder.target.is_cpu


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_gradient_rules_see_the_target(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    seen = []
    entry = registry.lookup("Exp")
    assert entry is not None

    def watching(builder: Builder[ir.Value], *args: Any) -> Any:
        seen.append(builder.target.provider)
        return entry.rule(builder, *args)

    monkeypatch.setattr(registry, "lookup", lambda op_type: registry.Gradient(watching))
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    builder = GraphBuilder(graph)
    x = builder.declare("x", ir.DataType.FLOAT.numpy(), (3,))
    graph.inputs.append(x)
    (y,) = builder.emit("Exp", [x], {})
    differentiate(graph, [y], [x], provider=provider)
    assert seen == [provider]


def test_sums_become_products_on_the_cpu_only() -> None:
    """ONNX Runtime's CPU kernel is what makes the product faster."""
    names = [[p.name for p in default_passes(Target(name))] for name in ("cpu", "cuda")]
    assert [n.count("ColumnSumsAsProducts") for n in names] == [1, 0]


@pytest.mark.parametrize(("provider", "mask"), [("cpu", "HardSigmoid"), ("openvino", "Greater")])
def test_masks_are_made_as_the_provider_computes_them_right(provider: str, mask: str) -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    builder = GraphBuilder(graph)
    x = builder.declare("x", ir.DataType.FLOAT.numpy(), (3,))
    graph.inputs.append(x)
    (y,) = builder.emit("Relu", [x], {})
    differentiate(graph, [y], [x], provider=provider)
    assert [n.op_type for n in graph if n.op_type in ("HardSigmoid", "Greater")] == [mask]
