"""What each pass rewrites, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes import run_passes
from onnxtape.compiler.passes.broadcasts import LeaveBroadcasting
from onnxtape.compiler.passes.column_sums import ColumnSumsAsProducts
from onnxtape.compiler.passes.common_subexpressions import EliminateCommonSubexpressions
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.few_maps import FewMapsByTransposedConvolutions
from onnxtape.compiler.passes.fold_constants import FoldConstants, evaluate_by_reference
from onnxtape.compiler.passes.fold_scale import FoldScale
from onnxtape.compiler.passes.repaired import ThresholdRepairs
from onnxtape.compiler.passes.scattered_sums import ScatterIntoSums
from onnxtape.compiler.passes.simplify import Simplify
from onnxtape.compiler.passes.split_softmax import SplitSoftmax
from onnxtape.compiler.passes.split_sums import SplitSums
from tests.compiler.graphs import BOOL, FLOAT64, INT64, Array, model_of, new_graph, run
from tests.compiler.pass_checks import apply, conditional, feeds_of, opaque, operators

FLOAT32 = np.dtype(np.float32)

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


# NaN made zero ------------------------------------------------------------------------------------


def test_a_softmax_without_nan_takes_one_operator() -> None:
    graph, b = new_graph()
    p = b.op("Softmax", b.input("x", FLOAT32, (2, 3)), axis=-1)
    graph.outputs.append(b.op("Exp", b.op("Where", b.op("IsNaN", p), b.constant(np.float32(0)), p)))
    feeds = {"x": np.array([[-np.inf] * 3, [1, 2, -np.inf]], np.float32)}
    before = run(graph, feeds)[0]
    assert apply(ThresholdRepairs(), graph)
    assert operators(graph) == ["Softmax", "IsNaN", "ThresholdedRelu", "Exp"]
    np.testing.assert_array_equal(run(graph, feeds)[0], before)


def test_other_repairs_stay() -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT32, (2, 3)), b.input("y", FLOAT64, (2, 3))
    p, wide = b.op("Softmax", x, axis=-1), b.op("Softmax", y, axis=-1)
    zero, one = (b.constant(np.float32(k)) for k in (0, 1))
    repairs = [
        b.op("Where", b.op("IsNaN", x), zero, x),
        b.op("Where", b.op("IsNaN", p), one, p),
        b.op("Where", b.op("IsNaN", x), zero, p),
        b.op("Where", b.op("IsNaN", p), p, zero),
        b.op("Where", b.op("IsNaN", wide), b.constant(np.float64(0)), wide),
    ]
    graph.outputs.extend(b.op("Exp", repair) for repair in repairs)
    assert not apply(ThresholdRepairs(), graph)


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


@pytest.mark.parametrize(
    ("zeros", "reduction", "axes", "keepdims", "left"),
    [
        (np.zeros((4, 3)), "add", [1], 1, []),
        (np.zeros((4, 3)), "add", [-1], 1, []),
        (np.ones((4, 3)), "add", [1], 1, ["ScatterElements", "ReduceSum"]),
        (np.zeros((4, 3)), "mul", [1], 1, ["ScatterElements", "ReduceSum"]),
        (np.zeros((4, 3)), "add", [0], 1, ["ScatterElements", "ReduceSum"]),
        (np.zeros((4, 3)), "add", [0, 1], 1, ["ScatterElements", "ReduceSum"]),
        (np.zeros((4, 3)), "add", [1], 0, ["ScatterElements", "ReduceSum"]),
        (None, "add", [1], 1, []),
    ],
)
def test_the_sum_of_what_was_scattered_once(
    zeros: Any, reduction: str, axes: list[int], keepdims: int, left: list[str]
) -> None:
    def make(b: GraphBuilder, x: ir.Value) -> ir.Value:
        into = zeros
        if zeros is None:
            into = b.op("ConstantOfShape", [4, 3], value=np.zeros(1))
        places = np.int64([[2], [0], [1], [2]])
        made = b.op("ScatterElements", into, places, x, axis=1, reduction=reduction)
        return b.op("ReduceSum", made, axes, keepdims=keepdims)

    assert simplified(make, (4, 1)) == left


def test_two_in_one_line_are_not_their_sum() -> None:
    def make(b: GraphBuilder, x: ir.Value) -> ir.Value:
        places = np.zeros((4, 2), np.int64)
        made = b.op("ScatterElements", np.zeros((4, 3)), places, x, axis=1, reduction="add")
        return b.op("ReduceSum", made, [1], keepdims=1)

    assert simplified(make, (4, 2)) == ["ScatterElements", "ReduceSum"]


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


# Convolutions ------------------------------------------------------------------------------------


def test_convolutions_to_few_maps_fold_what_products_make() -> None:
    graph, b = new_graph()
    x, bias = b.input("x", FLOAT32, ("batch", 12, 6, 7)), b.input("bias", FLOAT32, (2,))
    one = b.input("one", FLOAT32, (1, 12, 3, 5))
    two = b.input("two", FLOAT32, (2, 12, 2, 2))
    graph.outputs.append(b.op("Conv", x, one, pads=[0, 2, 1, 3]))
    graph.outputs.append(b.op("Exp", b.op("Conv", x, two, bias, dilations=[2, 1])))
    feeds = feeds_of(graph, 3)
    before = run(graph, feeds)
    assert apply(FewMapsByTransposedConvolutions(), graph)
    by_image = ["Slice", "Transpose", "ConvTranspose"]
    assert operators(graph) == [*by_image, *by_image, "Exp"]
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_other_convolutions_stay() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, ("batch", 12, 6, 7))
    kernels = [
        b.input(f"w{i}", FLOAT32, s)
        for i, s in enumerate([(1, 12, 1, 1), (4, 12, 3, 3), (2, 6, 3, 3), (1, 12, 3, 3)])
    ]
    graph.outputs.append(b.op("Conv", x, kernels[0]))
    graph.outputs.append(b.op("Conv", x, kernels[1]))
    graph.outputs.append(b.op("Conv", x, kernels[2], group=2))
    graph.outputs.append(b.op("Conv", x, kernels[3], strides=[2, 1]))
    graph.outputs.append(b.op("Conv", x, kernels[3], pads=[0, 3, 0, 0]))
    graph.outputs.append(b.op("Conv", x, kernels[3], auto_pad="SAME_UPPER"))
    assert not apply(FewMapsByTransposedConvolutions(), graph)


# Broadcasting ------------------------------------------------------------------------------------


def test_operators_broadcast_by_themselves() -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT32, ("batch", 4)), b.input("y", FLOAT32, ("batch", 4))
    row, column = b.input("row", FLOAT32, (4,)), b.input("column", FLOAT32, ("batch", 1))
    wide, tall = b.op("Expand", row, b.op("Shape", x)), b.op("Expand", column, b.op("Shape", x))
    b.refine_shape(wide, b.shape(x))
    b.refine_shape(tall, b.shape(x))
    graph.outputs.extend([b.op("Mul", wide, x), b.op("Sum", x, tall, wide, y)])
    # Of two that are expanded, one has to stay so; and an Exp broadcasts nothing.
    graph.outputs.extend([b.op("Add", wide, tall), b.op("Exp", wide)])
    feeds = feeds_of(graph, 3)
    before = run(graph, feeds)
    assert apply(LeaveBroadcasting(), graph)
    mul, total, both, alone = (v.producer() for v in graph.outputs)
    assert mul is not None
    assert total is not None
    assert both is not None
    assert alone is not None
    assert list(mul.inputs) == [row, x]
    assert list(total.inputs) == [x, column, row, y]
    assert list(both.inputs) == [row, tall]
    assert list(alone.inputs) == [wide]
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_gives_the_result_its_shape_stays_expanded() -> None:
    graph, b = new_graph()
    row, column = b.input("row", FLOAT32, (4,)), b.input("column", FLOAT32, (3, 1))
    graph.outputs.append(b.op("Mul", b.op("Expand", row, [3, 4]), 2.0))
    graph.outputs.append(b.op("Add", b.op("Expand", row, [3, 4]), column))
    graph.outputs.append(b.op("MatMul", b.op("Expand", row, [3, 4]), b.op("Expand", row, [4, 4])))
    assert not apply(LeaveBroadcasting(), graph)


def test_a_constant_of_equal_numbers_is_one_number() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, ("n", 4))
    halves = b.constant(np.full((1, 4), 0.5, np.float32))
    zeros = b.constant(np.asarray([0.0, -0.0, 0.0, 0.0], np.float32))
    unknown = b.constant(np.full(4, np.nan, np.float32))
    graph.outputs.append(b.op("Mul", x, halves))
    graph.outputs.append(b.op("Div", x, zeros))
    graph.outputs.append(b.op("Add", unknown, x))
    graph.outputs.append(b.op("Add", b.input("row", FLOAT32, (1,)), halves))
    feeds = {"x": np.asarray([[1, -2, 3, 4]], np.float32), "row": np.ones(1, np.float32)}
    before = run(graph, feeds)
    assert apply(LeaveBroadcasting(), graph)
    assert not apply(LeaveBroadcasting(), graph)
    mul, div, add, wide = list(graph)
    assert b.shape(mul.inputs[1]) == b.shape(add.inputs[0]) == ()
    assert div.inputs[1] is zeros
    assert wide.inputs[1] is halves
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


# Sums --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["constant", "column"])
def test_what_classes_get_is_added_to_the_rest_of_a_gradient(weights: str) -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT32, (3, 5)), b.input("y", INT64, (3, 1))
    column = b.constant(np.asarray([[0.5], [2.0], [-1.0]], np.float32))
    if weights == "column":
        column = b.input("column", FLOAT32, (3, 1))
    zeros = b.op("ConstantOfShape", [3, 5], value=np.zeros(1, np.float32))
    classes = b.op("ScatterElements", zeros, y, column, axis=1, reduction="add")
    graph.outputs.append(b.op("Sub", classes, b.op("Mul", b.op("Exp", x), column)))
    more = b.op("ScatterElements", zeros, y, column, axis=-1, reduction="add")
    graph.outputs.append(b.op("Add", x, more))
    names = [v.name for v in graph.outputs]
    for node in graph:
        node.metadata_props["operator"] = node.op_type  # whose failure means something
    feeds = feeds_of(graph, 3) | {"y": np.asarray([[4], [0], [4]])}
    before = run(graph, feeds)
    assert apply(ScatterIntoSums(), graph)
    assert not apply(ScatterIntoSums(), graph)
    run_passes(model_of(graph), [RemoveDeadCode()])
    negated = ["Neg"] if weights == "column" else []
    assert operators(graph) == ["Exp", *negated, "Mul", "ScatterElements", "ScatterElements"]
    scatters = [node for node in graph if node.op_type == "ScatterElements"]
    assert [n.metadata_props["operator"] for n in scatters] == ["ScatterElements"] * 2
    assert [v.name for v in graph.outputs] == names
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_is_scattered_otherwise_stays() -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT32, (3, 5)), b.input("y", INT64, (3, 1))
    row, column = b.input("row", FLOAT32, (1, 5)), b.input("column", FLOAT32, (3, 1))
    zeros, ones = (b.constant(np.full((3, 5), n, np.float32)) for n in (0, 1))
    product = b.op("Mul", x, column)

    def scattered(into: ir.Value, reduction: str = "add") -> ir.Value:
        return b.op("ScatterElements", into, y, column, axis=1, reduction=reduction)

    read_twice = scattered(zeros)
    graph.outputs.append(b.op("Add", read_twice, x))
    graph.outputs.append(b.op("Mul", read_twice, x))
    graph.outputs.append(b.op("Add", scattered(ones), x))
    graph.outputs.append(b.op("Add", scattered(zeros, "max"), x))
    graph.outputs.append(b.op("Add", scattered(zeros), row))  # which is to be broadcast
    graph.outputs.append(b.op("Sub", x, scattered(zeros)))
    graph.outputs.append(b.op("Sub", scattered(zeros), b.op("Exp", x)))  # no product
    graph.outputs.append(b.op("Sub", scattered(zeros), product))  # which is read twice
    graph.outputs.append(b.op("Exp", product))
    graph.outputs.append(b.op("Sub", scattered(zeros), b.op("Mul", x, row)))  # a large factor
    assert not apply(ScatterIntoSums(), graph)


# Products ----------------------------------------------------------------------------------------


def test_column_sums_become_products() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (5, 4))
    graph.outputs.append(b.op("ReduceSum", x, [0], keepdims=0))
    graph.outputs.append(b.op("Exp", b.op("ReduceSum", x, [-2], keepdims=0)))
    y = b.input("y", FLOAT32, (2, 3, 4))
    graph.outputs.append(b.op("ReduceSum", y, [1, 0], keepdims=0))
    names = [v.name for v in graph.outputs]
    feeds = feeds_of(graph, 5)
    before = run(graph, feeds)
    assert apply(ColumnSumsAsProducts(), graph)
    assert operators(graph) == ["MatMul", "MatMul", "Exp", "Reshape", "MatMul"]
    assert [v.name for v in graph.outputs] == names
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sums_on_both_sides_of_what_stays_are_split() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, ("batch", 4, 3, 5))
    graph.outputs.append(b.op("ReduceSum", x, [0, 2, -1], keepdims=0))
    graph.outputs.append(b.op("ReduceMean", x, [0, 1, 3]))
    graph.outputs.append(b.op("ReduceSum", x, [2, 3, 0]))
    feeds = feeds_of(graph, 3)
    before = run(graph, feeds)
    assert apply(SplitSums(), graph)
    assert operators(graph) == ["ReduceSum"] * 2 + ["ReduceMean"] * 2 + ["ReduceSum"] * 2
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    graph, b = new_graph()
    x, axes = b.input("x", FLOAT32, (4, 3, 5)), b.input("axes", INT64, (2,))
    for over in ([0, 1], [1, 2], [0], [2], [0, 1, 2], axes):
        graph.outputs.append(b.op("ReduceSum", x, over, keepdims=0))
    graph.outputs.append(b.op("ReduceMax", x, [0, 2]))
    assert not apply(SplitSums(), graph)


def test_a_softmax_before_other_axes_is_split() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, ("batch", 3, 4, 5))
    graph.outputs.append(b.op("Softmax", x, axis=1))
    graph.outputs.append(b.op("LogSoftmax", x, axis=-3))
    names = [v.name for v in graph.outputs]
    feeds = feeds_of(graph, 3)
    feeds["x"] = 30 * feeds["x"]
    before = run(graph, feeds)
    assert apply(SplitSoftmax(), graph)
    formula = ["ReduceMax", "Sub", "Exp", "ReduceSum"]
    assert operators(graph) == [*formula, "Div", *formula, "Log", "Sub"]
    assert [v.name for v in graph.outputs] == names
    for expected, found in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_other_softmaxes_stay() -> None:
    graph, b = new_graph()
    x, y = b.input("x", FLOAT32, (2, 3, 20)), b.input("y", FLOAT32, (2, 0, 20))
    z, rows = b.input("z", FLOAT64, (2, 3, 20)), b.input("rows", FLOAT32, (2, 3, "n"))
    graph.outputs.append(b.op("Softmax", x))
    graph.outputs.append(b.op("LogSoftmax", b.op("Reshape", x, [3, 5, 8]), axis=1))
    graph.outputs.extend(b.op("Softmax", value, axis=1) for value in (y, z, rows))
    assert not apply(SplitSoftmax(), graph)


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
    deep = b.input("deep", FLOAT32, (2, 3, 4))
    sums += [b.op("ReduceSum", deep, axes, keepdims=0) for axes in ([0], [1], [1, 2], [0, 0])]
    graph.outputs.extend(sums)
    assert not apply(ColumnSumsAsProducts(), graph)


@pytest.mark.parametrize("shapes", [[], [[5, 2, 2], [2, 10]]])
def test_a_scale_is_folded_into_its_product(shapes: list[list[int]]) -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT32, (5, 4)), b.input("w", FLOAT32, (4, 4))
    product = b.op("Gemm", x, w, alpha=0.5, transB=1)
    for shape in shapes:
        product = b.op("Reshape", product, shape)
    graph.outputs.append(b.op("Exp", b.op("Mul", product, 0.25)))
    feeds = feeds_of(graph, 5)
    before = run(graph, feeds)[0]
    assert apply(FoldScale(), graph)
    assert operators(graph) == ["Gemm", *["Reshape" for _ in shapes], "Exp"]
    np.testing.assert_allclose(run(graph, feeds)[0], before, rtol=1e-6)


def test_a_scale_goes_before_an_expansion() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (3, 1, 4))
    wide = b.op("Reshape", b.op("Expand", x, [3, 5, 4]), [15, 4])
    graph.outputs.append(b.op("Exp", b.op("Mul", 0.5, wide)))
    feeds = feeds_of(graph, 3)
    before = run(graph, feeds)[0]
    assert apply(FoldScale(), graph)
    assert operators(graph) == ["Mul", "Expand", "Reshape", "Exp"]
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
            b.op("Exp", b.op("Mul", b.op("Reshape", b.op("Exp", x), [2, 8]), 0.5)),
        ]
    )
    assert not apply(FoldScale(), graph)
