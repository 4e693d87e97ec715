"""Transposes go where the fewest elements pass them, and nothing else changes."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.compiler import GraphBuilder, differentiate
from onnxtape.compiler.passes import run_passes
from onnxtape.compiler.passes.common_subexpressions import EliminateCommonSubexpressions
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.transposes import SinkTransposes
from tests.compiler.graphs import FLOAT64, Array, Evaluator, check_shapes, model_of, new_graph, run
from tests.compiler.pass_checks import apply, conditional, feeds_of, operators

LAST = [0, 2, 3, 1]
FIRST = [0, 3, 1, 2]
SHAPE = (2, 3, 4, 5)


def sunk(graph: ir.Graph, rows: int = 2) -> Counter[str]:
    """The operators after the pass, whose results are those from before."""
    names = [value.name for value in graph.outputs]
    feeds = feeds_of(graph, rows)
    before = run(graph, feeds)
    run_passes(model_of(graph), [SinkTransposes()], verify=True)
    for value, old in zip(Evaluator(graph)(feeds), before, strict=True):
        np.testing.assert_allclose(value, old, rtol=1e-12, atol=1e-12)
    assert [value.name for value in graph.outputs] == names
    check_shapes(graph, Evaluator(graph).all_values(feeds))
    return Counter(operators(graph))


def start(*shape: Any) -> tuple[ir.Graph, GraphBuilder, ir.Value]:
    graph, b = new_graph()
    return graph, b, b.input("x", FLOAT64, shape or SHAPE)


def through(b: GraphBuilder, x: ir.Value, *ops: Any) -> ir.Value:
    """Transposed to channels last, operators, and back."""
    y = b.op("Transpose", x, perm=LAST)
    for op in ops:
        y = op(y) if callable(op) else b.op(op, y)
    return b.op("Transpose", y, perm=FIRST)


@pytest.mark.parametrize("batch", [2, "batch"])
def test_elementwise_operators_lose_the_transposes_around_them(batch: int | str) -> None:
    graph, b, x = start(batch, 3, 4, 5)
    vector = b.constant(np.asarray([1.0, 2.0, 3.0]))
    image = b.constant(np.arange(20.0).reshape(4, 5, 1))

    def add(y: ir.Value) -> ir.Value:
        return b.op("Add", b.op("Mul", b.op("Mul", y, vector), image), 2.0)

    graph.outputs.append(through(b, x, "Relu", add, "Tanh"))
    # Nothing of it may be an output: that keeps its layout.
    graph.outputs[0] = b.op("Neg", graph.outputs[0])
    assert sunk(graph) == Counter(["Relu", "Mul", "Mul", "Add", "Tanh", "Neg"])


def test_a_bias_that_is_no_constant_is_transposed_itself() -> None:
    graph, b, x = start()
    bias = b.input("bias", FLOAT64, (3,))
    y = through(b, x, lambda y: b.op("Add", y, bias))
    graph.outputs.append(b.op("Neg", y))
    assert sunk(graph) == Counter(["Unsqueeze", "Transpose", "Add", "Neg"])
    moved = next(node for node in graph if node.op_type == "Transpose")
    assert moved.outputs[0].shape == ir.Shape([1, 3, 1, 1])


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Softmax", [], {"axis": 3}),
        ("LogSoftmax", [], {"axis": -2}),
        ("ReduceSum", [[1, 2]], {"keepdims": 1}),
        ("ReduceMax", [[-1]], {"keepdims": 1}),
        ("ReduceMean", [], {"keepdims": 1}),
        ("Pad", [[0, 1, 2, 0, 0, 0, 1, 2]], {}),
        ("Pad", [[1, 0, 0, 2], None, [-1, 1]], {"mode": "constant"}),
        ("Slice", [[1, 0], [4, 2], [2, -1]], {}),
    ],
)
def test_operators_along_axes_take_others(
    op: str, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    graph, b, x = start()
    y = through(b, x, lambda y: b.op(op, y, *inputs, **attributes))
    graph.outputs.append(b.op("Neg", y))
    assert sunk(graph) == Counter([op, "Neg"])


def test_concatenations_take_another_axis() -> None:
    graph, b, x = start()
    y = b.input("y", FLOAT64, (2, 6, 4, 5))
    both = b.op("Concat", *[b.op("Transpose", v, perm=LAST) for v in (x, y)], axis=3)
    graph.outputs.append(b.op("Neg", b.op("Transpose", both, perm=FIRST)))
    assert sunk(graph) == Counter(["Concat", "Neg"])
    assert graph[0].attributes["axis"].as_int() == 1


@pytest.mark.parametrize(
    ("axes", "left"),
    [([1, 2], 0), ([0, 1, 2], 0), ([1, 2, 3], 0), (None, 0), ([2], 1), ([0], 1)],
)
def test_sums_read_any_layout_if_the_axes_left_keep_their_order(
    axes: list[int] | None, left: int
) -> None:
    graph, b, x = start()
    y = b.op("Transpose", x, perm=LAST)
    graph.outputs.append(b.op("ReduceSum", y, axes, keepdims=0))
    assert sunk(graph)["Transpose"] == left


@pytest.mark.parametrize(("begin", "end"), [(None, None), (1, None), (2, 3), (-2, -1), (0, 0)])
def test_shapes_are_gathered(begin: int | None, end: int | None) -> None:
    graph, b, x = start("batch", 3, 4, 5)
    y = b.op("Transpose", x, perm=LAST)
    graph.outputs.append(b.op("Identity", b.op("Shape", y, start=begin, end=end)))
    assert sunk(graph) == Counter(["Shape", "Gather", "Identity"])


def test_a_shape_that_is_an_output_stays() -> None:
    graph, b, x = start("batch", 3, 4, 5)
    graph.outputs.append(b.op("Shape", b.op("Transpose", x, perm=LAST)))
    assert sunk(graph) == Counter(["Transpose", "Shape"])


def test_pads_are_of_all_axes() -> None:
    graph, b, x = start("batch", 3, 4, 5)
    graph.outputs.append(b.op("Pad", x, [1, 0, 0, 2], None, [-1, 1]))
    assert sunk(graph) == Counter(["Pad"])
    assert len(graph[0].inputs) == 3
    pads = graph[0].inputs[1]
    assert pads is not None
    assert b.constant_value(pads).tolist() == [0, 0, 0, 1, 0, 2, 0, 0]  # type: ignore[union-attr]


def test_a_permutation_that_is_its_own_inverse() -> None:
    graph, b, x = start(2, 3, 4)
    y = b.op("Relu", b.op("Transpose", x, perm=[0, 2, 1]))
    z = b.op("Transpose", b.op("Add", y, b.op("Softmax", y, axis=2)), perm=[0, 2, 1])
    graph.outputs.append(b.op("Neg", z))
    assert sunk(graph)["Transpose"] == 0


def test_a_value_plus_its_transpose_keeps_one() -> None:
    graph, b, x = start(2, 3, 3)
    y = b.op("Add", b.op("Relu", x), b.op("Transpose", b.op("Relu", x), perm=[0, 2, 1]))
    graph.outputs.append(b.op("Neg", y))
    assert sunk(graph)["Transpose"] == 1


def test_transposes_of_transposes_become_one() -> None:
    graph, b, x = start()
    y = b.op("Transpose", b.op("Transpose", x, perm=[0, 2, 1, 3]), perm=[0, 1, 3, 2])
    graph.outputs.append(y)
    assert sunk(graph) == Counter(["Transpose"])
    assert graph[0].attributes["perm"].as_ints() == (0, 2, 3, 1)


def test_a_transpose_moves_to_where_less_passes_it() -> None:
    graph, b, x = start()
    y = b.op("ReduceMean", b.op("Transpose", x, perm=LAST), [1, 2], keepdims=1)
    graph.outputs.append(b.op("Flatten", y))
    assert sunk(graph)["Transpose"] == 1
    assert operators(graph)[0] == "ReduceMean"


def test_what_is_needed_in_both_layouts_is_transposed_once() -> None:
    graph, b, x = start()
    y = b.op("Relu", b.op("Transpose", x, perm=LAST))
    graph.outputs.append(b.op("Flatten", y))
    graph.outputs.append(b.op("Flatten", b.op("Transpose", b.op("Tanh", y), perm=FIRST)))
    graph.outputs.append(b.op("Flatten", b.op("Transpose", b.op("Sin", y), perm=FIRST)))
    assert sunk(graph)["Transpose"] == 1


def test_outputs_keep_their_layout() -> None:
    graph, b, x = start()
    graph.outputs.append(b.op("Relu", b.op("Transpose", x, perm=LAST)))
    graph.outputs.append(b.op("Transpose", graph.outputs[0], perm=FIRST))
    assert sunk(graph)["Transpose"] <= 2


def test_subgraphs_get_what_they_captured() -> None:
    graph, b, x = start()
    condition = b.input("condition", np.dtype(np.bool_), ())
    y = b.op("Relu", b.op("Transpose", x, perm=LAST))
    chosen = conditional(b, condition, y, "Neg", "Tanh")
    graph.outputs.append(b.op("Flatten", chosen))
    graph.outputs.append(b.op("Flatten", b.op("Transpose", y, perm=FIRST)))
    feeds = {**feeds_of(graph, 2), "condition": np.asarray(True)}
    before = run(graph, feeds)
    apply(SinkTransposes(), graph)
    for new, old in zip(run(graph, feeds), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_inputs_of_other_operators_are_no_axes() -> None:
    """Attention's fourth input is a mask, where Slice and Pad have axes."""
    graph, b, x = start(2, 3, 4, 5)
    turned = b.op("Transpose", x, perm=FIRST)
    mask = b.constant(np.zeros((1, 1, 3, 3)))
    graph.outputs.append(b.op("Attention", turned, turned, turned, mask))
    apply(SinkTransposes(), graph)
    assert "Attention" in operators(graph)


def test_nothing_changes_where_nothing_is_gained() -> None:
    graph, b, x = start()
    y = b.op("Relu", b.op("Transpose", x, perm=LAST))
    graph.outputs.append(b.op("Flatten", y))
    assert not apply(SinkTransposes(), graph)


# Random graphs -----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("Relu", "Tanh", "Add", "Mul", "Max", "Vector", "Where", "Concat", "Softmax"),
                *("Sum", "Shape", "Flatten", "Pad", "Transpose", "Transpose", "Transpose"),
            ]
        ),
        st.integers(0, 30),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    min_size=2,
    max_size=16,
)


def random_graph(steps: Any, outputs: list[int], rank: int, symbolic: bool) -> ir.Graph:
    """Values of sizes 3 in all dimensions, so that any of them fit together in any layout."""
    graph, b = new_graph()
    shape = ("batch" if symbolic else 3, *(3,) * (rank - 1))
    perm = [0, *range(2, rank), 1]
    values = [b.input(name, FLOAT64, (3,) * rank if i else shape) for i, name in enumerate("xy")]
    vector = b.input("v", FLOAT64, (3,))
    for op, i, j, k in steps:
        x, y = values[i % len(values)], values[j % len(values)]
        if op in ("Relu", "Tanh", "Flatten"):
            made = b.op(op, x)
            made = b.op("Reshape", made, [3] * rank) if op == "Flatten" else made
        elif op in ("Add", "Mul", "Max"):
            made = b.op(op, x, y)
        elif op == "Vector":
            made = b.op("Add", x, vector if k % 2 else b.constant(np.arange(3.0)))
        elif op == "Where":
            made = b.op("Where", b.op("Less", x, y), y, x)
        elif op == "Concat":
            made = b.op("Concat", x, y, axis=k % rank)
            made = b.op("Slice", made, [k], [k + 3], [k % rank])
        elif op == "Softmax":
            made = b.op("Softmax", x, axis=k % rank)
        elif op == "Sum":
            made = b.op("Add", y, b.op("ReduceSum", x, [k % rank], keepdims=k % 2))
        elif op == "Shape":
            made = b.op("Reshape", y, b.op("Shape", x), allowzero=1)
        elif op == "Pad":
            made = b.op("Pad", x, [1, -1], None, [k % rank])
        else:
            chosen = perm if k % 2 else [int(a) for a in np.argsort(perm)]
            made = b.op("Transpose", x, perm=chosen)
        values.append(made)
    made_here = [v for v in values if v.producer() is not None]
    chosen_outputs = {id(v): v for v in (made_here[o % len(made_here)] for o in outputs)}
    graph.outputs.extend(chosen_outputs.values())
    return graph


def moved_elements(graph: ir.Graph, feeds: dict[str, Array]) -> int:
    values = Evaluator(graph).all_values(feeds)
    return sum(
        math.prod(values[node.outputs[0].name or ""].shape)
        for node in graph
        if node.op_type == "Transpose"
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    steps=STEPS,
    outputs=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    rank=st.integers(3, 4),
    symbolic=st.booleans(),
)
def test_random_graphs_keep_their_meaning(
    steps: Any, outputs: list[int], rank: int, symbolic: bool
) -> None:
    graph = random_graph(steps, outputs, rank, symbolic)
    run_passes(model_of(graph), [RemoveDeadCode(), EliminateCommonSubexpressions()])
    feeds = feeds_of(graph, 3)
    names = [value.name for value in graph.outputs]
    before, moved = run(graph, feeds), moved_elements(graph, feeds)
    run_passes(model_of(graph), [SinkTransposes()], verify=True)
    assert [value.name for value in graph.outputs] == names
    for new, old in zip(run(graph, feeds), before, strict=True):
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        np.testing.assert_allclose(new, old, rtol=1e-12, atol=1e-12)
    check_shapes(graph, Evaluator(graph).all_values(feeds))
    # Small vectors may be transposed for it.
    vectors = sum(op == "Vector" for op, *_ in steps)
    assert moved_elements(graph, feeds) <= moved + 3 * vectors


# A training step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, "batch"])
def test_a_channels_last_step_is_channels_first_but_for_its_ends(batch: int | str) -> None:
    """What stays is at the input, at the kernels, and where features are flattened."""
    graph, b, x = start(batch, 8, 8, 2)
    sources = [
        b.input("w1", FLOAT64, (3, 3, 2, 4)),
        b.input("b1", FLOAT64, (4,)),
        b.input("w2", FLOAT64, (3, 3, 4, 3)),
        b.input("b2", FLOAT64, (3,)),
    ]
    h = x
    for kernel, bias in (sources[:2], sources[2:]):
        y = b.op("Transpose", h, perm=FIRST)
        w = b.op("Transpose", kernel, perm=[3, 2, 0, 1])
        y = b.op("Conv", y, w, bias, pads=[1, 1, 1, 1])
        h = b.op("Relu", b.op("Transpose", y, perm=LAST))
    loss = b.op("ReduceSum", b.op("Tanh", b.op("Flatten", h)), keepdims=0)
    for source, gradient in zip(sources, differentiate(graph, [loss], sources), strict=True):
        graph.outputs.append(b.op("Sub", source, b.op("Mul", gradient, 0.1)))
    run_passes(model_of(graph), [RemoveDeadCode(), EliminateCommonSubexpressions()])
    sunk(graph)
    at = {
        node.inputs[0].name: tuple(node.attributes["perm"].as_ints())
        for node in graph
        if node.op_type == "Transpose" and node.inputs[0] is not None
    }
    perms = Counter(at.values())
    assert at["x"] == tuple(FIRST)
    assert at["w1"] == at["w2"] == (3, 2, 0, 1)
    # Forward and backward at Flatten. Kernel gradients have two of their own: one makes columns of
    # unfolded maps, (batch, maps, offsets, places), and one puts the kernel, of rank 7 by then, in
    # order.
    kernels = {p: n for p, n in perms.items() if len(p) == 7}
    assert sum(kernels.values()) == 2
    columns = {tuple(FIRST): 2}
    assert perms - Counter(kernels) - Counter(columns) == Counter(
        {tuple(FIRST): 2, tuple(LAST): 1, (3, 2, 0, 1): 2, (1, 0, 2, 3): 1}
    )
