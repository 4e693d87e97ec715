"""Passes keep what a graph means, and their contracts are enforced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.compiler import VerificationError, differentiate
from onnxtape.compiler.passes import GraphPass, run_passes
from onnxtape.compiler.passes.broadcasts import LeaveBroadcasting
from onnxtape.compiler.passes.column_sums import ColumnSumsAsProducts
from onnxtape.compiler.passes.common_subexpressions import EliminateCommonSubexpressions
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.fold_constants import FoldConstants
from onnxtape.compiler.passes.fold_scale import FoldScale
from onnxtape.compiler.passes.simplify import Simplify
from onnxtape.compiler.passes.transposes import SinkTransposes
from tests.compiler.graphs import BOOL, FLOAT64, INT64, model_of, new_graph, run
from tests.compiler.pass_checks import apply, conditional, feeds_of

FLOAT32 = np.dtype(np.float32)

PASSES: list[Callable[[], GraphPass]] = [
    RemoveDeadCode,
    FoldConstants,
    Simplify,
    EliminateCommonSubexpressions,
    ColumnSumsAsProducts,
    FoldScale,
    SinkTransposes,
    LeaveBroadcasting,
]


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
