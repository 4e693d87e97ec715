"""Each thing that can be wrong with a graph, and the words for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder, VerificationError
from onnxtape.compiler.verify import verify
from tests.compiler.graphs import BOOL, FLOAT64, model_of, new_graph

DOUBLE = ir.TensorType(ir.DataType.DOUBLE)


def healthy() -> tuple[ir.Graph, GraphBuilder]:
    """y = exp(x + 1), with an If that reads x and a name used in both of its branches."""
    graph, b = new_graph()
    x, c = b.input("x", FLOAT64, ("batch",)), b.input("c", BOOL, ())
    y = b.op("Exp", b.op("Add", x, b.constant(np.ones(1))))
    branches = []
    for op_type in ("Sin", "Cos"):
        inner = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name=op_type)
        inner.outputs.append(GraphBuilder(inner).op(op_type, x))
        inner.outputs[0].name = "chosen"
        branches.append(inner)
    z = b.op("If", c, then_branch=branches[0], else_branch=branches[1])
    z.type, z.shape = x.type, x.shape
    graph.outputs.extend([y, z])
    return graph, b


def verdict(change: Callable[[ir.Graph, GraphBuilder], Any]) -> str:
    graph, b = healthy()
    change(graph, b)
    with pytest.raises(VerificationError) as caught:
        verify(model_of(graph))
    return str(caught.value)


def node_of(graph: ir.Graph, op_type: str) -> ir.Node:
    return next(node for node in graph if node.op_type == op_type)


def append(graph: ir.Graph, op_type: str, inputs: list[Any], **options: Any) -> ir.Node:
    node = ir.Node(options.get("domain", ""), op_type, inputs, name="new")
    node.outputs[0].name = options.get("output", "new_out")
    node.outputs[0].type = options.get("type", DOUBLE)
    graph.append(node)
    return node


def test_a_healthy_graph() -> None:
    graph, _ = healthy()
    verify(model_of(graph))
    verify(model_of(graph), "Simplify")


def test_the_pass_is_named() -> None:
    graph, _ = healthy()
    graph.inputs[0].name = ""
    with pytest.raises(VerificationError, match=r"^after Simplify: a graph input has no name$"):
        verify(model_of(graph), "Simplify")


def test_values_need_names() -> None:
    def unnamed_input(graph: ir.Graph, b: GraphBuilder) -> None:
        graph.inputs[0].name = ""

    assert verdict(unnamed_input) == "a graph input has no name"


def test_names_are_defined_once() -> None:
    def twice(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Neg", [graph.inputs[0]], output="x")

    assert verdict(twice) == "the name 'x' is defined twice"

    def two_inputs(graph: ir.Graph, b: GraphBuilder) -> None:
        graph.inputs.append(ir.Value(name="x", type=DOUBLE))

    assert verdict(two_inputs) == "the name 'x' is defined twice"


def test_a_subgraph_does_not_hide_a_name() -> None:
    def shadow(graph: ir.Graph, b: GraphBuilder) -> None:
        branch = node_of(graph, "If").attributes["then_branch"].as_graph()
        branch.outputs[0].name = "x"

    assert verdict(shadow) == "the name 'x' is defined twice"


def test_values_carry_dtypes() -> None:
    def forget_input(graph: ir.Graph, b: GraphBuilder) -> None:
        graph.inputs[0].type = None

    assert verdict(forget_input) == "the dtype of 'x' (a graph input) is unknown"

    def forget_output(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Neg", [graph.inputs[0]], type=None)

    assert verdict(forget_output) == "the dtype of 'new_out' (an output of Neg) is unknown"


def test_operators_are_standard() -> None:
    def foreign(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Gelu", [graph.inputs[0]], domain="com.microsoft")

    assert verdict(foreign) == "com.microsoft::Gelu is not a standard operator"


def test_operators_belong_to_the_opset() -> None:
    def later(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Swish", [graph.inputs[0]])

    assert verdict(later) == "opset 21 has no operator Swish"


def test_operators_get_as_many_inputs_and_outputs_as_they_take() -> None:
    def too_many(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Neg", [graph.inputs[0], graph.inputs[0]])

    assert verdict(too_many) == "Neg (node 'new') has 2 inputs, not 1 to 1"

    def too_few(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Add", [graph.inputs[0]])

    assert verdict(too_few) == "Add (node 'new') has 1 inputs, not 2 to 2"

    def outputs(graph: ir.Graph, b: GraphBuilder) -> None:
        graph.append(ir.Node("", "Neg", [graph.inputs[0]], num_outputs=2, name="new"))

    assert verdict(outputs) == "Neg (node 'new') has 2 outputs, not 1 to 1"


def test_required_inputs_are_there() -> None:
    def omit(graph: ir.Graph, b: GraphBuilder) -> None:
        node_of(graph, "Add").replace_input_with(0, None)

    assert verdict(omit) == "input 0 of Add (node 'Add_2_node') is missing"


def test_optional_inputs_may_be_omitted() -> None:
    graph, b = healthy()
    b.op("Clip", graph.inputs[0], None, 1.0)
    verify(model_of(graph))


def test_values_are_defined_before_their_uses() -> None:
    def backwards(graph: ir.Graph, b: GraphBuilder) -> None:
        node = node_of(graph, "Add")
        graph.remove(node)
        graph.append(node)

    message = "input 0 of Exp (node 'Exp_3_node'), 'Add_2', is not defined before it"
    assert verdict(backwards) == message

    def nowhere(graph: ir.Graph, b: GraphBuilder) -> None:
        append(graph, "Neg", [ir.Value(name="ghost", type=DOUBLE)])

    assert verdict(nowhere) == "input 0 of Neg (node 'new'), 'ghost', is not defined before it"


def test_what_a_subgraph_makes_stays_inside() -> None:
    def escape(graph: ir.Graph, b: GraphBuilder) -> None:
        branch = node_of(graph, "If").attributes["then_branch"].as_graph()
        append(graph, "Neg", [branch.outputs[0]])

    assert verdict(escape) == "input 0 of Neg (node 'new'), 'chosen', is not defined before it"


def test_subgraphs_are_checked_too() -> None:
    def foreign(graph: ir.Graph, b: GraphBuilder) -> None:
        branch = node_of(graph, "If").attributes["else_branch"].as_graph()
        append(branch, "Mystery", [graph.inputs[0]], domain="com.example")

    assert verdict(foreign) == "com.example::Mystery is not a standard operator"


def test_outputs_are_defined() -> None:
    def ghost(graph: ir.Graph, b: GraphBuilder) -> None:
        graph.outputs.append(ir.Value(name="ghost", type=DOUBLE))

    assert verdict(ghost) == "the graph's output 'ghost' is not defined"


def test_an_omitted_output_needs_no_name() -> None:
    graph, _ = healthy()
    node = ir.Node("", "Dropout", [graph.inputs[0]], num_outputs=2, name="new")
    node.outputs[0].name, node.outputs[0].type = "kept", DOUBLE
    node.outputs[1].name = ""
    graph.append(node)
    verify(model_of(graph))
