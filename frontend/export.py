"""Writing a compiled step as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxtape.compiler import dtypes
from onnxtape.compiler.errors import meaning_of_failure
from onnxtape.inference import note_parameters, trace_inference
from onnxtape.runtime.artifact import EvaluationGraph, InferenceGraph, write_artifact
from onnxtape.runtime.manifest import StateEntry, TensorEntry
from onnxtape.tracing import TracedStep

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction
    from onnxtape.models import Model


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
        evaluation: also write this step, which evaluates: its variables are among the step's.

    Raises:
        ValueError: the model's inputs are not known yet; or the evaluation has variables of its
            own.
        ArtifactError: something other than an artifact is at `path`.
    """
    traced = concrete.traced
    write_artifact(
        path,
        training=ir.to_proto(traced.model).SerializeToString(),
        inputs=_inputs(traced),
        outputs=_results(traced),
        state_entries=[
            StateEntry(
                entry.name,
                entry.input_name,
                entry.output_name,
                variable.dtype.name,
                variable.shape,
                variable.role,
            )
            for entry, variable in zip(traced.state, traced.variables, strict=True)
        ],
        state={e.name: v.numpy() for e, v in zip(traced.state, traced.variables, strict=True)},
        opset=traced.model.opset_imports[""],
        inference=None if model is None else inference_graph(model, traced),
        evaluation=None if evaluation is None else _evaluation_graph(evaluation.traced, traced),
        failures=_failures(traced),
    )
    return Path(path)


def _evaluation_graph(traced: TracedStep, step: TracedStep) -> EvaluationGraph:
    names = {id(v): entry.name for entry, v in zip(step.state, step.variables, strict=True)}
    own = [v.path for v in traced.variables if id(v) not in names]
    if own:
        raise ValueError(
            f"the evaluation uses the variable '{own[0]}', which the training step does not: only "
            "variables of the training step have a place in its artifact"
        )
    return EvaluationGraph(
        ir.to_proto(traced.model).SerializeToString(),
        _inputs(traced),
        _results(traced),
        [
            StateEntry(
                names[id(v)], entry.input_name, entry.output_name, v.dtype.name, v.shape, v.role
            )
            for entry, v in zip(traced.state, traced.variables, strict=True)
        ],
        _failures(traced),
    )


def _failures(traced: TracedStep) -> dict[str, str]:
    meanings = {
        node.name or "": meaning_of_failure(node.op_type, node.metadata_props)
        for node in traced.model.graph.all_nodes()
    }
    return {name: meaning for name, meaning in meanings.items() if name and meaning}


def _inputs(traced: TracedStep) -> list[TensorEntry]:
    return [_entry(value) for value in list(traced.model.graph.inputs)[: len(traced.inputs)]]


def _results(traced: TracedStep) -> list[TensorEntry]:
    return [_entry(value) for value in list(traced.model.graph.outputs)[: len(traced.output_names)]]


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
            graph.inputs.remove(value)
            value.const_value = ir.tensor(variable.numpy(), name=value.name)
            graph.register_initializer(value)
    note_parameters(traced, brought)
    return InferenceGraph(
        ir.to_proto(traced.model).SerializeToString(), _inputs(traced), _results(traced)
    )
