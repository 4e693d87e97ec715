"""ONNX's own backend tests of single operators, brought to float64 and to opsets 21 to 26.

`node_cases()` gives those that have a floating-point input and a floating-point output. Each comes
with its test data. An `_expanded` test holds the graph of an operator's function body.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper, version_converter

from onnxtape.compiler.autodiff import RULES_OPSET
from onnxtape.compiler.dtypes import from_onnx, type_string
from tests.compiler.graphs import Array

#: ONNX Runtime's newest.
NEWEST_OPSET = 26
#: Attributes that name an element type in which a result or an intermediate is kept.
_DTYPE_ATTRIBUTES = frozenset(["to", "dtype", "stash_type", "softmax_precision", "output_dtype"])
_FLOATING = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class Unfit(Exception):
    """A test that cannot be brought to the form that is wanted; the text says why."""


@dataclass(frozen=True, eq=False)
class NodeCase:
    """One test of ONNX's.

    Attributes:
        operator: the operator under test.
        expanded: whether the model holds its function body in its place.
        inputs, outputs: the data by name. None where a value is not a tensor.
    """

    name: str
    operator: str
    expanded: bool
    model: onnx.ModelProto
    inputs: dict[str, Array | None]
    outputs: dict[str, Array | None]


@functools.cache
def node_cases() -> dict[str, tuple[NodeCase, ...]]:
    """The tests by operator."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Making the expected numbers divides by zero and overflows on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found: dict[str, list[NodeCase]] = {}
    operators: dict[str, str] = {}
    for test in collected:
        graph, name = test.model.graph, test.name
        # The test of a function body, such as test_gelu_tanh_1_expanded, follows the operator's.
        base, expanded, _ = name.partition("_expanded")
        operator = operators[base] if expanded else graph.node[0].op_type
        operators[name] = operator
        if not any(map(_is_float_tensor, graph.input)):
            continue
        if not any(map(_is_float_tensor, graph.output)):
            continue
        inputs, outputs = test.data_sets[0]
        found.setdefault(operator, []).append(
            NodeCase(
                name,
                operator,
                bool(expanded),
                test.model,
                {v.name: _array(x) for v, x in zip(graph.input, inputs, strict=True)},
                {v.name: _array(x) for v, x in zip(graph.output, outputs, strict=True)},
            )
        )
    return {operator: tuple(cases) for operator, cases in found.items()}


def _is_float_tensor(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _FLOATING


def _array(data: Any) -> Array | None:
    if isinstance(data, TensorProto):
        return numpy_helper.to_array(data)
    return np.asarray(data) if isinstance(data, (np.ndarray, np.generic)) else None


# Opsets -----------------------------------------------------------------------------------------


def _at_known_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    domains = [o.domain for o in model.opset_import if o.domain not in ("", "ai.onnx")]
    used = {node.domain for node in _nodes(model.graph)}
    if foreign := used & set(domains):
        raise Unfit(f"domain {', '.join(sorted(foreign))}")
    opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    wanted = min(max(opset, RULES_OPSET), NEWEST_OPSET)
    if opset < wanted and not _unchanged(model.graph, opset, wanted):
        converted = version_converter.convert_version(model, wanted)
    else:
        converted = onnx.ModelProto()
        converted.CopyFrom(model)
        del converted.opset_import[:]
        converted.opset_import.append(helper.make_opsetid("", wanted))
    converted.ir_version = 10
    return converted


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _unchanged(graph: onnx.GraphProto, old: int, new: int) -> bool:
    def since(op_type: str, opset: int) -> int:
        schema = onnx.defs.get_schema(op_type, opset, "")
        return -1 if schema.deprecated else int(schema.since_version)

    operators = {node.op_type for node in _nodes(graph)}
    return all(-1 != since(op, old) == since(op, new) for op in operators)


# Precision --------------------------------------------------------------------------------------


def invalid(model: onnx.ModelProto) -> str:
    """What ONNX's checker says against the model, types and shapes included; "" if nothing."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).splitlines()[0]
    return ""


def brought(model: onnx.ModelProto, elem_type: int) -> onnx.ModelProto:
    """The model at an opset from 21 to 26, `elem_type` for all floating-point values and constants.

    A model of a newer opset is taken to 26; whether it computes the same there is for the caller
    to see, from the test's data. Inputs whose consumer does not take `elem_type` (such as the
    scales of Resize) keep their type.

    Raises:
        Unfit: it uses other domains than the default one, or is not valid so.
    """
    converted = _at_known_opset(model)
    _convert_graph(converted.graph, elem_type, _fixed_inputs(converted, elem_type))
    _declare_outputs(converted)
    # The checker refuses some models as they were written.
    if (complaint := invalid(converted)) and not invalid(model):
        raise Unfit(complaint)
    return converted


def _declare_outputs(model: onnx.ModelProto) -> None:
    """Let the outputs have the types that their nodes give them (Mean of LayerNormalization)."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.output:
        value.ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(bare).graph.output
    for value, found in zip(model.graph.output, inferred, strict=True):
        if found.type.tensor_type.elem_type in _FLOATING:
            value.type.tensor_type.elem_type = found.type.tensor_type.elem_type


def _fixed_inputs(model: onnx.ModelProto, elem_type: int) -> set[str]:
    """Floating-point graph inputs of which some consumer does not take `elem_type`."""
    opset, wanted = model.opset_import[0].version, type_string(from_onnx(elem_type))
    fixed: set[str] = set()
    for node in _nodes(model.graph):
        try:
            formals = onnx.defs.get_schema(node.op_type, opset, "").inputs
        except onnx.defs.SchemaError:
            raise Unfit(f"opset {opset} has no {node.op_type}") from None
        for i, name in enumerate(node.input):
            if wanted not in formals[min(i, len(formals) - 1)].types:
                fixed.add(name)
    return {v.name for v in model.graph.input if v.name in fixed and _is_float_tensor(v)}


def _convert_graph(graph: onnx.GraphProto, elem_type: int, kept: set[str]) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.name not in kept:
            _convert_type(value.type, elem_type)
    for tensor in graph.initializer:
        _convert_tensor(tensor, elem_type)
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float32))
            node.attribute.append(helper.make_attribute("value", zero))
        for attribute in node.attribute:
            _convert_attribute(node, attribute, elem_type, kept)


def _convert_type(proto: onnx.TypeProto, elem_type: int) -> None:
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        if proto.tensor_type.elem_type in _FLOATING:
            proto.tensor_type.elem_type = elem_type
    elif kind in ("sequence_type", "optional_type"):
        _convert_type(getattr(proto, kind).elem_type, elem_type)


def _convert_tensor(tensor: onnx.TensorProto, elem_type: int) -> None:
    if tensor.data_type in _FLOATING:
        array = numpy_helper.to_array(tensor).astype(from_onnx(elem_type))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _convert_attribute(
    node: onnx.NodeProto, attribute: AttributeProto, elem_type: int, kept: set[str]
) -> None:
    if attribute.type == AttributeProto.GRAPH:
        _convert_graph(attribute.g, elem_type, kept)
    elif attribute.type == AttributeProto.TENSOR:
        _convert_tensor(attribute.t, elem_type)
    elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
        numbers = helper.get_attribute_value(attribute)
        tensor = numpy_helper.from_array(np.asarray(numbers, from_onnx(elem_type)))
        attribute.CopyFrom(helper.make_attribute("value", tensor))
    elif attribute.name in _DTYPE_ATTRIBUTES and attribute.i in _FLOATING:
        attribute.i = elem_type


def feeds_for(model: onnx.ModelProto, data: dict[str, Array | None]) -> dict[str, Array]:
    """The data with the dtypes of the model's inputs."""
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        array = data[value.name]
        if array is None:
            raise Unfit(f"input '{value.name}' is not a tensor")
        if _is_float_tensor(value):
            array = array.astype(from_onnx(value.type.tensor_type.elem_type))
        feeds[value.name] = array
    return feeds


def float_outputs(model: onnx.ModelProto) -> Sequence[str]:
    """The names of the outputs that can carry a derivative."""
    return [v.name for v in model.graph.output if _is_float_tensor(v)]
