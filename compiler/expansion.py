"""Gradients by expansion: the operator written with simpler ones, which are then differentiated.

For operators that a rule of their own would make neither faster nor more exact. The expansion is
emitted beside the original node as part of the backward pass; what of it nobody needs is dead code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.dtypes import DType, is_floating, to_onnx
from onnxtape.compiler.errors import Phase, Provenance
from onnxtape.compiler.operators import lowest_opset
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, register_expansion
from onnxtape.compiler.target import Target

#: Writes the operator of a record with other operators: one value per output, None for an output
#: that it does not cover.
Expansion = Callable[[Builder[Any], Record[Any]], Sequence[Any]]


def expansion(*op_types: str) -> Callable[[Expansion], Expansion]:
    """Register the decorated function as the expansion of these operators."""

    def register(expand: Expansion) -> Expansion:
        def rule(b: Builder[Any], n: Record[Any], wanted: Sequence[bool], *grads: Any) -> list[Any]:
            return _differentiated(expand, b, n, wanted, grads)

        register_expansion(op_types, rule)
        return expand

    return register


def expand_by_schema(*op_types: str) -> None:
    """Register for these operators the function bodies of their ONNX schemas."""
    expansion(*op_types)(schema_body)


def _differentiated(
    expand: Expansion,
    b: Builder[Any],
    n: Record[Any],
    wanted: Sequence[bool],
    grads: Sequence[Any],
) -> list[Any]:
    from onnxtape.compiler.autodiff import backward

    recorder = Recorder(b, n)
    outputs = expand(recorder, n)
    targets, seeds = [], []
    for i, grad in enumerate(grads):
        if grad is None:
            continue
        if i >= len(outputs) or outputs[i] is None:
            raise Refusal(f"its expansion does not cover output {i}")
        targets.append(outputs[i])
        seeds.append(grad)
    # A value that is several inputs at once gets its whole gradient at the first of them.
    first: dict[int, int] = {}
    for i, (value, is_wanted) in enumerate(zip(n.inputs, wanted, strict=True)):
        if is_wanted and is_floating(b.dtype(value)):
            first.setdefault(id(value), i)
    sources = [n.inputs[i] for i in first.values()]
    found = backward(b, recorder.records, targets, sources, seeds)
    results: list[Any] = [None] * len(n.inputs)
    for i, grad in zip(first.values(), found, strict=True):
        results[i] = grad
    return results


class Recorder(Builder[Any]):
    """Emits with another builder and keeps a record of each operator.

    Args:
        inner: the builder to emit with.
        origin: the record on whose behalf; its name and provenance go into the records.
    """

    def __init__(self, inner: Builder[Any], origin: Record[Any]) -> None:
        self.inner = inner
        self.opset = inner.opset
        self.records: list[Record[Any]] = []
        self._origin = origin

    @property
    def target(self) -> Target:
        return self.inner.target

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Any],
        attributes: dict[str, Any],
        outputs: int = 1,
    ) -> tuple[Any, ...]:
        made = self.inner.emit(op_type, inputs, attributes, outputs)
        origin = self._origin
        self.records.append(
            Record(op_type, tuple(inputs), made, attributes, "", origin.name, origin.provenance)
        )
        return made

    def constant(self, array: npt.ArrayLike) -> Any:
        return self.inner.constant(array)

    def shape(self, value: Any) -> Shape | None:
        return self.inner.shape(value)

    def dtype(self, value: Any) -> DType:
        return self.inner.dtype(value)

    def constant_value(self, value: Any) -> npt.NDArray[Any] | None:
        return self.inner.constant_value(value)

    def refine_shape(self, value: Any, shape: Shape | None) -> Any:
        return self.inner.refine_shape(value, shape)

    @contextmanager
    def origin(self, provenance: Provenance | None, phase: Phase) -> Iterator[None]:
        with self.inner.origin(provenance, phase):
            yield


def schema_body(b: Builder[Any], n: Record[Any]) -> list[Any]:
    """The function body that ONNX's schema gives for the record's operator.

    Raises:
        Refusal: the schema has no body for these inputs, or one with subgraphs.
    """
    import onnx

    opset = lowest_opset(n.op_type, b.opset, n.attributes, len(n.inputs), len(n.outputs))
    schema = onnx.defs.get_schema(n.op_type, opset, "")
    body = _function(b, n, schema, opset)
    values: dict[str, Any] = {"": None}
    values.update((name, n.input(i)) for i, name in enumerate(body.input))
    defaults = {name: a.default_value for name, a in schema.attributes.items()}
    for node in body.node:
        attributes: dict[str, Any] = {}
        for attribute in node.attribute:
            source = attribute
            if attribute.ref_attr_name:
                given = n.attribute(attribute.ref_attr_name)
                if given is not None:
                    attributes[attribute.name] = given
                    continue
                source = defaults[attribute.ref_attr_name]
                if source.type == onnx.AttributeProto.UNDEFINED:
                    continue
            attributes[attribute.name] = _plain(source)
        if node.op_type == "Constant":
            (array,) = attributes.values()
            values[node.output[0]] = b.constant(array)
            continue
        inputs = [values[name] for name in node.input]
        made = b.emit(node.op_type, inputs, attributes, len(node.output))
        values.update(zip(node.output, made, strict=True))
    return [values.get(name) for name in body.output]


def _function(b: Builder[Any], n: Record[Any], schema: Any, opset: int) -> Any:
    """The schema's function body, as a FunctionProto."""
    import onnx

    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        data = schema.get_function_with_opset_version(max(versions))
    elif schema.has_context_dependent_function:
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(n.inputs)]
        node = onnx.helper.make_node(
            n.op_type, names, [f"y{i}" for i in range(len(n.outputs))], **n.attributes
        )
        types = [
            onnx.TypeProto() if x is None else _type_proto(b.dtype(x), b.shape(x)) for x in n.inputs
        ]
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        data = schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), [t.SerializeToString() for t in types]
        )
    else:
        raise Refusal(f"ONNX gives no function body for {n.op_type} at opset {opset}")
    function = onnx.FunctionProto()
    function.ParseFromString(data)
    return function


def _type_proto(dtype: DType, shape: Shape | None) -> Any:
    import onnx

    return onnx.helper.make_tensor_type_proto(to_onnx(dtype), shape)


def _plain(attribute: Any) -> Any:
    """An AttributeProto's value as `Builder.emit` takes it."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.GRAPH:
        raise Refusal("its function body holds a subgraph")
    if attribute.type == onnx.AttributeProto.TENSOR:
        return onnx.numpy_helper.to_array(value)
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode()
    if attribute.type == onnx.AttributeProto.FLOAT and attribute.name == "value_float":
        return np.float32(value)
    return value
