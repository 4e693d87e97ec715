"""Passes keep what a graph means, and their contracts are enforced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.compiler import GraphBuilder, VerificationError, differentiate
from onnxtape.compiler.passes import GraphPass, run_passes
from onnxtape.compiler.passes.column_sums import ColumnSumsAsProducts
from onnxtape.compiler.passes.common_subexpressions import EliminateCommonSubexpressions
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.fold_constants import FoldConstants, evaluate_by_reference
from onnxtape.compiler.passes.fold_scale import FoldScale
from onnxtape.compiler.passes.simplify import Simplify
from tests.compiler.graphs import BOOL, FLOAT64, INT64, Array, model_of, new_graph, run, spread

FLOAT32 = np.dtype(np.float32)

PASSES: list[Callable[[], GraphPass]] = [
    RemoveDeadCode,
    FoldConstants,
    Simplify,
    EliminateCommonSubexpressions,
    ColumnSumsAsProducts,
    FoldScale,
]


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


def apply(graph_pass: GraphPass, graph: ir.Graph) -> bool:
    """Run one pass under its contract; whether it says that it changed anything."""
    model, before = model_of(graph), [repr(node) for node in graph]
    changed: list[bool] = []

    class Watched(type(graph_pass)):  # type: ignore[misc]
        def run(self, model: ir.Model) -> bool:
            changed.append(graph_pass.run(model))
            return changed[-1]

    watched = Watched.__new__(Watched)
    run_passes(model, [watched], verify=True)
    if not changed[0]:
        assert [repr(node) for node in graph] == before
    return changed[0]


def opaque(graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value]) -> ir.Value:
    """An operator of a custom domain with a standard one's name, which means something else."""
    node = ir.Node("com.example", op_type, inputs, name=f"opaque_{op_type}")
    node.outputs[0].name = f"opaque_{op_type}_out"
    node.outputs[0].type, node.outputs[0].shape = inputs[0].type, inputs[0].shape
    graph.append(node)
    return node.outputs[0]


# Meaning -----------------------------------------------------------------------------------------

CONSTANTS = [0.0, 1.0, -1.0, 2.0]

Step = tuple[str, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Add",
                "Mul",
                "Sub",
                "Div",
                "Neg",
                "Tanh",
                "Identity",
                "Cast",
                "Transpose",
                "Reshape",
                "Expand",
                "Gemm",
                "Scale",
                "ReduceSum",
                "Constant",
                "Fold",
            ]
        ),
        st.integers(0, 30),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=14,
)


def random_graph(steps: list[Step], outputs: list[int], rows: int | str, dtype: Any) -> ir.Graph:
    """Nodes over values of shape (rows, 4), (4, rows) and (4,), ending in some of them."""
    graph, b = new_graph()
    dtype = np.dtype(dtype)
    tall = [b.input("x", dtype, (rows, 4)), b.input("y", dtype, (rows, 4))]
    flat = [b.input("v", dtype, (4,))]
    weight = b.input("w", dtype, (4, 4))
    for op, i, j, k in steps:
        x, other, vector = tall[i % len(tall)], tall[j % len(tall)], flat[j % len(flat)]
        number = b.scalar(CONSTANTS[k], dtype)
        if op in ("Add", "Mul", "Sub", "Div"):
            divisor = b.scalar(CONSTANTS[k] or 4.0, dtype)
            second = [other, vector, number, divisor][k] if op != "Div" else divisor
            pair = (x, second) if i % 2 else (second, x) if op in ("Add", "Mul") else (x, second)
            tall.append(b.op(op, *pair))
        elif op in ("Neg", "Tanh", "Identity"):
            tall.append(b.op(op, x))
        elif op == "Cast":
            tall.append(b.op("Cast", x, to=1 if dtype == np.float32 else 11))
        elif op == "Transpose":
            tall.append(b.op("Transpose", b.op("Transpose", x, perm=[1, 0]), perm=[1, 0]))
        elif op == "Reshape":
            tall.append(b.op("Reshape", x, b.shape_tensor(other), allowzero=1))
        elif op == "Expand":
            tall.append(b.expand_like(vector, other) if k else b.op("Expand", x, [1, 1]))
        elif op == "Gemm":
            tall.append(b.op("Gemm", x, weight, transB=k % 2))
        elif op == "Scale":
            tall.append(b.op("Mul", b.op("Gemm", x, weight, alpha=0.5), b.scalar(k - 1.5, dtype)))
        elif op == "ReduceSum":
            flat.append(b.op("ReduceSum", x, [0], keepdims=0))
        elif op == "Constant":
            flat.append(b.op("Add", b.constant(np.arange(4, dtype=dtype)), CONSTANTS[k]))
        else:
            flat.append(b.op("Mul", vector, b.op("Neg", b.scalar(CONSTANTS[k], dtype))))
    values = [v for v in (*tall, *flat) if v.producer() is not None]
    chosen = {id(v): v for v in (values[o % len(values)] for o in outputs)}
    graph.outputs.extend(chosen.values())
    return graph


def feeds_of(graph: ir.Graph, rows: int) -> dict[str, Array]:
    feeds = {}
    for i, value in enumerate(graph.inputs):
        assert value.shape is not None
        shape = [d if isinstance(d, int) else rows for d in value.shape.dims]
        assert value.dtype is not None
        feeds[value.name or ""] = spread(shape, -1, 1.1, seed=i).astype(value.dtype.numpy())
    return feeds


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    steps=STEPS,
    outputs=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    symbolic=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    order=st.permutations(range(len(PASSES))),
)
def test_random_graphs_keep_their_meaning(
    steps: list[Step], outputs: list[int], symbolic: bool, dtype: Any, order: list[int]
) -> None:
    graph = random_graph(steps, outputs, "batch" if symbolic else 3, dtype)
    names = [v.name for v in graph.outputs]
    feeds = feeds_of(graph, 3)
    before = run(graph, feeds)
    run_passes(model_of(graph), [PASSES[i]() for i in order], verify=True)
    after = run(graph, feeds)
    assert [v.name for v in graph.outputs] == names
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for x, y in zip(before, after, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [5, "batch"])
def test_a_training_step_keeps_its_meaning(rows: int | str) -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT32, (rows, 4)), b.input("w", FLOAT32, (4, 3))
    c, t = b.input("c", FLOAT32, (3,)), b.input("t", INT64, (rows,))
    h = b.op("Tanh", b.op("Add", b.op("MatMul", x, w), c))
    loss = b.op("SoftmaxCrossEntropyLoss", b.op("Mul", h, 1.0), t)
    graph.outputs.append(loss)
    for parameter, gradient in zip((w, c), differentiate(graph, [loss], [w, c]), strict=True):
        graph.outputs.append(b.op("Sub", parameter, b.op("Mul", gradient, 0.1)))
    feeds = feeds_of(graph, 5) | {"t": np.asarray([0, 2, 1, 1, 0])}
    before, count = run(graph, feeds), len(list(graph))
    run_passes(model_of(graph), [make() for make in PASSES], verify=True)
    assert len(list(graph)) < count
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", PASSES)
def test_a_second_run_changes_nothing(make: Callable[[], GraphPass]) -> None:
    names = ["Add", "Transpose", "Scale", "Fold"] * 4 + ["ReduceSum"]
    steps = [(op, i, i + 1, i % 4) for i, op in enumerate(names)]
    graph = random_graph(steps, [0, 5, 40], 3, np.float32)
    apply(make(), graph)
    assert not apply(make(), graph)


# Dead code ---------------------------------------------------------------------------------------


def test_dead_code_goes_and_inputs_stay() -> None:
    graph, b = new_graph()
    x, unused = b.input("x", FLOAT64, (2,)), b.input("unused", FLOAT64, (2,))
    graph.outputs.append(b.op("Exp", x))
    b.op("Add", b.op("Sin", unused), b.constant(np.ones(2)))
    assert apply(RemoveDeadCode(), graph)
    assert operators(graph) == ["Exp"]
    assert list(graph.inputs) == [x, unused]
    assert not graph.initializers


def test_what_a_subgraph_reads_is_not_dead() -> None:
    graph, b = new_graph()
    x, c = b.input("x", FLOAT64, ()), b.input("c", BOOL, ())
    read = b.op("Exp", x)
    graph.outputs.append(conditional(b, c, read, "Sin", "Cos"))
    assert not apply(RemoveDeadCode(), graph)
    assert operators(graph) == ["Exp", "If"]


def conditional(
    b: GraphBuilder, condition: ir.Value, x: ir.Value, first: str, second: str
) -> ir.Value:
    """If condition: first(x), else second(x)."""
    branches = []
    for op_type in (first, second):
        inner = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name=op_type)
        inner_builder = GraphBuilder(inner)
        inner.outputs.append(inner_builder.op(op_type, x))
        inner.outputs[0].name = b.unique_name("inner")
        branches.append(inner)
    out = b.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    out.type, out.shape = x.type, x.shape
    return out


# Common subexpressions ---------------------------------------------------------------------------


def test_equal_nodes_become_one() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    graph.outputs.append(b.op("Mul", b.op("Exp", x), b.op("Exp", x)))
    assert apply(EliminateCommonSubexpressions(), graph)
    assert operators(graph) == ["Exp", "Mul"]


def test_equal_nodes_that_are_both_outputs_stay_two() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    graph.outputs.extend([b.op("Exp", x), b.op("Exp", x), b.op("Neg", b.op("Exp", x))])
    names = [v.name for v in graph.outputs]
    before = run(graph, {"x": np.ones(2)})
    assert apply(EliminateCommonSubexpressions(), graph)
    assert sorted(operators(graph)) == ["Exp", "Identity", "Neg"]
    assert [v.name for v in graph.outputs] == names
    for x_before, x_after in zip(before, run(graph, {"x": np.ones(2)}), strict=True):
        np.testing.assert_array_equal(x_before, x_after)


def test_different_attributes_and_operands_are_different() -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT64, (2, 2)), b.input("y", FLOAT64, (2, 2))
    values = [
        b.op("Softmax", x, axis=0),
        b.op("Softmax", x, axis=1),
        b.op("Sub", x, y),
        b.op("Sub", y, x),
        opaque(graph, "Sub", [x, y]),
    ]
    graph.outputs.extend(values)
    changed = EliminateCommonSubexpressions().run(model_of(graph))
    assert not changed
    assert len(list(graph)) == 5


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "Bernoulli", "Dropout", "RandomNormal"])
def test_two_draws_are_not_one(op_type: str) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (2, 2))
    if op_type == "RandomNormal":
        draws = [b.op(op_type, shape=[2, 2]) for _ in range(2)]
    elif op_type == "Dropout":
        ratio, training = b.constant(np.float32(0.5)), b.constant(np.bool_(True))
        draws = [b.op(op_type, x, ratio, training) for _ in range(2)]
    else:
        draws = [b.op(op_type, x) for _ in range(2)]
    graph.outputs.append(b.op("Sub", *draws))
    assert not apply(EliminateCommonSubexpressions(), graph)
    assert operators(graph) == [op_type, op_type, "Sub"]
    assert all(node.overload == "" for node in graph)


# Constants ---------------------------------------------------------------------------------------


def test_constants_are_folded_through_chains() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 3))
    total = b.op("ReduceSum", b.op("Mul", b.constant(np.arange(3.0)), 2.0), keepdims=0)
    graph.outputs.append(b.op("Mul", x, total))
    assert apply(FoldConstants(), graph)
    assert operators(graph) == ["Mul"]
    np.testing.assert_array_equal(run(graph, {"x": np.ones((2, 3))})[0], 6)


def test_shapes_that_are_known_are_folded() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 3))
    size = b.op("Unsqueeze", b.op("Size", x), [0])
    graph.outputs.append(b.op("Reshape", x, size))
    run_passes(model_of(graph), [RemoveDeadCode(), FoldConstants()], verify=True)
    assert operators(graph) == ["Reshape"]
    assert run(graph, {"x": np.ones((2, 3))})[0].shape == (6,)


def test_symbolic_shapes_are_not() -> None:
    graph, b = new_graph()
    graph.outputs.append(b.op("Neg", b.op("Shape", b.input("x", FLOAT64, ("batch", 3)))))
    assert not apply(FoldConstants(), graph)


def test_outputs_stay_nodes() -> None:
    graph, b = new_graph()
    graph.outputs.append(b.op("Neg", b.constant(np.ones(2))))
    assert not apply(FoldConstants(), graph)


@pytest.mark.parametrize(
    ("size", "limit", "folded"), [(8, 8, True), (9, 8, False), (9, 1024, True), (1025, 1024, False)]
)
def test_what_grows_is_folded_up_to_the_limit(size: int, limit: int, folded: bool) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (size,))
    graph.outputs.append(b.op("Add", x, b.op("Expand", b.constant(np.float64(3)), [size])))
    assert apply(FoldConstants(size_limit=limit), graph) == folded
    assert ("Expand" in operators(graph)) != folded


def test_what_does_not_grow_is_always_folded() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (50, 40))
    graph.outputs.append(
        b.op("Add", x, b.op("Transpose", b.constant(np.ones((40, 50))), perm=[1, 0]))
    )
    assert apply(FoldConstants(size_limit=10), graph)
    assert operators(graph) == ["Add"]


def test_what_would_be_too_large_is_not_even_computed() -> None:
    calls: list[str] = []

    def evaluate(op_type: str, *rest: Any) -> Sequence[Array]:
        calls.append(op_type)
        return evaluate_by_reference(op_type, *rest)

    graph, b = new_graph()
    x = b.input("x", FLOAT64, (1,))
    huge = b.op("Expand", b.op("Neg", b.constant(np.float64(3))), [1 << 20, 1 << 20])
    graph.outputs.append(b.op("Add", x, b.op("ReduceMax", huge, keepdims=0)))
    assert apply(FoldConstants(evaluate), graph)
    assert calls == ["Neg"]


@pytest.mark.parametrize(
    ("shape", "folded"), [([], True), ([1], True), ([0, 5], True), ([2], False)]
)
def test_filled_tensors_are_made_where_they_are_used(shape: list[int], folded: bool) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (1,))
    filled = b.op("ConstantOfShape", shape, value=np.asarray([2.5]))
    graph.outputs.append(b.op("Add", x, filled))
    assert apply(FoldConstants(), graph) == folded


def test_random_control_flow_and_foreign_nodes_are_not_folded() -> None:
    graph, b = new_graph()
    x, one = b.input("x", FLOAT32, (2,)), b.constant(np.ones(2, np.float32))
    parts = [
        b.op("RandomNormal", shape=[2]),
        b.op("Bernoulli", one),
        b.op("Dropout", one, b.constant(np.float32(0.5)), b.constant(np.bool_(True))),
        conditional(b, b.constant(np.bool_(True)), one, "Exp", "Sin"),
        opaque(graph, "Neg", [one]),
    ]
    graph.outputs.append(b.op("Sum", x, *parts))
    assert not FoldConstants().run(model_of(graph))
    assert len(list(graph)) == 6


def test_what_cannot_be_evaluated_is_left_to_the_runtime() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    wrong = b.op("Reshape", b.constant(np.ones(6)), b.op("Neg", b.constant(np.asarray([-4]))))
    graph.outputs.append(b.op("Add", x, b.op("ReduceSum", wrong, keepdims=0)))
    assert apply(FoldConstants(), graph)
    assert operators(graph) == ["Reshape", "ReduceSum", "Add"]


def test_nodes_are_folded_in_the_models_opset() -> None:
    graph, b = new_graph(opset=24)
    x = b.input("x", FLOAT32, (2,))
    swish = b.op("Swish", b.constant(np.ones(2, np.float32)))
    graph.outputs.append(b.op("Add", x, swish))
    assert apply(FoldConstants(), graph)
    assert operators(graph) == ["Add"]


# Identities --------------------------------------------------------------------------------------


Maker = Callable[[GraphBuilder, ir.Value], ir.Value]


def simplified(make: Maker, shape: Any = ("batch", 3)) -> list[str]:
    """The operators left between the input and the graph's output Exp."""
    graph, b = new_graph()
    x = b.input("x", FLOAT64, shape)
    graph.outputs.append(b.op("Exp", make(b, x)))
    rows = 4
    feeds = feeds_of(graph, rows)
    before = run(graph, feeds)[0]
    apply(Simplify(), graph)
    run_passes(model_of(graph), [RemoveDeadCode()], verify=True)
    np.testing.assert_array_equal(run(graph, feeds)[0], before)
    return operators(graph)[:-1]


@pytest.mark.parametrize(
    "make",
    [
        lambda b, x: b.op("Add", x, 0.0),
        lambda b, x: b.op("Add", b.scalar(0.0, FLOAT64), x),
        lambda b, x: b.op("Mul", x, 1.0),
        lambda b, x: b.op("Mul", np.ones((1, 1)), x),
        lambda b, x: b.op("Sub", x, 0.0),
        lambda b, x: b.op("Div", x, 1.0),
        lambda b, x: b.op("Neg", b.op("Neg", x)),
        lambda b, x: b.op("Identity", x),
        lambda b, x: b.op("Cast", x, to=11),
        lambda b, x: b.op("Reshape", x, b.op("Shape", x)),
        lambda b, x: b.op("Expand", x, [1, 3]),
        lambda b, x: b.op("Transpose", x, perm=[0, 1]),
        lambda b, x: b.op("Transpose", b.op("Transpose", x, perm=[1, 0]), perm=[1, 0]),
        lambda b, x: b.op("Mul", b.op("Add", b.op("Identity", x), 0.0), 1.0),
    ],
)
def test_identities(make: Maker) -> None:
    assert simplified(make) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda b, x: b.op("Add", x, 1.0),
        lambda b, x: b.op("Mul", x, 0.0),
        lambda b, x: b.op("Sub", b.scalar(0.0, FLOAT64), x),
        lambda b, x: b.op("Div", b.scalar(1.0, FLOAT64), x),
        lambda b, x: b.op("Add", x, np.zeros((1, 1, 1))),
        lambda b, x: b.op("Add", x, np.zeros(3)),
        lambda b, x: b.op("Cast", b.op("Cast", x, to=1), to=11),
        lambda b, x: b.op("Neg", b.op("Abs", x)),
        lambda b, x: b.op("Reshape", x, [-1]),
        lambda b, x: b.op("Expand", x, [2, 1, 3]),
        lambda b, x: b.op("Transpose", x, perm=[1, 0]),
        lambda b, x: b.op("Transpose", x),
        lambda b, x: b.op("Transpose", b.op("Transpose", x, perm=[1, 0])),
    ],
)
def test_no_identities(make: Maker) -> None:
    assert simplified(make) != []


def test_transposes_of_three_axes() -> None:
    def twice(first: list[int], second: list[int]) -> list[str]:
        def make(b: GraphBuilder, x: ir.Value) -> ir.Value:
            return b.op("Transpose", b.op("Transpose", x, perm=first), perm=second)

        return simplified(make, (2, 3, 4))

    assert twice([1, 2, 0], [2, 0, 1]) == []
    assert twice([1, 2, 0], [1, 2, 0]) == ["Transpose", "Transpose"]


def test_an_expansion_between_symbols_is_not_dropped() -> None:
    """`batch` may be 1 and `m` not."""
    graph, b = new_graph()
    x, y = b.input("x", FLOAT64, ("batch", 3)), b.input("y", FLOAT64, ("m", 3))
    graph.outputs.append(b.op("Exp", b.op("Expand", x, b.op("Shape", y))))
    assert not apply(Simplify(), graph)


def test_outputs_and_foreign_nodes_are_not_simplified() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    graph.outputs.append(b.op("Identity", x))
    graph.outputs.append(b.op("Exp", opaque(graph, "Identity", [x])))
    graph.outputs.append(b.op("Neg", opaque(graph, "Neg", [x])))
    assert not Simplify().run(model_of(graph))
    assert len(list(graph)) == 5


# Products ----------------------------------------------------------------------------------------


def test_column_sums_become_products() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (5, 4))
    graph.outputs.append(b.op("ReduceSum", x, [0], keepdims=0))
    graph.outputs.append(b.op("Exp", b.op("ReduceSum", x, [-2], keepdims=0)))
    names = [v.name for v in graph.outputs]
    feeds = feeds_of(graph, 5)
    before = run(graph, feeds)
    assert apply(ColumnSumsAsProducts(), graph)
    assert operators(graph) == ["MatMul", "MatMul", "Exp"]
    assert [v.name for v in graph.outputs] == names
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_other_sums_stay() -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT32, (5, 4)), b.input("y", FLOAT32, ("batch", 4))
    z, i = b.input("z", FLOAT64, (5, 4)), b.input("i", INT64, (1,))
    sums = [
        b.op("ReduceSum", x, [1], keepdims=0),
        b.op("ReduceSum", x, [0]),
        b.op("ReduceSum", x, [0, 1], keepdims=0),
        b.op("ReduceSum", x, keepdims=0),
        b.op("ReduceSum", x, i, keepdims=0),
        b.op("ReduceSum", y, [0], keepdims=0),
        b.op("ReduceSum", z, [0], keepdims=0),
        b.op("ReduceMax", x, [0], keepdims=0),
    ]
    graph.outputs.extend(sums)
    assert not apply(ColumnSumsAsProducts(), graph)


def test_a_scale_is_folded_into_its_product() -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT32, (5, 4)), b.input("w", FLOAT32, (4, 4))
    graph.outputs.append(b.op("Exp", b.op("Mul", b.op("Gemm", x, w, alpha=0.5, transB=1), 0.25)))
    feeds = feeds_of(graph, 5)
    before = run(graph, feeds)[0]
    assert apply(FoldScale(), graph)
    assert operators(graph) == ["Gemm", "Exp"]
    np.testing.assert_allclose(run(graph, feeds)[0], before, rtol=1e-6)


def test_scales_that_are_not_the_products_alone_stay() -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT32, (4, 4)), b.input("w", FLOAT32, (4, 4))
    shared = b.op("Gemm", x, w)
    graph.outputs.extend(
        [
            b.op("Exp", b.op("Mul", shared, 0.5)),
            b.op("Neg", shared),
            b.op("Exp", b.op("Mul", b.op("Gemm", x, w, b.constant(np.ones(4, np.float32))), 0.5)),
            b.op("Exp", b.op("Mul", b.op("Gemm", x, w, alpha=2.0), np.ones(4, np.float32))),
            b.op("Exp", b.op("Mul", b.op("MatMul", x, w), 0.5)),
            b.op("Mul", b.op("Gemm", x, w, alpha=3.0), 0.5),
        ]
    )
    assert not apply(FoldScale(), graph)


# Contracts ---------------------------------------------------------------------------------------


class Evil(GraphPass):
    """Does to the graph what the test says."""

    def __init__(self, deed: Callable[[ir.Graph], Any]) -> None:
        self._deed = deed

    def run(self, model: ir.Model) -> bool:
        self._deed(model.graph)
        return True


class DeclaredEvil(Evil):
    adds: ClassVar[frozenset[str]] = frozenset({"Neg"})
    may_grow: ClassVar[bool] = True


def insert(op_type: str) -> Callable[[ir.Graph], None]:
    """Puts a node between the graph's last node and its output."""

    def deed(graph: ir.Graph) -> None:
        out = graph.outputs[0]
        name, dtype = out.name, out.type
        out.name = "inner"
        node = ir.Node("", op_type, [out], name="evil")
        node.outputs[0].name, node.outputs[0].type = name, dtype
        graph.append(node)
        graph.outputs[0] = node.outputs[0]

    return deed


def victim() -> ir.Graph:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    graph.outputs.append(b.op("Exp", b.op("Sin", x)))
    graph.outputs[0].name = "y"
    return graph


def verdict(graph_pass: GraphPass, graph: ir.Graph | None = None) -> str:
    with pytest.raises(VerificationError) as caught:
        run_passes(model_of(graph or victim()), [graph_pass], verify=True)
    return str(caught.value)


def test_operators_must_be_declared() -> None:
    assert verdict(Evil(insert("Neg"))) == "Evil created Neg without declaring it"
    run_passes(model_of(victim()), [DeclaredEvil(insert("Neg"))], verify=True)
    assert verdict(DeclaredEvil(insert("Abs"))) == "DeclaredEvil created Abs without declaring it"


def test_operators_inside_subgraphs_count() -> None:
    graph, b = new_graph()
    x, c = b.input("x", FLOAT64, ()), b.input("c", BOOL, ())
    graph.outputs.append(conditional(b, c, x, "Sin", "Cos"))

    def deed(graph: ir.Graph) -> None:
        insert("Neg")(next(iter(graph)).attributes["then_branch"].as_graph())

    assert verdict(Evil(deed), graph) == "Evil created Neg without declaring it"


def test_growth_must_be_declared() -> None:
    class Growing(Evil):
        adds: ClassVar[frozenset[str]] = frozenset({"Neg"})

    assert verdict(Growing(insert("Neg"))) == "Growing made the graph larger"


def rename_output(graph: ir.Graph) -> None:
    graph.outputs[0].name = "z"


def change_dtype(graph: ir.Graph) -> None:
    graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)


def drop_output(graph: ir.Graph) -> None:
    del graph.outputs[:]


def rename_input(graph: ir.Graph) -> None:
    graph.inputs[0].name = "z"


def add_input(graph: ir.Graph) -> None:
    graph.inputs.append(ir.Value(name="more", type=ir.TensorType(ir.DataType.FLOAT)))


@pytest.mark.parametrize(
    "deed", [rename_output, change_dtype, drop_output, rename_input, add_input]
)
def test_the_signature_must_stay(deed: Callable[[ir.Graph], Any]) -> None:
    assert verdict(Evil(deed)) == "Evil changed the model's signature"


def forget_the_first_node(graph: ir.Graph) -> None:
    graph.remove(next(iter(graph)))


def test_broken_graphs_are_caught_and_the_pass_is_named() -> None:
    assert verdict(Evil(forget_the_first_node)).startswith(
        "after Evil: input 0 of Exp (node 'Exp_2_node'), 'Sin_1', is not defined before it"
    )


def test_a_graph_that_is_broken_from_the_start() -> None:
    graph = victim()
    forget_the_first_node(graph)
    assert verdict(RemoveDeadCode(), graph).startswith("after tracing: input 0 of Exp")


def test_without_verification_nothing_is_checked() -> None:
    run_passes(model_of(victim()), [Evil(rename_output), Evil(insert("Neg"))])


def test_a_pass_must_be_written() -> None:
    with pytest.raises(NotImplementedError):
        GraphPass().run(model_of(victim()))
