"""Cubic interpolation behind a Transpose, through which ONNX Runtime's optimizer breaks it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes.guarded_resizes import GuardResizes
from tests.compiler.graphs import Array, model_of, new_graph, run, spread
from tests.compiler.pass_checks import apply, operators

FLOAT32 = np.dtype(np.float32)


def resized(b: GraphBuilder, mode: str, rows: int | str) -> ir.Value:
    x = b.input("x", FLOAT32, (1, rows, 8, 3))
    image = b.op("Transpose", x, perm=[0, 3, 1, 2])
    sizes = b.constant(np.array([1, 3, 2, 2], np.int64))
    small = b.op("Resize", image, None, None, sizes, mode=mode)
    return b.op("Transpose", small, perm=[0, 2, 3, 1])


def optimized(graph: ir.Graph, feeds: dict[str, Array]) -> Array:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    model = ir.to_proto(model_of(graph)).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("rows", [8, "n"])
def test_a_transpose_does_not_move_through_it(rows: int | str) -> None:
    graph, b = new_graph()
    graph.outputs.append(resized(b, "cubic", rows))
    feeds = {"x": spread((1, 8, 8, 3)).astype("f")}
    expected = run(graph, feeds)[0]
    assert apply(GuardResizes(), graph)
    assert not apply(GuardResizes(), graph)
    np.testing.assert_allclose(optimized(graph, feeds), expected, rtol=1e-4, atol=1e-5)


def test_other_modes_stay() -> None:
    graph, b = new_graph()
    graph.outputs.append(resized(b, "linear", 8))
    assert not apply(GuardResizes(), graph)
    assert operators(graph) == ["Transpose", "Resize", "Transpose"]


def test_without_it_onnx_runtime_fails() -> None:
    """Once this no longer raises, the pass can go."""
    graph, b = new_graph()
    graph.outputs.append(resized(b, "cubic", 8))
    with pytest.raises(Exception, match="Resize"):
        optimized(graph, {"x": spread((1, 8, 8, 3)).astype("f")})
