"""Compiling takes work in proportion to the step: counted, not timed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxtape as ot
from onnxtape import tracing
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes.dead_code import RemoveDeadCode


def deep_step(layers: int) -> Any:
    """A residual network's training step, compiled for a batch of 4."""
    dense = [ot.layers.Dense(8, activation="gelu") for _ in range(layers)]
    norms = [ot.layers.LayerNormalization() for _ in range(layers)]
    optimizer = ot.optimizers.Adam(1e-3)

    def train(x: ot.Tensor) -> ot.Tensor:
        with ot.GradientTape() as tape:
            h = x
            for layer, norm in zip(dense, norms, strict=True):
                h = h + layer(norm(h))
            loss = ot.ops.mean(h * h)
        weights = [w for layer in [*dense, *norms] for w in layer.trainable_weights]
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    return ot.function(train, fallback="error").get_concrete_function(np.ones((4, 8), np.float32))


@pytest.fixture(autouse=True)
def _as_users_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "verify_passes", False)


def calls_of(layers: int) -> int:
    """How many functions are called while a step of so many layers is compiled."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        deep_step(layers)
    finally:
        sys.setprofile(previous)
    return count


def test_work_is_linear_in_layers() -> None:
    deep_step(1)  # imports, schemas and sessions of eager operators
    four, eight, sixteen = calls_of(4), calls_of(8), calls_of(16)
    # Twice as many layers more, twice as much more: quadratic work would make it four times.
    assert (sixteen - eight) / (eight - four) < 2.3


def test_dead_nodes_are_removed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One removal from the graph takes time in proportion to its outputs."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="dead")
    builder = GraphBuilder(graph, opset=21)
    x = builder.input("x", np.dtype(np.float32), (4,))
    graph.outputs.append(builder.op("Neg", x))
    for _ in range(10):
        x = builder.op("Exp", x)
    removals = 0
    remove = ir.Graph.remove

    def counted(self: ir.Graph, nodes: Any, /, safe: bool = False) -> None:
        nonlocal removals
        removals += 1
        remove(self, nodes, safe=safe)

    monkeypatch.setattr(ir.Graph, "remove", counted)
    assert RemoveDeadCode().run(ir.Model(graph, ir_version=10))
    assert [node.op_type for node in graph] == ["Neg"]
    assert removals == 1
