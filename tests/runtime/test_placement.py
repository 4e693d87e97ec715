"""Which provider runs which node, as ONNX Runtime itself says."""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnxtape.runtime.placement import CPU_PROVIDER, PlacedNode, Placement, placement


def test_every_node_is_listed(regression: Any) -> None:
    placed = placement(regression.training_model(), "cpu")
    assert placed.providers == {CPU_PROVIDER: len(placed)}
    assert placed.on_cpu == list(placed)
    assert "Sub" in {node.op_type for node in placed}


def test_what_fell_to_the_cpu() -> None:
    nodes = [
        PlacedNode("CUDAExecutionProvider", "MatMul", "a"),
        PlacedNode("CUDAExecutionProvider", "MatMul", "b"),
        PlacedNode("CPUExecutionProvider", "BitShift", "c", "train.py:3"),
    ]
    placed = Placement(nodes)
    assert placed.providers == Counter(CUDAExecutionProvider=2, CPUExecutionProvider=1)
    assert [node.name for node in placed.on_cpu] == ["c"]
    assert str(placed) == (
        "CUDAExecutionProvider: 2 nodes (MatMul 2)\nCPUExecutionProvider: 1 nodes (BitShift 1)"
    )
    assert placed[0] == nodes[0]
