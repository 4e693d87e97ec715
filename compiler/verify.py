"""The invariants of a graph, checked between any two passes."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir as ir

from onnxtape.compiler.errors import VerificationError
from onnxtape.compiler.subgraphs import graphs_in


def verify(model: ir.Model, after: str = "", domains: Collection[str] = ()) -> None:
    """Check that `model` is a well-formed graph of standard operators.

    Every value is defined once, before its uses, under a name of its own; every node is an operator
    of the default domain in the model's opset with a permitted number of inputs and outputs;
    inputs, outputs and intermediates carry dtypes.

    Args:
        model: what to check.
        after: the pass that ran last, for the message.
        domains: those whose operators may be there too.

    Raises:
        VerificationError: the first thing found wrong.
    """
    try:
        _verify_graph(model.graph, model.opset_imports.get("", 1), set(), set(), domains)
    except VerificationError as error:
        raise VerificationError(f"after {after}: {error}" if after else str(error)) from None


def _verify_graph(
    graph: ir.Graph, opset: int, defined: set[int], names: set[str], domains: Collection[str]
) -> None:
    # Copies: the two branches of an If may use the same names.
    defined, names = set(defined), set(names)

    def define(value: ir.Value, where: str) -> None:
        if not value.name:
            raise VerificationError(f"{where} has no name")
        if value.name in names:
            raise VerificationError(f"the name '{value.name}' is defined twice")
        if value.dtype is None:
            raise VerificationError(f"the dtype of '{value.name}' ({where}) is unknown")
        names.add(value.name)
        defined.add(id(value))

    for value in graph.inputs:
        define(value, "a graph input")
    for value in graph.initializers.values():
        if id(value) not in defined:
            define(value, "an initializer")
    for node in graph:
        if node.domain not in ("", "ai.onnx", *domains):
            raise VerificationError(f"{node.domain}::{node.op_type} is not a standard operator")
        if node.domain not in domains:
            _verify_arity(node, opset)
        for i, operand in enumerate(node.inputs):
            if operand is not None and id(operand) not in defined:
                raise VerificationError(
                    f"input {i} of {node.op_type} (node '{node.name}'), '{operand.name}', "
                    "is not defined before it"
                )
        for subgraph in graphs_in(node):
            _verify_graph(subgraph, opset, defined, names, domains)
        _verify_subgraphs(node)
        for value in node.outputs:
            if value.name:
                define(value, f"an output of {node.op_type}")
    for value in graph.outputs:
        if id(value) not in defined:
            raise VerificationError(f"the graph's output '{value.name}' is not defined")


def _verify_subgraphs(node: ir.Node) -> None:
    """The branches and bodies of control flow have as many inputs and outputs as the node says."""
    given, made = len(node.inputs), len(node.outputs)
    expected = {
        "If": {"then_branch": (0, made), "else_branch": (0, made)},
        "Loop": {"body": (given, made + 1)},
        "Scan": {"body": (given, made)},
    }
    for name, counts in expected.get(node.op_type, {}).items():
        graph = node.attributes[name].as_graph()
        for what, count, values in zip(
            ("inputs", "outputs"), counts, (graph.inputs, graph.outputs), strict=True
        ):
            if len(values) != count:
                raise VerificationError(
                    f"{name} of {node.op_type} (node '{node.name}') has {len(values)} {what}, "
                    f"not {count}"
                )


def _verify_arity(node: ir.Node, opset: int) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        raise VerificationError(f"opset {opset} has no operator {node.op_type}") from None
    for what, count, low, high in (
        ("inputs", len(node.inputs), schema.min_input, schema.max_input),
        ("outputs", len(node.outputs), schema.min_output, schema.max_output),
    ):
        if not low <= count <= high:
            raise VerificationError(
                f"{node.op_type} (node '{node.name}') has {count} {what}, not {low} to {high}"
            )
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    for i, operand in enumerate(node.inputs[: schema.min_input]):
        if operand is None and schema.inputs[i].option != optional:
            raise VerificationError(f"input {i} of {node.op_type} (node '{node.name}') is missing")
