"""Gradients of If, Loop and Scan against central differences, on graphs written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import (
    GradientError,
    GraphBuilder,
    VerificationError,
    differentiate,
    registry,
)
from onnxtape.compiler.passes import run_passes
from onnxtape.compiler.passes.common_subexpressions import EliminateCommonSubexpressions
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.fold_constants import FoldConstants
from onnxtape.compiler.passes.simplify import Simplify
from onnxtape.compiler.subgraphs import GRADIENT_KEY, STOPPED, add_outputs, graphs_in
from onnxtape.compiler.verify import verify
from tests.compiler.control_flow_programs import PROGRAMS, Program, graph_of
from tests.compiler.graphs import Array, Evaluator, input_like, model_of, new_graph

STEP = 1e-5
RUNS = [
    pytest.param(name, feeds, id=f"{name}-{i}")
    for name, program in PROGRAMS.items()
    for i, feeds in enumerate([program.feeds, *program.others])
]


@dataclass
class Differentiated:
    """A program with its gradients, and inputs for the cotangents.

    Attributes:
        feeds: the program's, and random cotangents `g0`, `g1`, ... of its outputs.
    """

    graph: ir.Graph
    builder: GraphBuilder
    outputs: list[ir.Value]
    sources: list[ir.Value]
    cotangents: list[ir.Value]
    gradients: list[ir.Value | None]
    feeds: dict[str, Array]


def differentiated(name: str, feeds: Mapping[str, Array]) -> Differentiated:
    graph = graph_of(PROGRAMS[name])
    b = GraphBuilder(graph)
    sources = [v for v in graph.inputs if v.dtype == ir.DataType.DOUBLE]
    outputs = list(graph.outputs)
    all_feeds = dict(feeds)
    cotangents = []
    for k, (output, value) in enumerate(zip(outputs, Evaluator(graph)(feeds), strict=True)):
        cotangents.append(input_like(b, f"g{k}", output, value.shape))
        all_feeds[f"g{k}"] = np.random.default_rng(k).uniform(-1, 1, value.shape)
    gradients = differentiate(graph, outputs, sources, cotangents)
    verify(model_of(graph))
    return Differentiated(graph, b, outputs, sources, cotangents, gradients, all_feeds)


def inner(values: Sequence[Array], others: Sequence[Array]) -> float:
    return sum(float(np.sum(v * o)) for v, o in zip(values, others, strict=True))


def slope(function: Any, feeds: Mapping[str, Array], directions: Mapping[str, Array]) -> float:
    """The directional derivative by central differences."""
    ends = [
        function({**feeds, **{k: feeds[k] + sign * STEP * d for k, d in directions.items()}})
        for sign in (1, -1)
    ]
    return (ends[0] - ends[1]) / (2 * STEP)


def unit(array: Array, place: tuple[int, ...]) -> Array:
    made = np.zeros_like(array)
    made[place] = 1.0
    return made


@pytest.mark.parametrize(("name", "feeds"), RUNS)
def test_first_derivative(name: str, feeds: Mapping[str, Array]) -> None:
    made = differentiated(name, feeds)
    evaluate = Evaluator(made.graph, made.outputs)
    seeds = [made.feeds[f"g{k}"] for k in range(len(made.outputs))]
    present = [g for g in made.gradients if g is not None]
    found = dict(zip(map(id, present), Evaluator(made.graph, present)(made.feeds), strict=True))
    for source, gradient in zip(made.sources, made.gradients, strict=True):
        value = made.feeds[source.name or ""]
        numeric = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            numeric[place] = slope(
                lambda f: inner(evaluate(f), seeds),
                made.feeds,
                {source.name or "": unit(value, place)},
            )
        analytic = np.zeros_like(value) if gradient is None else found[id(gradient)]
        assert analytic.shape == value.shape
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-7, err_msg=source.name)


@pytest.mark.parametrize(("name", "feeds"), RUNS)
def test_second_derivative(name: str, feeds: Mapping[str, Array]) -> None:
    made = differentiated(name, feeds)
    first = [g for g in made.gradients if g is not None]
    evaluate = Evaluator(made.graph, first)
    rng = np.random.default_rng(5)
    weights = [rng.uniform(-1, 1, g.shape) for g in evaluate(made.feeds)]
    seeds = []
    for k, (gradient, weight) in enumerate(zip(first, weights, strict=True)):
        seeds.append(input_like(made.builder, f"w{k}_seed", gradient, weight.shape))
        made.feeds[f"w{k}_seed"] = weight
    points = [*made.sources, *made.cotangents]
    second = differentiate(made.graph, first, points, seeds)
    verify(model_of(made.graph))
    evaluator = Evaluator(made.graph, [g for g in second if g is not None] or first)
    values = evaluator.all_values(made.feeds)
    # The first derivative is as it was.
    evaluate = Evaluator(made.graph, first)
    for _ in range(2):
        directions = {
            p.name or "": rng.uniform(-1, 1, made.feeds[p.name or ""].shape) for p in points
        }
        numeric = slope(lambda f: inner(evaluate(f), weights), made.feeds, directions)
        analytic = sum(
            float(np.sum(values[g.name or ""] * directions[p.name or ""]))
            for p, g in zip(points, second, strict=True)
            if g is not None
        )
        assert analytic == pytest.approx(numeric, rel=1e-6, abs=1e-6)


# What is not declared, not differentiable, or not right -------------------------------------------


def without_shapes(graph: ir.Graph) -> ir.Graph:
    """The graph with nothing said of the shapes inside its subgraphs."""
    for node in graph.all_nodes():
        for body in graphs_in(node):
            for value in [*body.inputs, *(o for inside in body for o in inside.outputs)]:
                value.shape = None
    return graph


@pytest.mark.parametrize("name", ["loop", "scan", "nested", "rows"])
def test_shapes_that_bodies_do_not_declare(name: str) -> None:
    """States keep the shapes that they begin with, where the body provably does so."""
    program = PROGRAMS[name]
    found = []
    for graph in (graph_of(program), without_shapes(graph_of(program))):
        sources = [v for v in graph.inputs if v.dtype == ir.DataType.DOUBLE]
        gradients = [g for g in differentiate(graph, [graph.outputs[0]], sources) if g is not None]
        found.append(Evaluator(graph, gradients)(program.feeds))
    for declared, undeclared in zip(*found, strict=True):
        np.testing.assert_allclose(undeclared, declared, rtol=1e-12)


def growing(declared: str) -> ir.Graph:
    return graph_of(
        Program(
            f"""g (double[1,n] s) => (double[k,n] last) {{
                three = Constant <value = int64 {{3}}> ()
                last = Loop (three, , s) <
                    body = b (int64 i, bool c, double{declared} h) => (bool go, double[b,n] h2) {{
                        go = Identity(c)
                        e = Exp(h)
                        h2 = Concat <axis = 0> (e, s)
                    }}
                >
            }}""",
            {},
        )
    )


def test_a_state_that_grows_is_refused() -> None:
    graph = growing("[1,n]")
    with pytest.raises(
        GradientError,
        match=r"its state 'h' changes its shape, or may do so, from \(1, n\) to \(2, n\) in an "
        r"iteration; keep the shape the same, and declare it",
    ):
        differentiate(graph, [graph.outputs[0]], [graph.inputs[0]])


def test_a_state_that_is_a_sequence() -> None:
    """Beside the path it is nothing to the gradient; on it, it is refused."""
    graph = graph_of(
        Program(
            """g (int64 m, double[2] x) => (double[2] y, double[2] z) {
                empty = SequenceEmpty <dtype = 11> ()
                zero = Constant <value = int64 {0}> ()
                start = SequenceInsert (empty, x)
                all, y, z = Loop (m, , start, x, x) <
                    body = b (int64 i, bool c, seq(double[2]) q, double[2] h, double[2] k)
                        => (bool go, seq(double[2]) q2, double[2] h2, double[2] k2) {
                        go = Identity(c)
                        q2 = SequenceInsert(q, h)
                        h2 = Mul(h, h)
                        first = SequenceAt(q, zero)
                        k2 = Mul(k, first)
                    }
                >
            }""",
            {},
        )
    )
    (by_x,) = differentiate(graph, [graph.outputs[0]], [graph.inputs[1]])
    assert by_x is not None
    feeds = {"m": np.asarray(2, np.int64), "x": np.asarray([0.5, -2.0])}
    np.testing.assert_allclose(Evaluator(graph, [by_x])(feeds)[0], 4 * feeds["x"] ** 3)
    with pytest.raises(GradientError, match=r"its state 'q' holds no tensor but Seq.*scan output"):
        differentiate(graph, [graph.outputs[1]], [graph.inputs[1]])


def test_an_operator_without_a_rule_inside_a_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(PROGRAMS["if"])
    by_name = {v.name: v for v in graph.inputs}
    monkeypatch.delitem(registry._TABLE, "Exp")
    assert differentiate(graph, [graph.outputs[0]], [by_name["y"]])[0] is not None
    with pytest.raises(GradientError, match=r"^Exp .*has no gradient rule"):
        differentiate(graph, [graph.outputs[0]], [by_name["x"]])


def test_what_no_gradient_flows_through() -> None:
    """Integers, comparisons, and nodes marked as stopped."""
    graph = graph_of(PROGRAMS["scan"])
    (scan,) = graph
    body = graphs_in(scan)[0]
    product = next(node for node in body if node.op_type == "Mul")
    product.metadata_props[GRADIENT_KEY] = STOPPED
    by_name = {v.name: v for v in graph.inputs}
    (by_s, by_x) = differentiate(graph, [graph.outputs[0]], [by_name["s"], by_name["x"]])
    assert by_x is None
    # Had there been no iteration, the first state would be the last.
    assert by_s is not None
    assert not Evaluator(graph, [by_s])(PROGRAMS["scan"].feeds)[0].any()
    assert differentiate(graph, [graph.outputs[0]], [by_name["w"]])[0] is not None


def test_only_what_the_backward_pass_needs_is_saved() -> None:
    graph = graph_of(PROGRAMS["linear scan"])
    (scan,) = list(graph)
    differentiate(graph, list(graph.outputs), list(graph.inputs))
    assert len(scan.outputs) == 1
    graph = graph_of(PROGRAMS["rows"])
    scan = next(node for node in graph if node.op_type == "Scan")
    for _ in range(2):  # The second time finds what the first has saved.
        differentiate(graph, [graph.outputs[0]], [graph.inputs[0], graph.inputs[2]])
        assert len(scan.outputs) == 3


def test_a_loop_of_no_iterations_keeps_the_shape_that_came_in() -> None:
    """The body makes (n, 3) of (1, 3), but it may never run."""
    b = new_graph()[1]
    x = b.input("x", np.dtype(np.float64), (1, 3))
    y = b.input("y", np.dtype(np.float64), ("n", 3))
    trips = b.input("trips", np.dtype(np.int64), ())
    body = b.nested("body")
    body.input("i", np.dtype(np.int64), ())
    going = body.input("going", np.dtype(np.bool_), ())
    state = body.input("h", np.dtype(np.float64), ("m", 3))
    add_outputs(body, [going, body.op("Add", state, y)])
    condition = b.constant(np.asarray(True))
    (last,) = b.emit("Loop", [trips, condition, x], {"body": body.subgraph})
    assert last.shape is not None
    assert last.shape[1] == 3
    assert last.shape[0] not in (1, "n")


# Passes ------------------------------------------------------------------------------------------


def test_dead_control_flow_takes_what_it_captured_along() -> None:
    graph = graph_of(PROGRAMS["if"])
    b = GraphBuilder(graph)
    (branch,) = list(graph)
    inputs = {v.name: v for v in graph.inputs}
    only_captured = b.op("Exp", inputs["x"])
    for inner in graphs_in(branch):
        for node in inner:
            for i, value in enumerate(node.inputs):
                if value is inputs["x"]:
                    node.replace_input_with(i, only_captured)
    graph.remove(only_captured.producer())
    graph.insert_before(branch, only_captured.producer())
    model = model_of(graph)
    run_passes(model, [RemoveDeadCode()], verify=True)
    assert [node.op_type for node in graph] == ["Exp", "If"]
    graph.outputs[0] = b.op("Neg", inputs["y"])
    assert RemoveDeadCode().run(model)
    assert [node.op_type for node in graph] == ["Neg"]


def test_branches_and_bodies_have_the_outputs_of_their_nodes() -> None:
    graph = graph_of(PROGRAMS["loop"])
    (loop,) = list(graph)
    del graphs_in(loop)[0].outputs[-1]
    with pytest.raises(VerificationError, match=r"body of Loop .* has 2 outputs, not 3"):
        verify(model_of(graph))


def test_passes_keep_differentiated_programs() -> None:
    for name in ("while", "nested", "scan"):
        made = differentiated(name, PROGRAMS[name].feeds)
        gradients = [g for g in made.gradients if g is not None]
        before = Evaluator(made.graph, gradients)(made.feeds)
        for k, gradient in enumerate(gradients):
            output = made.builder.op("Identity", gradient)
            output.name = f"gradient_{k}"
            made.graph.outputs.append(output)
        passes = [
            RemoveDeadCode(),
            FoldConstants(),
            Simplify(),
            EliminateCommonSubexpressions(),
            RemoveDeadCode(),
        ]
        run_passes(model_of(made.graph), passes, verify=True)
        after = Evaluator(made.graph)(made.feeds)[-len(gradients) :]
        for x, y in zip(before, after, strict=True):
            np.testing.assert_array_equal(x, y)
