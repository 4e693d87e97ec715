"""bfloat16 where ONNX Runtime has no kernels for it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes.widened import ComputeInFloat32
from tests.compiler.graphs import BOOL, INT64, Array, model_of, new_graph, spread
from tests.compiler.pass_checks import apply, conditional, operators

BFLOAT16, FLOAT32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)


def run(graph: ir.Graph, feeds: dict[str, Array]) -> list[Array]:
    """On ONNX Runtime, whose Python takes no bfloat16: floats go in and come out."""
    session = ort.InferenceSession(
        ir.to_proto(model_of(graph)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [np.asarray(y) for y in session.run(None, feeds)]


def narrow(b: GraphBuilder, name: str, shape: tuple[int, ...]) -> ir.Value:
    return b.cast(b.input(name, FLOAT32, shape), BFLOAT16)


def test_each_result_is_rounded_once() -> None:
    graph, b = new_graph()
    x, y = narrow(b, "x", (3, 4)), narrow(b, "y", (3, 4))
    product = b.op("Mul", x, y)
    graph.outputs.append(b.cast(b.op("Add", product, x), FLOAT32))
    feeds = {n: spread((3, 4), -1.9, 2.1, seed=i).astype("f") for i, n in enumerate("xy")}
    with pytest.raises(Exception, match="Could not find an implementation for"):
        run(graph, feeds)
    assert apply(ComputeInFloat32(), graph)
    assert not apply(ComputeInFloat32(), graph)
    u, v = (feeds[n].astype(BFLOAT16) for n in "xy")
    np.testing.assert_array_equal(run(graph, feeds)[0], (u * v + u).astype("f"))


def test_what_other_dtypes_come_out() -> None:
    """Truth values, places, and the float32 that LayerNormalization gives besides."""
    graph, b = new_graph()
    x = narrow(b, "x", (2, 3))
    scale = b.constant(np.ones(3, BFLOAT16))
    y, mean, _ = b.op_multi("LayerNormalization", x, scale, outputs=3)
    graph.outputs.extend([b.op("Greater", x, b.op("Neg", x)), b.op("ArgMax", x, axis=1), mean])
    graph.outputs.append(b.cast(y, FLOAT32))
    assert apply(ComputeInFloat32(), graph)
    feeds = {"x": np.array([[1, 2, 6], [-3, 9, 3]], "f")}
    greater, places, means, normal = run(graph, feeds)
    assert greater.tolist() == [[True, True, True], [False, True, True]]
    assert places.tolist() == [[2], [1]]
    assert means.tolist() == [[3], [3]]
    np.testing.assert_allclose(normal.std(-1), 1, rtol=0.01)


def test_inside_of_a_branch() -> None:
    graph, b = new_graph()
    c, x = b.input("c", BOOL, ()), narrow(b, "x", (3,))
    graph.outputs.append(b.cast(conditional(b, c, x, "Exp", "Neg"), FLOAT32))
    assert apply(ComputeInFloat32(), graph)
    feeds = {"c": np.asarray(False), "x": np.array([0.5, 1, -2], "f")}
    assert run(graph, feeds)[0].tolist() == [-0.5, -1, 2]


def test_moves_stay_and_have_kernels() -> None:
    graph, b = new_graph()
    x = narrow(b, "x", (1, 4, 2, 2))
    i = b.input("i", INT64, (1, 4, 2, 2))

    def ints(*n: int) -> ir.Value:
        return b.constant(np.array(n, np.int64))

    moved = [
        b.op("Concat", x, x, axis=1),
        b.op("Flatten", x, axis=2),
        b.op("Gather", x, ints(3, 0), axis=1),
        b.op("GatherElements", x, i, axis=1),
        b.op("GatherND", x, ints(0, 3)),
        b.op("Pad", x, ints(0, 0, 1, 0, 0, 0, 0, 1)),
        b.op("Reshape", x, ints(4, 4)),
        b.op("Slice", x, ints(1), ints(4), ints(1), ints(2)),
        b.op_multi("Split", x, outputs=2, axis=1, num_outputs=2)[1],
        b.op("Squeeze", x, ints(0)),
        b.op("Transpose", x, perm=[0, 2, 3, 1]),
        b.op("Unsqueeze", x, ints(2)),
        b.op("CastLike", b.op("Shape", x), x),
    ]
    graph.outputs.extend(b.cast(y, FLOAT32) for y in moved)
    before = operators(graph)
    assert not apply(ComputeInFloat32(), graph)
    assert operators(graph) == before
    feeds = {"x": np.arange(16, dtype="f").reshape(1, 4, 2, 2), "i": np.full((1, 4, 2, 2), 3)}
    results = run(graph, feeds)
    assert results[2].reshape(-1).tolist() == [12, 13, 14, 15, 0, 1, 2, 3]
    assert results[3].reshape(4, 4).tolist() == [[12, 13, 14, 15]] * 4
