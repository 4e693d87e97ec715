"""Writing into a graph: names, constants, dtypes, provenance, errors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxtape.compiler import DtypeError, GraphBuilder, Provenance, ShapeError
from onnxtape.compiler.errors import UnknownRankError
from onnxtape.compiler.inference import BROADCASTING
from onnxtape.compiler.operators import lowest_opset
from tests.compiler.graphs import BOOL, FLOAT64, INT64, model_of, new_graph, run

FLOAT32 = np.dtype(np.float32)
PLACE = Provenance("train.py", 12, "dense")


# Operands ----------------------------------------------------------------------------------------


def test_numbers_take_the_dtype_of_the_first_tensor_that_is_not_boolean() -> None:
    b = GraphBuilder(None)
    mask, x = b.declare("mask", BOOL, (2,)), b.declare("x", FLOAT32, (2,))
    node = b.op("Where", mask, 1.0, x).producer()
    assert node is not None
    number = node.inputs[1]
    assert number is not None
    assert b.dtype(number) == FLOAT32
    assert b.shape(number) == ()


def test_lists_are_int64_and_arrays_stay_as_they_are() -> None:
    b = GraphBuilder(None)
    x = b.declare("x", FLOAT32, (2, 3))
    node = b.op("Reshape", x, [3, 2]).producer()
    assert node is not None
    assert node.inputs[1] is not None
    assert b.dtype(node.inputs[1]) == INT64
    node = b.op("Add", x, np.ones(3, np.float32)).producer()
    assert node is not None
    assert node.inputs[1] is not None
    assert b.shape(node.inputs[1]) == (3,)


def test_a_number_without_a_tensor() -> None:
    with pytest.raises(TypeError, match=r"^no tensor operand gives the number 1.0 a dtype$"):
        GraphBuilder(None).op("Exp", 1.0)


def test_none_omits_an_input_and_an_attribute() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (3,))
    graph.outputs.append(b.op("Clip", x, None, 1.0))
    b.op("Gelu", x, approximate=None)
    onnx.checker.check_model(ir.to_proto(model_of(graph)), full_check=True)
    assert [list(n.attributes) for n in graph] == [[], []]
    np.testing.assert_array_equal(
        run(graph, {"x": np.asarray([-5, 0, 5], np.float32)})[0], [-5, 0, 1]
    )


def test_the_builders_own_operations() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, ("batch", 3))
    assert b.cast(x, FLOAT32) is x
    assert b.dtype(b.cast(x, FLOAT64)) == FLOAT64
    assert b.constant_value(b.shape_tensor(b.constant(np.ones((2, 3))))) is not None
    assert b.constant_value(b.dim_tensor(x, 1)) == [3]
    assert b.constant_value(b.dim_tensor(x, 0)) is None
    assert b.expand_like(x, x) is x
    assert b.reshape_like(x, x) is x
    filled = b.full_like(x, 2.0)
    assert b.shape(filled) == ("batch", 3)
    graph.outputs.append(filled)
    np.testing.assert_array_equal(run(graph, {"x": np.zeros((2, 3), np.float32)})[0], 2.0)


def test_a_rank_that_must_be_known() -> None:
    _, b = new_graph()
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    with pytest.raises(UnknownRankError, match=r"^transpose needs a tensor whose rank is known$"):
        b.known_rank(value, "transpose")


# Constants and names -----------------------------------------------------------------------------


def test_equal_constants_are_one() -> None:
    graph, b = new_graph()
    one = b.constant(np.float32(1))
    assert b.constant(np.float32(1)) is one
    different = [
        b.constant(np.float64(1)),
        b.constant(np.asarray([1], np.float32)),
        b.constant(np.float32(-1)),
        b.constant(np.int32(1)),
        b.constant(ml_dtypes.bfloat16(1)),
        b.constant(np.float16(1)),
        b.constant(np.float32(-0.0)),
        b.constant(np.float32(0.0)),
    ]
    assert len({id(v) for v in [one, *different]}) == 9
    assert len(graph.initializers) == 9


def test_a_constant_keeps_its_content() -> None:
    _, b = new_graph()
    array = np.ones(3)
    value = b.constant(array)
    array[:] = 7
    np.testing.assert_array_equal(b.constant_value(value), 1)


def test_an_input_with_a_default_is_no_constant() -> None:
    graph, b = new_graph()
    value = b.constant(np.ones(3))
    assert b.constant_value(value) is not None
    graph.inputs.append(value)
    assert b.constant_value(value) is None


def test_names_are_unique() -> None:
    graph, b = new_graph()
    assert b.input("Add_1", FLOAT32, (2,)).name == "Add_1"
    second = b.input("Add_1", FLOAT32, (2,))
    assert second.name not in (None, "Add_1")
    for _ in range(3):
        b.op("Add", second, second)
    # Another builder on the same graph knows what is taken, and the first what that one takes.
    other = GraphBuilder(graph)
    for _ in range(3):
        other.op("Add", second, 1.0)
        b.op("Add", second, 2.0)
    values = [*graph.inputs, *graph.initializers.values(), *(n.outputs[0] for n in graph)]
    names = [v.name for v in values]
    assert len(set(names)) == len(names)
    nodes = [n.name for n in graph]
    assert len(set(nodes)) == len(nodes)


def test_names_inside_subgraphs_are_taken_too() -> None:
    graph, b = new_graph()
    c = b.input("c", BOOL, ())
    body = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="body")
    inner = ir.Value(name="Exp_1", shape=ir.Shape(()), type=ir.TensorType(ir.DataType.FLOAT))
    body.initializers.add(inner)
    inner.const_value = ir.tensor(np.float32(1), name="Exp_1")
    body.outputs.append(inner)
    b.op("If", c, then_branch=body, else_branch=body.clone())
    other = GraphBuilder(graph)
    assert other.unique_name("Exp") != "Exp_1"


def test_declared_names() -> None:
    _, b = new_graph()
    assert b.claim_name("w") == "w"
    assert b.declare("w", FLOAT32, ()).name not in ("w", None)
    assert b.declare("v", FLOAT32, ()).name == "v"


def test_a_builder_without_a_graph() -> None:
    b = GraphBuilder(None)
    x = b.declare("x", FLOAT32, (2,))
    y = b.op("Add", x, 1.0)
    assert b.shape(y) == (2,)
    with pytest.raises(ValueError, match=r"^this builder has no graph to give an input$"):
        b.input("x", FLOAT32, (2,))


# Provenance --------------------------------------------------------------------------------------


def test_nodes_carry_their_origin() -> None:
    b = GraphBuilder(None)
    x = b.declare("x", FLOAT32, (2,))

    def props(value: ir.Value) -> dict[str, str]:
        node = value.producer()
        assert node is not None
        return dict(node.metadata_props)

    assert props(b.op("Exp", x)) == {}
    with b.origin(PLACE, "update"):
        assert props(b.op("Exp", x)) == {
            "onnxtape.phase": "update",
            "onnxtape.source": "train.py:12",
            "onnxtape.layer": "dense",
        }
        with b.origin(None, "backward"):
            assert props(b.op("Exp", x)) == {"onnxtape.phase": "backward"}
        assert props(b.op("Exp", x))["onnxtape.phase"] == "update"
    assert b.provenance is None


def test_the_origin_is_restored_after_an_error() -> None:
    b = GraphBuilder(None)
    with pytest.raises(ZeroDivisionError), b.origin(PLACE, "forward"):
        raise ZeroDivisionError
    assert b.provenance is None


@pytest.mark.parametrize(
    "place",
    [
        PLACE,
        Provenance(),
        Provenance("C:\\a b\\train.py", 3, phase="backward"),
        Provenance(layer="model/dense_1", phase="update"),
    ],
)
def test_provenance_survives_a_file(place: Provenance) -> None:
    assert Provenance.from_metadata(place.to_metadata()) == place


def test_foreign_metadata_is_no_provenance() -> None:
    props = {"onnxtape.phase": "sideways", "onnxtape.source": "no line", "other": "x"}
    assert Provenance.from_metadata(props) == Provenance()


# Errors ------------------------------------------------------------------------------------------


def refused(error: type[Exception], op_type: str, *inputs: Any, **attributes: Any) -> str:
    """The message with which the operator is refused; no trace of the node may stay."""
    graph, b = new_graph()
    operands = [
        None if x is None else b.input(f"x{i}", np.dtype(x[0]), x[1:]) for i, x in enumerate(inputs)
    ]
    with b.origin(PLACE, "forward"), pytest.raises(error) as caught:
        b.op(op_type, *operands, **attributes)
    assert not list(graph)
    assert not any(x.uses() for x in graph.inputs)
    return str(caught.value)


def test_shapes_that_do_not_broadcast() -> None:
    assert refused(ShapeError, "Add", ("f4", 4, 3), ("f4", "batch", 4)) == (
        "Add: 3 and 4 do not broadcast\n"
        "  input 0: float32 (4, 3)\n"
        "  input 1: float32 (batch, 4)\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_matrices_that_do_not_fit() -> None:
    assert refused(ShapeError, "MatMul", ("f4", 3, 784), ("f4", 5, 64)) == (
        "MatMul: Incompatible MatMul contraction dimensions: 784 vs 5\n"
        "  input 0: float32 (3, 784)\n"
        "  input 1: float32 (5, 64)\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_an_expansion_that_is_impossible() -> None:
    _, b = new_graph()
    x = b.input("x", FLOAT32, (3,))
    with pytest.raises(ShapeError, match="Expand: 3 and 4 do not broadcast"):
        b.op("Expand", x, [4])


def test_missing_and_superfluous_inputs() -> None:
    assert refused(ShapeError, "Add", ("f4", 2)) == (
        "Add: Expected at least 2 input(s), got 1\n"
        "  input 0: float32 (2,)\n"
        "  at train.py:12 in layer 'dense'"
    )
    assert refused(ShapeError, "Add", ("f4", 2), None) == (
        "Add: Required input 'B' (#1) is None\n"
        "  input 0: float32 (2,)\n"
        "  input 1: (omitted)\n"
        "  at train.py:12 in layer 'dense'"
    )
    assert refused(ShapeError, "Add", ("f4", 2), ("f4", 2), ("f4", 2)) == (
        "Add takes at most 2 inputs\n"
        "  input 0: float32 (2,)\n"
        "  input 1: float32 (2,)\n"
        "  input 2: float32 (2,)\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_a_missing_attribute() -> None:
    assert refused(ShapeError, "Concat", ("f4", 2), ("f4", 2)) == (
        "Concat: Missing required attribute 'axis'\n"
        "  input 0: float32 (2,)\n"
        "  input 1: float32 (2,)\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_mixed_dtypes() -> None:
    assert refused(DtypeError, "Add", ("f4", 2), ("i8", "batch")) == (
        "Add needs inputs 0 and 1 to have one dtype, not float32 and int64; "
        "convert one of them with ops.cast\n"
        "  input 0: float32 (2,)\n"
        "  input 1: int64 (batch,)\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_a_dtype_that_the_operator_does_not_take() -> None:
    assert refused(DtypeError, "Gather", ("f4", 2), ("f8", 3)) == (
        "Gather does not take float64 for input 1; it takes tensor(int32), tensor(int64)\n"
        "  input 0: float32 (2,)\n"
        "  input 1: float64 (3,)\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_dtypes_of_inputs_that_may_differ() -> None:
    b = GraphBuilder(None)
    base, exponent = b.declare("base", FLOAT32, (2,)), b.declare("exponent", INT64, (2,))
    assert b.dtype(b.op("Pow", base, exponent)) == FLOAT32


def test_an_unknown_operator() -> None:
    assert refused(ValueError, "Foo", ("f4", 2)) == "opset 21 has no operator Foo"
    _, b = new_graph(opset=24)
    with pytest.raises(ValueError, match=r"^opset 24 has no operator Foo$"):
        b.op("Foo", b.input("x", FLOAT32, (2,)))


def test_the_opset_rises_to_what_an_operator_needs() -> None:
    """Also from inside a subgraph, and for an attribute or input that came later."""
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (2,))
    b.op("Relu", x)
    assert b.opset == graph.opset_imports[""] == 21
    b.nested("inner").op("Swish", x)
    assert b.opset == graph.opset_imports[""] == 24
    assert lowest_opset("Cast", 21, ["to"], 1, 1) == 21
    assert lowest_opset("Cast", 21, ["to", "round_mode"], 1, 1) == 24
    assert lowest_opset("Attention", 21, [], 3, 1) == 23
    assert lowest_opset("Attention", 21, [], 7, 1) == 24
    assert lowest_opset("Relu", 21, ["nothing"], 1, 1) == 21


def test_an_expansion_to_a_shape_that_is_not_known_has_a_rank() -> None:
    _, b = new_graph()
    x, target = b.input("x", FLOAT32, (1, 1, 8)), b.input("target", INT64, (3,))
    assert (b.shape(b.op("Expand", x, target)) or ())[2:] == (8,)


def test_an_unknown_dtype() -> None:
    b = GraphBuilder(None)
    with pytest.raises(DtypeError, match=r"^the dtype of 'x' is unknown$"):
        b.dtype(ir.Value(name="x"))


def test_broadcasting_operators_exist() -> None:
    for op_type in BROADCASTING:
        assert onnx.defs.get_schema(op_type, 21, "").max_output == 1
