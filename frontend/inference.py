"""A model's graph for inference: what artifacts and `Model.save_onnx` write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxtape import context, nest
from onnxtape.compiler.dtypes import is_floating
from onnxtape.runtime.files import replacing
from onnxtape.runtime.weights import with_weights
from onnxtape.signature import TensorSpec, resolve_spec
from onnxtape.tensor import Tensor, as_array
from onnxtape.tracing import InputSpec, TracedStep, trace

if TYPE_CHECKING:
    from onnxtape.models import Model

#: The key of a model's metadata under which the names of its parameters are, one in each line.
PARAMETERS = "onnxtape.parameters"


def trace_inference(model: Model, arguments: Sequence[Any] | None = None) -> TracedStep:
    """The model called with `training=False`; every variable is an input, after the batch inputs.

    Args:
        arguments: for each argument of the call, a nested structure of `TensorSpec`s; by default
            the model's `call_specs`.

    Raises:
        ValueError: the model's inputs are not known yet.
    """
    specs = model.call_specs if arguments is None else (tuple(arguments), {})
    leaves = nest.flatten(specs)
    flat = [leaf for leaf in leaves if isinstance(leaf, TensorSpec)]
    names = [spec.name or f"input_{i}" for i, spec in enumerate(flat)]

    def call(tensors: Sequence[Tensor]) -> dict[str, Any]:
        training = {"training": False} if model.takes_training else {}
        given = iter(tensors)
        filled = [next(given) if isinstance(leaf, TensorSpec) else leaf for leaf in leaves]
        args, named = nest.pack_like(specs, filled)
        outputs = nest.flatten(model(*args, **named, **training))
        # A model that came from a file keeps the names that its users know.
        known = getattr(model, "result_names", None)
        count = len(outputs)
        default = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        return dict(zip(known or default, outputs, strict=True))

    inputs = [
        InputSpec(name, spec.dtype, shape)
        for name, spec, shape in zip(names, flat, resolve_spec(names, flat), strict=True)
    ]
    with context.eagerly():
        return trace(model.name, inputs, call, may_create=False)


def note_parameters(traced: TracedStep, values: Sequence[ir.Value]) -> None:
    """Note which weights are parameters, for whoever trains the file again.

    Args:
        values: for each variable, what it is in the graph.
    """
    names = [
        value.name or ""
        for value, variable in zip(values, traced.variables, strict=True)
        if variable.role == "parameter"
    ]
    traced.model.metadata_props[PARAMETERS] = "\n".join(names)


def save_inference(model: Model, path: str | os.PathLike[str], signature: Any) -> Path:
    """See `Model.save_onnx`."""
    if not model.built:
        raise ValueError(
            f"model '{model.name}' has no weights yet: call it on data, or fit it, before save_onnx"
        )
    traced = trace_inference(model, None if signature is None else _arguments(model, signature))
    graph = traced.model.graph
    for entry, variable in zip(traced.state, traced.variables, strict=True):
        if entry.output_name is not None:
            raise ValueError(
                f"model '{model.name}' changes its variable '{variable.path}' when it is called, "
                "and an ONNX file keeps no state between runs: export a step instead, "
                "step.export(path, model=model)"
            )
    brought = list(graph.inputs)[len(traced.inputs) :]
    for value, entry in zip(brought, traced.state, strict=True):
        value.name = entry.name
    note_parameters(traced, brought)
    weights = {e.name: v.numpy() for e, v in zip(traced.state, traced.variables, strict=True)}
    pieces = with_weights(ir.to_proto(traced.model).SerializeToString(), weights)
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        file.writelines(pieces)
    return Path(path)


def _arguments(model: Model, signature: Any) -> tuple[Any, ...]:
    """The specs of each argument of the call, of specs or of example inputs."""

    def spec(leaf: Any) -> TensorSpec:
        if isinstance(leaf, TensorSpec):
            return leaf
        array = as_array(leaf) if isinstance(leaf, Tensor) else np.asarray(leaf)
        dtype = model.dtype if is_floating(array.dtype) else array.dtype
        return TensorSpec((None, *array.shape[1:]) if array.ndim else (), dtype)

    arguments = signature if isinstance(signature, (list, tuple)) else (signature,)
    return tuple(nest.map_structure(spec, argument) for argument in arguments)
