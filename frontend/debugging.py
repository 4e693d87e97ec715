"""Finding the operator that made the first NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import Provenance, located
from onnxtape.context import Numerics, provenance
from onnxtape.devices import executor_for
from onnxtape.errors import NumericsError
from onnxtape.runtime.devices import fetch

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxtape.tracing import TracedStep


def enable_check_numerics() -> None:
    """Raise `NumericsError` where a NaN or infinity first appears, compiled or eager.

    The error names the operator, the user's file and line and the layer. The state stays as it was
    before a compiled step. Steps then run one operator at a time, which is slow.
    """
    Numerics.check = True


def disable_check_numerics() -> None:
    """Undo `enable_check_numerics`."""
    Numerics.check = False


def checking_numerics() -> bool:
    return Numerics.check


def run_checked(traced: TracedStep, inputs: Sequence[Any]) -> list[Any]:
    """Run a step operator by operator, checking each result; see `enable_check_numerics`.

    Args:
        inputs: the batch inputs as OrtValues.

    Returns:
        The results as OrtValues. State is assigned only when every value was finite.

    Raises:
        NumericsError: an operator made a NaN or infinity, or one came in.
    """
    from onnxtape.compiler.autodiff import record_of
    from onnxtape.compiler.subgraphs import graphs_in
    from onnxtape.runtime import values

    graph = traced.model.graph
    held = [np.array(v.const_value.numpy()) for v in graph.initializers.values() if v.const_value]
    known: dict[int, Any] = {
        id(value): values.from_numpy(array)
        for value, array in zip(graph.initializers.values(), held, strict=True)
    }
    state = [variable._tensor._ort for variable in traced.variables]
    known.update(zip(map(id, graph.inputs), [*inputs, *state], strict=True))
    for i, value in enumerate(graph.inputs):
        if not _is_finite(known[id(value)]):
            what = "argument" if i < len(inputs) else "variable"
            raise NumericsError(
                f"{what} '{value.name}' held {_kind(known[id(value)])} before the step"
            )
    for node in graph:
        operands = [None if x is None else known[id(x)] for x in node.inputs]
        if graphs_in(node):
            made: Sequence[Any] = run_with_subgraphs(node, known)
        else:
            attributes = record_of(node).attributes
            made = executor_for(operands).run(node.op_type, operands, attributes, len(node.outputs))
        for output, value in zip(node.outputs, made, strict=True):
            known[id(output)] = value
            if not _is_finite(value) and all(x is None or _is_finite(x) for x in operands):
                place = Provenance.from_metadata(node.metadata_props)
                shapes = ", ".join(
                    format_shape(tuple(x.shape())) for x in operands if x is not None
                )
                raise NumericsError(
                    located(
                        f"{node.op_type} made {_kind(value)} from finite inputs of shapes "
                        f"{shapes} in the {place.phase} pass; the state is as before the step",
                        place,
                    )
                )
    outputs = [known[id(value)] for value in graph.outputs]
    assigned = [
        variable
        for variable, entry in zip(traced.variables, traced.state, strict=True)
        if entry.output_name is not None
    ]
    count = len(traced.output_names)
    for variable, value in zip(assigned, outputs[count:], strict=True):
        variable._set(value)
    return outputs[:count]


def run_with_subgraphs(node: ir.Node, known: Mapping[int, Any]) -> list[Any]:
    """Run an If, Loop or Scan of a step.

    Args:
        known: the OrtValues of what it uses, by the ids of the graph's values.

    Raises:
        ExecutionError: an operator in it failed.
    """
    import onnx_ir as ir

    from onnxtape.compiler.graph_builder import GraphBuilder
    from onnxtape.compiler.subgraphs import copy_node, record_with_captured
    from onnxtape.engine import OPSET
    from onnxtape.runtime.eager import run_graph
    from onnxtape.tracing import IR_VERSION

    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=node.op_type)
    builder = GraphBuilder(graph, opset=OPSET)
    used = dict.fromkeys(x for x in record_with_captured(node).inputs if x is not None)
    inputs = {x: builder.input_like(x) for x in used}
    graph.outputs.extend(copy_node(builder, node, inputs))
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    feeds = {made.name or "": known[id(x)] for x, made in inputs.items()}
    return run_graph(model, feeds, [x.name or "" for x in graph.outputs])


def check_eager(op_type: str, inputs: Sequence[Any], results: Sequence[Any]) -> None:
    """Check the OrtValues that one eager operation took and gave.

    Raises:
        NumericsError: it made a NaN or infinity of finite inputs.
    """
    given = [x for x in inputs if x is not None]
    for value in results:
        if not _is_finite(value) and all(map(_is_finite, given)):
            shapes = ", ".join(format_shape(tuple(x.shape())) for x in given)
            place = provenance()
            raise NumericsError(
                located(
                    f"{op_type} made {_kind(value)} from finite inputs of shapes {shapes} in the "
                    f"{place.phase} pass",
                    place,
                )
            )


def _is_finite(value: Any) -> bool:
    array = fetch(value)
    return not is_floating(array.dtype) or bool(np.isfinite(array).all())


def _kind(value: Any) -> str:
    return "a NaN" if np.isnan(fetch(value)).any() else "an infinity"
