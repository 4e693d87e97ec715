"""Softmax over rows without a single key: what a Where repairs has a gradient of zero."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder, differentiate
from tests.compiler.graphs import FLOAT64, Array, Evaluator, new_graph, spread
from tests.compiler.test_gradients import central_differences

#: Row 1 sees nothing.
MASK = np.asarray([[0, -np.inf, 0], [-np.inf] * 3, [-np.inf, 0, 0]])
SCORES = spread((3, 3))
WEIGHTS = spread((3, 3), seed=1)


def by_nan(b: GraphBuilder, scores: ir.Value, weights: ir.Value) -> ir.Value:
    """As PyTorch exports scaled_dot_product_attention."""
    return b.op("Where", b.op("IsNaN", weights), np.zeros(()), weights)


def by_mask(b: GraphBuilder, scores: ir.Value, weights: ir.Value) -> ir.Value:
    """As the function body of Attention does, with a Cast in between."""
    weights = b.cast(weights, FLOAT64)
    highest = b.op("ReduceMax", scores, [-1], keepdims=1)
    return b.op("Where", b.op("Equal", highest, -np.inf), np.zeros(()), weights)


def with_dropout(b: GraphBuilder, scores: ir.Value, weights: ir.Value) -> ir.Value:
    """A Where that also takes out elements of rows that do exist."""
    kept = b.constant(np.asarray([[True, False, True], [False] * 3, [True, False, True]]))
    return b.op("Where", kept, weights, np.zeros(()))


def build(guard: object, symbolic: bool) -> tuple[ir.Graph, GraphBuilder, ir.Value, ir.Value]:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ("rows", "keys") if symbolic else (3, 3))
    scores = b.op("Add", x, MASK)
    assert callable(guard)
    safe = guard(b, scores, b.op("Softmax", scores, axis=-1))
    return graph, b, x, b.op("ReduceSum", b.op("Mul", safe, WEIGHTS), keepdims=0)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("guard", [by_nan, by_mask, with_dropout])
def test_gradient(guard: object, symbolic: bool) -> None:
    graph, _, x, y = build(guard, symbolic)
    forward = Evaluator(graph, [y])

    def function(feeds: dict[str, Array]) -> float:
        return float(forward(feeds)[0])

    expected = central_differences(function, {"x": SCORES}, "x", 1e-6)
    (dx,) = differentiate(graph, [y], [x])
    (found,) = Evaluator(graph, [dx])({"x": SCORES})
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert not found[1].any()
    assert found[0].any()


def test_second_derivative() -> None:
    graph, b, x, y = build(by_nan, symbolic=False)
    (dx,) = differentiate(graph, [y], [x])
    loss = b.op("ReduceSum", b.op("Mul", dx, dx), keepdims=0)
    first = Evaluator(graph, [loss])

    def function(feeds: dict[str, Array]) -> float:
        return float(first(feeds)[0])

    expected = central_differences(function, {"x": SCORES}, "x", 1e-6)
    (ddx,) = differentiate(graph, [loss], [x])
    np.testing.assert_allclose(Evaluator(graph, [ddx])({"x": SCORES})[0], expected, atol=1e-8)


def test_what_repairs_nan_only_lets_the_gradient_pass() -> None:
    graph, _, x, y = build(by_nan, symbolic=False)
    before = [node.op_type for node in graph].count("Where")
    differentiate(graph, [y], [x])
    # One more: the softmax without NaN, which is the forward pass's own.
    assert [node.op_type for node in graph].count("Where") == before + 1


def test_softmax_that_nobody_repairs_costs_nothing() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (3, 3))
    differentiate(graph, [b.op("Softmax", x, axis=-1)], [x])
    assert "IsNaN" not in [node.op_type for node in graph]
