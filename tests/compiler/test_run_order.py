"""What is done to the graph that ONNX Runtime has optimized: fewer views, slopes made early."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes.early import MakeEarly
from onnxtape.compiler.passes.views import MergeViews
from tests.compiler.graphs import FLOAT64, Array, new_graph, run
from tests.compiler.pass_checks import apply, feeds_of, operators


def results(graph: ir.Graph) -> list[Array]:
    return run(graph, feeds_of(graph, 2))


# Views --------------------------------------------------------------------------------------------


def test_one_reshape_for_each_shape() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 3, 4))
    first, second = b.op("Reshape", x, [6, 4]), b.op("Reshape", x, [6, 4])
    flat = b.op("Flatten", x, axis=2)
    graph.outputs.extend([b.op("Exp", first), b.op("Sin", second), b.op("Cos", flat)])
    before = results(graph)
    assert apply(MergeViews(), graph)
    assert operators(graph) == ["Reshape", "Exp", "Sin", "Cos"]
    for value, old in zip(results(graph), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_a_reshape_back_is_the_value_itself() -> None:
    graph, b = new_graph()
    x = b.op("Exp", b.input("x", FLOAT64, (2, 3, 4)))
    there = b.op("Reshape", x, [6, 4])
    back = b.op("Reshape", there, [2, 3, 4])
    other = b.op("Reshape", there, [3, 8])
    graph.outputs.extend([b.op("Sin", back), b.op("Cos", other)])
    assert apply(MergeViews(), graph)
    reshapes = [node for node in graph if node.op_type == "Reshape"]
    assert all(node.inputs[0] is x for node in reshapes)
    sine = next(node for node in graph if node.op_type == "Sin")
    assert sine.inputs[0] is x
    results(graph)


def test_views_stay_that_are_results_or_late_or_of_unknown_shape() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 3, 4))
    n = b.input("n", FLOAT64, ("rows", 4))
    again = b.op("Reshape", x, [6, 4])
    graph.outputs.extend([b.op("Reshape", x, [6, 4]), b.op("Exp", again)])
    graph.outputs.append(b.op("Exp", b.op("Reshape", b.op("Reshape", n, [-1, 2]), [-1, 4])))
    assert not apply(MergeViews({again.name or ""}), graph)


# Early --------------------------------------------------------------------------------------------

LARGE = (256, 256)


def activation(b: GraphBuilder, between: int) -> tuple[ir.Graph, ir.Value, ir.Value]:
    """u * s(u) and, after so many other nodes, a slope made of u and s(u)."""
    graph = b.graph
    assert graph is not None
    u = b.op("Sin", b.input("x", FLOAT64, LARGE))
    s = b.op("Sigmoid", u)
    y = b.op("Mul", u, s)
    for _ in range(between):
        y = b.op("Softmax", y, axis=0)
    slope = b.op("Add", s, b.op("Mul", u, b.op("Exp", b.op("Sub", 1.0, b.op("Mul", u, u)))))
    graph.outputs.append(b.op("Mul", y, slope))
    return graph, u, slope


@pytest.mark.parametrize("between", [20, 2])
def test_a_slope_is_made_where_its_inputs_are_last_used_otherwise(between: int) -> None:
    _, b = new_graph()
    graph, _, slope = activation(b, between)
    before = results(graph)
    assert apply(MakeEarly(), graph) == (between == 20)
    order = operators(graph)
    assert (order.index("Exp") < order.index("Softmax")) == (between == 20)
    np.testing.assert_allclose(results(graph)[0], before[0], rtol=1e-12)
    maker = slope.producer()
    assert maker is not None
    assert maker.graph is graph


def test_slopes_that_are_computed_again_on_purpose_stay() -> None:
    _, b = new_graph()
    graph, u, slope = activation(b, 20)
    for name in (slope.name, u.name):
        assert not apply(MakeEarly({name or ""}), graph)


def test_what_keeps_no_less_stays() -> None:
    graph, b = new_graph()
    u = b.op("Sin", b.input("x", FLOAT64, LARGE))
    y = u
    for _ in range(20):
        y = b.op("Softmax", y, axis=0)
    graph.outputs.append(b.op("Mul", y, b.op("Exp", u)))
    assert not apply(MakeEarly(), graph)
