"""Steps that are recorded once and replayed: `providers=("cuda", {"enable_cuda_graph": 1})`.

A recorded step needs fixed shapes, and all of its state in place. Where it cannot be had, the step
runs as ever, and one warning says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxtape import context
from onnxtape.compiler.dims import format_shape, is_static
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.schedule import copy_updates_last, schedule_updates
from onnxtape.compiler.target import Target
from onnxtape.devices import Place
from onnxtape.errors import ExecutionError, FallbackWarning
from onnxtape.runtime.captured import CapturedStep, Fixed, without_capture
from onnxtape.runtime.devices import CPU
from onnxtape.runtime.placement import placement
from onnxtape.runtime.session import create_session
from onnxtape.runtime.step import StateBinding, StateCell
from onnxtape.tracing import TracedStep

#: Gives the graph as ONNX Runtime optimizes it; None where that cannot be had.
Optimize = Callable[[bytes, Any], ir.Model | None]


#: Control flow, and operators whose results have sizes that the host has to be told.
_WAITS = ("Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique")


class _CannotCapture(Exception):
    """The text says why."""


def captured_step(
    traced: TracedStep, place: Place, cells: Sequence[StateCell], optimize: Optimize
) -> CapturedStep | None:
    """The step as one that is recorded and replayed; None, with a warning, where it cannot be.

    Args:
        cells: of the state, in the trace's order.
        optimize: takes a serialized model and providers.
    """
    try:
        return _captured(traced, place, cells, optimize)
    except _CannotCapture as reason:
        name = traced.raw.graph.name
        context.warn_user(f"'{name}' runs without a CUDA graph: {reason}", FallbackWarning)
        return None


def _captured(
    traced: TracedStep, place: Place, cells: Sequence[StateCell], optimize: Optimize
) -> CapturedStep:
    inputs = {spec.name: (spec.dtype.name, _fixed(spec.name, spec.shape)) for spec in traced.inputs}
    made = traced.rewritten(Target(place.provider))
    if (waiting := not_recorded(made)) and place.device != CPU:
        raise _CannotCapture(f"the host has to wait for {', '.join(waiting)}")
    graph_outputs = {value.name: value for value in made.graph.outputs}
    results: Fixed = {
        name: (_dtype(graph_outputs[name]), _fixed(name, shape_of(graph_outputs[name])))
        for name in traced.output_names
    }
    plain = without_capture(place.providers)
    source = ir.to_proto(made).SerializeToString()
    model = optimize(source, plain)
    if model is None:
        raise _CannotCapture("the provider compiles parts of it itself")
    state = {s.input_name: s.output_name for s in traced.state if s.output_name is not None}
    _update_in_place(model, state)
    try:
        session = create_session(
            ir.to_proto(model).SerializeToString(), place.providers, optimize=False, in_order=True
        )
    except ExecutionError as error:
        if "cannot use the" not in str(error):
            raise
        fell = sorted({node.op_type for node in placement(source, plain).on_cpu})
        listed = f" ({', '.join(fell)} run on the CPU)" if fell else ""
        raise _CannotCapture(f"{error}{listed}") from None
    bindings = [
        StateBinding(cell, entry.input_name, entry.output_name, in_place=True)
        for entry, cell in zip(traced.state, cells, strict=True)
    ]
    return CapturedStep(session, inputs, results, bindings, place.device)


def not_recorded(model: ir.Model) -> list[str]:
    """The operators of a graph that wait for the device in the middle of a step."""
    return sorted({node.op_type for node in model.graph.all_nodes() if applies(node, *_WAITS)})


def _update_in_place(model: ir.Model, state: Mapping[str, str]) -> None:
    """Order the nodes so that all of the state can be updated in place."""
    rest = {k: v for k, v in state.items() if k not in schedule_updates(model, state)}
    if not rest:
        return
    copy_updates_last(model, list(rest.values()))
    if left := set(state) - schedule_updates(model, state):
        raise _CannotCapture(f"'{min(left)}' cannot be updated in place")


def _fixed(name: str, shape: Any) -> tuple[int, ...]:
    if not is_static(shape):
        raise _CannotCapture(
            f"'{name}' has shape {format_shape(shape)}, and what is recorded has fixed shapes; "
            "call it with one batch size (drop_remainder=True) and no symbolic input_signature"
        )
    return tuple(shape)


def _dtype(value: ir.Value) -> str:
    assert value.dtype is not None
    return value.dtype.numpy().name
