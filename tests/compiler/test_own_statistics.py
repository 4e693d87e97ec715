"""BatchNormalization's statistics in training, which ONNX Runtime writes over."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes.own_statistics import OwnStatistics
from tests.compiler.graphs import Array, model_of, new_graph, run, spread
from tests.compiler.pass_checks import apply, operators

FLOAT32 = np.dtype(np.float32)


def normalized(b: GraphBuilder, x: ir.Value, mean: ir.Value, variance: ir.Value) -> list[ir.Value]:
    scale = b.constant(np.ones(3, "f"))
    made = b.op_multi(
        "BatchNormalization", x, scale, scale, mean, variance, outputs=3, training_mode=1
    )
    return list(made)


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_the_statistics_that_others_read_are_copied(calls: int) -> None:
    """They are as they were for the nodes afterwards, whatever ONNX Runtime merges."""
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (calls, 2, 3, 4))
    mean, variance = b.input("mean", FLOAT32, (3,)), b.input("variance", FLOAT32, (3,))
    for i in range(calls):
        one = b.op("Gather", x, b.constant(np.asarray(i)), axis=0)
        for running in normalized(b, one, mean, variance)[1:]:
            graph.outputs.append(b.op("Abs", running))
    graph.outputs.append(b.op("Sin", mean))
    feeds: dict[str, Array] = {
        "x": spread((calls, 2, 3, 4), -1, 1, seed=1).astype("f"),
        "mean": spread((3,), -1, 1, seed=2).astype("f"),
        "variance": spread((3,), 1, 2, seed=3).astype("f"),
    }
    expected = run(graph, feeds)
    assert apply(OwnStatistics(), graph)
    assert not apply(OwnStatistics(), graph)
    session = ort.InferenceSession(ir.to_proto(model_of(graph)).SerializeToString())
    before = {name: value.copy() for name, value in feeds.items()}
    for got, want in zip(session.run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for name, value in before.items():
        np.testing.assert_array_equal(feeds[name], value)


def test_what_nobody_else_reads_is_not_copied() -> None:
    """Statistics that a node has made for this one, and those whose successors are outputs."""
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (2, 3, 4))
    mean, variance = b.input("mean", FLOAT32, (3,)), b.input("variance", FLOAT32, (3,))
    y, *running = normalized(b, x, b.op("Neg", mean), b.op("Neg", variance))
    graph.outputs.extend(normalized(b, y, *running))
    assert not apply(OwnStatistics(), graph)
    # In inference they are only read.
    scale = b.constant(np.ones(3, "f"))
    graph.outputs.append(b.op("BatchNormalization", x, scale, scale, mean, variance))
    assert not apply(OwnStatistics(), graph)
    assert "Concat" not in operators(graph)
