"""Writing a compiled step as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxtape import tracing
from onnxtape.compiler import dtypes
from onnxtape.compiler.errors import meaning_of_failure
from onnxtape.compiler.notes import cloned
from onnxtape.compiler.subgraphs import captured, graphs_in
from onnxtape.inference import note_parameters, trace_inference
from onnxtape.naming import distinct
from onnxtape.runtime.artifact import EvaluationGraph, InferenceGraph, write_artifact
from onnxtape.runtime.manifest import StateEntry, TensorEntry
from onnxtape.tracing import TracedStep

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction
    from onnxtape.models import Model
    from onnxtape.variable import Variable


def export_step(
    concrete: ConcreteFunction,
    path: str | Path,
    model: Model | None,
    evaluation: ConcreteFunction | None = None,
) -> Path:
    """Write a traced step, with the present values of its variables, into the folder `path`.

    Args:
        model: also write its inference graph, whose state inputs have the names that the step
            gives them.
        evaluation: also write this step, which evaluates, with the step's variables and metrics of
            its own; what else it reads, it has as constants.

    Raises:
        ValueError: the model's inputs are not known yet; or the evaluation assigns a variable of
            its own that is no metric.
        ArtifactError: something other than an artifact is at `path`.
    """
    traced = concrete.traced
    write_artifact(
        path,
        training=ir.to_proto(traced.model).SerializeToString(),
        inputs=_inputs(traced),
        outputs=_results(traced),
        state_entries=[
            _state_entry(entry.name, entry, variable)
            for entry, variable in zip(traced.state, traced.variables, strict=True)
        ],
        state={e.name: v.numpy() for e, v in zip(traced.state, traced.variables, strict=True)},
        opset=traced.model.opset_imports[""],
        inference=None if model is None else inference_graph(model, traced),
        evaluation=None if evaluation is None else _evaluation_graph(evaluation.traced, traced),
        failures=_failures(traced),
        accumulated=_accumulated(traced),
    )
    return Path(path)


def _evaluation_graph(traced: TracedStep, step: TracedStep) -> EvaluationGraph:
    names = {id(v): entry.name for entry, v in zip(step.state, step.variables, strict=True)}
    model, taken = cloned(traced.model), set(names.values())
    inputs = {value.name: value for value in model.graph.inputs}
    state: list[StateEntry] = []
    for entry, v in zip(traced.state, traced.variables, strict=True):
        name = names.get(id(v))
        if name is None and v.role == "metric":
            name = distinct(entry.name, taken.__contains__)
            taken.add(name)
        elif name is None and entry.output_name is None:
            _hold(model.graph, inputs[entry.input_name], v)
            continue
        elif name is None:
            raise ValueError(
                f"the evaluation assigns the variable '{v.path}', which the training step does not "
                "use: besides metrics, an evaluation changes only what it shares with the training "
                "step, so that each begins where training is"
            )
        state.append(_state_entry(name, entry, v))
    return EvaluationGraph(
        ir.to_proto(model).SerializeToString(),
        _inputs(traced),
        _results(traced),
        state,
        _failures(traced),
        _accumulated(traced),
    )


def _state_entry(name: str, entry: tracing.StateEntry, variable: Variable) -> StateEntry:
    return StateEntry(
        name,
        entry.input_name,
        entry.output_name,
        variable.dtype.name,
        variable.shape,
        variable.role,
        _initial(variable),
    )


def _initial(variable: Variable) -> float:
    """What a metric's variable begins at."""
    if variable.initializer is None:
        return 0.0
    value = np.asarray(variable.initializer(variable.shape, dtype=variable.dtype))
    if value.size == 0:
        return 0.0
    if not (value == value.flat[0]).all():
        raise ValueError(
            f"the metric's variable '{variable.path}' begins with different numbers, which an "
            "artifact has no place for: let it begin with one, zeros say"
        )
    return float(value.flat[0])


def _hold(graph: ir.Graph, value: ir.Value, variable: Variable) -> None:
    """Make the state input `value` a constant."""
    graph.inputs.remove(value)
    value.const_value = ir.tensor(variable.numpy(), name=value.name)
    graph.register_initializer(value)


def _accumulated(traced: TracedStep) -> list[str]:
    """The results that metrics keep."""
    graph = traced.model.graph
    kept = {entry.input_name for entry in traced.state if entry.role == "metric"}
    reached = {value for value in graph.inputs if value.name in kept}
    for node in graph:
        inside = (value for inner in graphs_in(node) for value in captured(inner))
        if not reached.isdisjoint((*node.inputs, *inside)):
            reached.update(node.outputs)
    return [value.name or "" for value in _result_values(traced) if value in reached]


def _failures(traced: TracedStep) -> dict[str, str]:
    meanings = {
        node.name or "": meaning_of_failure(node.op_type, node.metadata_props)
        for node in traced.model.graph.all_nodes()
    }
    return {name: meaning for name, meaning in meanings.items() if name and meaning}


def _inputs(traced: TracedStep) -> list[TensorEntry]:
    return [_entry(value) for value in list(traced.model.graph.inputs)[: len(traced.inputs)]]


def _results(traced: TracedStep) -> list[TensorEntry]:
    return [_entry(value) for value in _result_values(traced)]


def _result_values(traced: TracedStep) -> list[ir.Value]:
    return list(traced.model.graph.outputs)[: len(traced.output_names)]


def _entry(value: ir.Value) -> TensorEntry:
    assert value.dtype is not None
    dims = () if value.shape is None else value.shape.dims
    shape = tuple(d if isinstance(d, int) else d.value or "?" for d in dims)
    return TensorEntry(value.name or "", dtypes.from_onnx(value.dtype.value).name, shape)


def inference_graph(model: Model, step: TracedStep) -> InferenceGraph:
    """The model's graph with `training=False`.

    Variables of the step are inputs under the step's names; others, which training does not touch,
    are constants.
    """
    traced = trace_inference(model)
    graph = traced.model.graph
    in_step = {id(v): entry.name for entry, v in zip(step.state, step.variables, strict=True)}
    brought = list(graph.inputs)[len(traced.inputs) :]
    for value, variable in zip(brought, traced.variables, strict=True):
        if id(variable) in in_step:
            value.name = in_step[id(variable)]
        else:
            _hold(graph, value, variable)
    note_parameters(traced, brought)
    return InferenceGraph(
        ir.to_proto(traced.model).SerializeToString(), _inputs(traced), _results(traced)
    )
