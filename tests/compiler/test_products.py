"""Products as the CPU's kernels do them best: the same numbers, with other flags and factors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.inference import known_shape
from onnxtape.compiler.passes import GraphPass, run_passes
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.products import DOMAIN
from onnxtape.compiler.passes.products.scaled import ScaledLayers
from onnxtape.compiler.passes.products.transposed_operands import TransposedOperands
from onnxtape.compiler.passes.products.turned_squares import SquareTurned
from onnxtape.compiler.passes.products.weight_gradients import WideOperandsFirst
from onnxtape.compiler.passes.row_sums import RowSumsOfOutputs
from tests.compiler.graphs import FLOAT64, Array, model_of, new_graph
from tests.compiler.pass_checks import feeds_of

FLOAT32 = np.dtype(np.float32)


class FusedMatMul(OpRun):
    """ONNX Runtime's: alpha * op(A) @ op(B), where op exchanges the last two axes."""

    op_domain = DOMAIN

    def _run(self, a: Array, b: Array, **attributes: Any) -> tuple[Array]:
        for name in ("transBatchA", "transBatchB"):
            assert not attributes.get(name)
        if attributes.get("transA"):
            a = np.swapaxes(a, -1, -2)
        if attributes.get("transB"):
            b = np.swapaxes(b, -1, -2)
        alpha = attributes.get("alpha")
        return (((1.0 if alpha is None else alpha) * (a @ b)).astype(a.dtype),)


def values(graph: ir.Graph, feeds: dict[str, Array]) -> list[Array]:
    evaluator = ReferenceEvaluator(ir.to_proto(model_of(graph)), new_ops=[FusedMatMul])
    found: Any = evaluator.run(None, feeds)
    return [np.asarray(x) for x in found]


def after(graph: ir.Graph, graph_pass: GraphPass) -> Counter[str]:
    """The operators after the pass, whose results are those from before."""
    names = [value.name for value in graph.outputs]
    feeds = feeds_of(graph, 2)
    before = values(graph, feeds)
    run_passes(model_of(graph), [graph_pass], verify=True)
    for value, old in zip(values(graph, feeds), before, strict=True):
        np.testing.assert_allclose(value, old, rtol=1e-5, atol=1e-5)
    assert [value.name for value in graph.outputs] == names
    return Counter(node.op_type for node in graph)


def start(dtype: Any = FLOAT32) -> tuple[ir.Graph, GraphBuilder, ir.Value]:
    """With an input (2, 6, 3, 4) that is to be split into heads."""
    graph, b = new_graph()
    return graph, b, b.input("x", dtype, (2, 6, 3, 4))


# Transposed operands ------------------------------------------------------------------------------

HEADS, TURNED = [0, 2, 1, 3], [0, 2, 3, 1]


def test_a_right_operand_is_taken_from_the_transpose_that_keeps_rows() -> None:
    graph, b, x = start()
    q = b.input("q", FLOAT32, (2, 3, 5, 4))
    scores = b.op("MatMul", q, b.op("Transpose", x, perm=TURNED))
    graph.outputs.append(b.op("MatMul", scores, b.op("Transpose", x, perm=HEADS)))
    assert after(graph, TransposedOperands()) == {"Transpose": 1, "FusedMatMul": 1, "MatMul": 1}
    kept = next(node for node in graph if node.op_type == "Transpose")
    assert list(kept.attributes["perm"].as_ints()) == HEADS


def test_a_left_operand_is_if_it_is_the_smaller() -> None:
    for columns, left in ((7, 1), (2, 2)):
        graph, b, x = start()
        p = b.input("p", FLOAT32, (2, 3, 6, columns))
        v = b.input("v", FLOAT32, (2, 3, 4, 4))
        graph.outputs.append(b.op("MatMul", b.op("Transpose", x, perm=HEADS), v))
        graph.outputs.append(b.op("MatMul", b.op("Transpose", x, perm=TURNED), p))
        assert after(graph, TransposedOperands())["Transpose"] == left


def test_transposes_stay_where_something_else_needs_both() -> None:
    graph, b, x = start()
    q = b.input("q", FLOAT32, (2, 3, 5, 4))
    turned = b.op("Transpose", x, perm=TURNED)
    graph.outputs.extend([b.op("MatMul", q, turned), b.op("Exp", turned)])
    graph.outputs.append(b.op("Exp", b.op("Transpose", x, perm=HEADS)))
    assert after(graph, TransposedOperands())["Transpose"] == 2


def test_what_is_computed_again_on_purpose_is_not_merged() -> None:
    graph, b, x = start()
    q = b.input("q", FLOAT32, (2, 3, 5, 4))
    turned = b.op("Transpose", x, perm=TURNED)
    graph.outputs.append(b.op("MatMul", q, turned))
    graph.outputs.append(b.op("Exp", b.op("Transpose", x, perm=HEADS)))
    maker = turned.producer()
    assert maker is not None
    maker.metadata_props["onnxtape.recomputed"] = "1"
    assert after(graph, TransposedOperands())["Transpose"] == 2


def test_other_dtypes_have_no_fused_product() -> None:
    graph, b, x = start(FLOAT64)
    q = b.input("q", FLOAT64, (2, 3, 5, 4))
    scores = b.op("MatMul", q, b.op("Transpose", x, perm=TURNED))
    graph.outputs.append(b.op("MatMul", scores, b.op("Transpose", x, perm=HEADS)))
    assert after(graph, TransposedOperands()) == {"Transpose": 2, "MatMul": 2}


# Weight gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "wide", "turned"), [(512, 512, True), (512, 129, False), (64, 4096, False)]
)
def test_the_wider_operand_of_a_weight_gradient_is_transposed(
    rows: int, wide: int, turned: bool
) -> None:
    graph, b = new_graph()
    x, g = b.input("x", FLOAT32, (rows, 128)), b.input("g", FLOAT32, (rows, wide))
    graph.outputs.append(b.op("Gemm", x, g, transA=1, alpha=0.5))
    expected = {"FusedMatMul": 1, "Transpose": 1} if turned else {"Gemm": 1}
    assert after(graph, WideOperandsFirst()) == expected


@pytest.mark.parametrize("square_first", [False, True])
def test_squares_are_made_of_turned_gradients(square_first: bool) -> None:
    """ONNX Runtime moves Transposes behind the square."""
    graph, b = new_graph()
    g = b.input("g", FLOAT32, (3, 4))
    square = b.op("Mul", g, g)
    turned = [b.op("Transpose", x, perm=[1, 0]) for x in (g, square)[:: -1 if square_first else 1]]
    graph.outputs.extend(turned)
    assert after(graph, SquareTurned()) == {"Transpose": 1, "Mul": 2}
    run_passes(model_of(graph), [RemoveDeadCode()])
    assert Counter(node.op_type for node in graph) == {"Transpose": 1, "Mul": 1}


def test_a_turned_gradient_that_is_read_before_its_square_keeps_its_place() -> None:
    graph, b = new_graph()
    g = b.input("g", FLOAT32, (3, 4))
    turned = b.op("Transpose", g, perm=[1, 0])
    graph.outputs.append(b.op("Neg", turned))
    graph.outputs.append(b.op("Transpose", b.op("Mul", g, g), perm=[1, 0]))
    assert after(graph, SquareTurned()) == {"Transpose": 1, "Mul": 2, "Neg": 1}


def test_squares_that_others_read_stay() -> None:
    graph, b = new_graph()
    g = b.input("g", FLOAT32, (3, 3))
    square = b.op("Mul", g, g)
    graph.outputs.extend([b.op("Transpose", x, perm=[1, 0]) for x in (g, square)])
    graph.outputs.append(b.op("Neg", square))
    assert after(graph, SquareTurned()) == {"Transpose": 2, "Mul": 1, "Neg": 1}


def test_products_of_different_gradients_stay() -> None:
    graph, b = new_graph()
    g, h = b.input("g", FLOAT32, (3, 3)), b.input("h", FLOAT32, (3, 3))
    for value in (g, b.op("Mul", g, h), b.op("Transpose", b.op("Mul", g, g), perm=[0, 1])):
        graph.outputs.append(b.op("Transpose", value, perm=[1, 0]))
    assert after(graph, SquareTurned()) == {"Transpose": 4, "Mul": 2}


# Scaled layers ------------------------------------------------------------------------------------


def gelu(
    b: GraphBuilder, dtype: Any = FLOAT32, half: float = 0.7
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """A layer's output y, c y, and y s(c y)."""
    x, w = b.input("x", dtype, (2, 3, 4)), b.input("w", dtype, (4, 5))
    y = b.op("Add", b.op("MatMul", x, w), b.input("bias", dtype, (5,)))
    u = b.op("Mul", y, half)
    return y, u, b.op("Mul", y, b.op("Sigmoid", u))


def test_a_factor_moves_into_the_products_around() -> None:
    graph, b = new_graph()
    _, u, h = gelu(b)
    graph.outputs.append(b.op("MatMul", h, b.input("w2", FLOAT32, (5, 4))))
    flat = b.op("Reshape", h, [6, 5])
    graph.outputs.append(b.op("Gemm", flat, b.input("g", FLOAT32, (6, 4)), transA=1))
    graph.outputs.append(b.op("Exp", u))
    found = after(graph, ScaledLayers())
    # The pass over y is one over the bias.
    assert found["Mul"] == 2
    assert found["FusedMatMul"] == 2
    scaled = (known_shape(n.inputs[0]) for n in graph if n.op_type == "Mul")
    assert [len(shape or ()) for shape in scaled] == [1, 3]


def test_it_stays_where_something_else_takes_the_result() -> None:
    for extra in ("layer", "result"):
        graph, b = new_graph()
        y, _, h = gelu(b)
        graph.outputs.append(b.op("MatMul", h, b.input("w2", FLOAT32, (5, 4))))
        graph.outputs.append(b.op("Exp", y if extra == "layer" else h))
        assert "FusedMatMul" not in after(graph, ScaledLayers())


def test_it_stays_where_a_product_takes_the_result_twice() -> None:
    graph, b = new_graph()
    h = gelu(b)[2]
    graph.outputs.append(b.op("MatMul", b.op("Transpose", h, perm=[0, 2, 1]), h))
    graph.outputs.append(b.op("Gemm", *[b.op("Reshape", h, [6, 5])] * 2, transA=1))
    assert "FusedMatMul" not in after(graph, ScaledLayers())


@pytest.mark.parametrize(("dtype", "factor"), [(FLOAT64, 0.7), (FLOAT32, 1e-20)])
def test_factors_that_products_cannot_take_stay(dtype: Any, factor: float) -> None:
    graph, b = new_graph()
    h = gelu(b, dtype, factor)[2]
    graph.outputs.append(b.op("MatMul", h, b.input("w2", dtype, (5, 4))))
    assert "FusedMatMul" not in after(graph, ScaledLayers())


# Row sums of attention ----------------------------------------------------------------------------


def attention_backward(b: GraphBuilder, size: int) -> tuple[ir.Value, ir.Value]:
    """An output P B, and sum((A B^T) P) over each row, for 5 keys."""
    scores, value = b.input("s", FLOAT64, (2, 4, 5)), b.input("v", FLOAT64, (2, 5, size))
    g = b.input("g", FLOAT64, (2, 4, size))
    weights = b.op("Softmax", scores, axis=-1)
    output = b.op("MatMul", weights, value)
    back = b.op("MatMul", g, b.op("Transpose", value, perm=[0, 2, 1]))
    return output, b.op("ReduceSum", b.op("Mul", back, weights), [-1], keepdims=1)


@pytest.mark.parametrize("size", [3, 5])
def test_row_sums_come_from_the_smaller_output(size: int) -> None:
    graph, b = new_graph()
    graph.outputs.extend(attention_backward(b, size))
    after(graph, RowSumsOfOutputs())
    product = next(node for node in graph if node.op_type == "Mul")
    assert {x.name for x in product.inputs if x is not None} >= ({"g"} if size == 3 else set())
    assert product.outputs[0].shape == ir.Shape((2, 4, 3 if size == 3 else 5))


def test_row_sums_do_not_wait_for_an_output_that_comes_later() -> None:
    graph, b = new_graph()
    output, total = attention_backward(b, 3)
    late = output.producer()
    assert late is not None
    graph.outputs.extend([total, output])
    graph.remove(late)
    graph.append(late)
    after(graph, RowSumsOfOutputs())
    product = next(node for node in graph if node.op_type == "Mul")
    assert product.outputs[0].shape == ir.Shape((2, 4, 5))
