"""ONNX's own form of training: `ModelProto.training_info`.

The main graph is the inference model, whose initializers are the weights. The algorithm is a graph
that, put behind the main one, makes new values for initializers of either; bindings say for which.
See TrainingInfoProto in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtape import nest
from onnxtape.compiled_function import function
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import ModelError
from onnxtape.interop.graph import Environment, input_spec
from onnxtape.interop.inner_tensors import subgraphs_of
from onnxtape.interop.model import load_onnx
from onnxtape.interop.reading import read_proto
from onnxtape.interop.saving import write_model
from onnxtape.interop.training_graph import TrainingGraph
from onnxtape.interop.training_operators import DOMAIN
from onnxtape.variable import Variable

if TYPE_CHECKING:
    import onnx

    from onnxtape.models import Model


def load_training_info(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, index: int = 0
) -> TrainingInfo:
    """The training step that an ONNX model holds in its `training_info`.

    The operators of ai.onnx.preview.training (Gradient, Adagrad, Adam, Momentum) become standard
    ones. A model without `training_info` whose main graph has such operators is a step without
    state.

    Args:
        source: a path, a serialized model, or a ModelProto.
        index: which of several.

    Raises:
        ModelError: the model is broken, or holds no training.
    """
    name, model, _ = read_proto(source)
    return TrainingInfo(name, model, index)


class TrainingInfo:
    """What `load_training_info` gives.

    Attributes:
        variables: what the algorithm updates, by the initializers' names.
        input_names, output_names: of the batch and of the results.
        step: an `ot.function` of one dict, of arrays by the inputs' names. It updates the variables
            and returns the results by name. `step.export` writes it as an artifact.
    """

    def __init__(self, name: str, model: onnx.ModelProto, index: int = 0) -> None:
        import onnx

        self._name, self._model = name, model
        combined = onnx.ModelProto()
        combined.CopyFrom(model)
        self._info: onnx.TrainingInfoProto | None = None
        if model.training_info:
            if not 0 <= index < len(model.training_info):
                count = len(model.training_info)
                raise ModelError(f"'{name}' holds {count} training_info, and none number {index}")
            self._info = model.training_info[index]
            _append(combined.graph, self._info.algorithm)
        elif not any(node.domain == DOMAIN for node in model.graph.node):
            raise ModelError(f"'{name}' holds no training_info; ot.load_onnx makes a model of it")
        self._updates = _bindings(self._info.update_binding) if self._info else {}
        outputs = [o.name for o in combined.graph.output]
        self.output_names = [n for n in outputs if n not in set(self._updates.values())]
        graph = TrainingGraph.of(name, combined)
        self._graph = graph.needed_for([*self.output_names, *self._updates.values()])
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.proto.initializer}
        if missing := [key for key in self._updates if key not in arrays]:
            raise ModelError(f"'{name}' updates '{missing[0]}', which is no initializer")
        weights = {t.name for t in model.graph.initializer}
        self.variables = {
            key: Variable(
                arrays.pop(key), key in weights, key, role=None if key in weights else "optimizer"
            )
            for key in self._updates
        }
        self._constants = arrays
        read = {key for node in self._graph.nodes for key in node.reads}
        specs = {
            value.name: input_spec(name, value)
            for value in graph.proto.input
            if value.name in read and value.name not in {*arrays, *self.variables}
        }
        self.input_names = list(specs)
        self.step = function(self._step, input_signature=[specs], fallback="error")

    def initialize(self) -> None:
        """Give the variables the values that the model's initialization makes; those that it does
        not bind keep theirs.

        Raises:
            ModelError: it binds what is no variable.
        """
        import onnx

        if self._info is None or not self._info.initialization.node:
            return
        graph = self._info.initialization
        model = onnx.ModelProto(
            ir_version=self._model.ir_version,
            opset_import=self._model.opset_import,
            graph=graph,
        )
        values = nest.flatten(load_onnx(model)())
        made = dict(zip((o.name for o in graph.output), values, strict=True))
        for key, value in _bindings(self._info.initialization_binding).items():
            if key not in self.variables or value not in made:
                raise ModelError(
                    f"'{self._name}' initializes '{key}' with '{value}', which it does not have"
                )
            self.variables[key].assign(made[value])

    def _step(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        values: Environment = {key: B.constant(array) for key, array in self._constants.items()}
        values.update(self.variables)
        values.update(batch)
        self._graph.run(values)
        results = {name: convert_to_tensor(values[name]) for name in self.output_names}
        # All of them were computed from the old values.
        fresh = {key: convert_to_tensor(values[made]) for key, made in self._updates.items()}
        for key, value in fresh.items():
            self.variables[key].assign(value)
        return results


def export_training_info(step: Any, path: str | os.PathLike[str], *args: Any, model: Model) -> Path:
    """Write a compiled step and a model as one ONNX file in ONNX's own form of training.

    The main graph is the model's, with its weights as initializers, so that every ONNX runtime can
    run the file; the step is its `training_info`, with standard operators alone. The step's other
    state is among the algorithm's initializers. Batch inputs of the step that the model has by the
    same name, dtype and shape are the model's.

    Args:
        step: an `ot.function`.
        path: the file.
        *args: arguments or `TensorSpec`s that tell dtypes and shapes, as for `step.export`.
        model: the model that is trained.

    Returns:
        The file.
    """
    import onnx
    import onnx_ir as ir

    from onnxtape.export import inference_graph

    traced = step.get_symbolic_function(*args).traced
    training = ir.to_proto(traced.model)
    whole = onnx.ModelProto.FromString(inference_graph(model, traced).model)
    values = {e.name: v.numpy() for e, v in zip(traced.state, traced.variables, strict=True)}
    _fill(whole.graph, values)
    main = {value.name: value for value in whole.graph.input}
    shared = {
        value.name
        for value in list(training.graph.input)[: len(traced.inputs)]
        if value.name in main and value.type == main[value.name].type
    }
    weights = {tensor.name for tensor in whole.graph.initializer} & values.keys()
    renamed: dict[str, str] = {e.input_name: e.name for e in traced.state if e.name in weights}
    kept = shared | set(renamed)
    taken = _names(whole.graph)

    def new(name: str) -> str:
        if name in kept:
            return renamed.get(name, name)
        while name in taken:
            name = f"training/{name}"
        return name

    algorithm = training.graph
    _rename(algorithm, new)
    outside = {new(name) for name in kept}
    state = {new(e.input_name): e for e in traced.state}
    declared = [v for v in algorithm.input if v.name not in outside and v.name not in state]
    del algorithm.input[:]
    algorithm.input.extend(declared)
    algorithm.initializer.extend(
        onnx.numpy_helper.from_array(values[entry.name], name)
        for name, entry in state.items()
        if name not in outside
    )
    info = onnx.TrainingInfoProto(algorithm=algorithm)
    for name, entry in state.items():
        if entry.output_name is not None:
            info.update_binding.add(key=name, value=new(entry.output_name))
    whole.training_info.append(info)
    return write_model(path, whole, ())


def _append(graph: onnx.GraphProto, algorithm: onnx.GraphProto) -> None:
    """Put the algorithm behind the graph; its outputs are those of both."""
    graph.node.extend(algorithm.node)
    graph.initializer.extend(algorithm.initializer)
    graph.input.extend(algorithm.input)
    graph.value_info.extend(algorithm.value_info)
    del graph.output[:]
    graph.output.extend(algorithm.output)


def _bindings(entries: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in entries}


def _fill(graph: onnx.GraphProto, values: Mapping[str, Any]) -> None:
    """Make initializers of the inputs that are state."""
    import onnx

    inputs = list(graph.input)
    del graph.input[:]
    graph.input.extend(value for value in inputs if value.name not in values)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values[value.name], value.name)
        for value in inputs
        if value.name in values
    )


def _names(graph: onnx.GraphProto) -> set[str]:
    """All names of values, those in subgraphs too."""
    found = {t.name for t in graph.initializer} | {v.name for v in graph.input}
    for node in graph.node:
        found.update(node.output)
        for inner in subgraphs_of(node):
            found |= _names(inner)
    return found - {""}


def _rename(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        named.name = new(named.name)
    for node in graph.node:
        node.input[:] = [new(name) if name else "" for name in node.input]
        node.output[:] = [new(name) if name else "" for name in node.output]
        for inner in subgraphs_of(node):
            _rename(inner, new)
