"""ONNX models as trainable models."""

from __future__ import annotations

import fnmatch
import os
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dtypes import is_floating
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import ModelError
from onnxtape.interop.derived import find_derived
from onnxtape.interop.graph import (
    constant_of,
    evaluate,
    fold_constants,
    input_spec,
    nodes_of,
    note_last_uses,
)
from onnxtape.interop.limits import Budget
from onnxtape.interop.lora import Adaptable, Adapter, apply_adapters, variables_of
from onnxtape.interop.number_patterns import is_position_code
from onnxtape.interop.origins import (
    Origins,
    filled_weights,
    find_repetitions,
    find_ties,
)
from onnxtape.interop.parameters import Parameters
from onnxtape.interop.reaching import reached_by_gradients
from onnxtape.interop.reading import SourceModel, read_model
from onnxtape.interop.saving import named_tensors, with_weights, write_model
from onnxtape.models.model import Model
from onnxtape.naming import suggestion
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

if TYPE_CHECKING:
    import onnx

#: Names, glob patterns ("classifier.*"), or a function of the name.
Selection = str | Iterable[str] | Callable[[str], bool]


def load_onnx(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
    trainable: Selection | None = None,
    *,
    name: str | None = None,
) -> OnnxModel:
    """An ONNX model as a callable model that can be trained.

    Args:
        source: a path, a serialized model, or a ModelProto; of opset 7 to 26, and at most 2 GB.
            It may hold If, Loop and Scan.
        trainable: which weights are trained: names, glob patterns, or a function of the name,
            where the names are those of the initializers or of the framework's parameters that the
            exporter has noted. By default every floating-point one that a gradient of the outputs
            reaches, but for running statistics, sinusoidal codes of positions, what the exporter
            has noted to be no parameter, and numbers that it has not noted to be one, as in
            Constants of one element. (torch.onnx.export keeps no parameter in a Constant.)
        name: of the model; by default the file's.

    Raises:
        ModelError: the file is missing, truncated or broken, holds operators that are not
            standard, or keeps weights outside its folder.
        ValueError: `trainable` names a weight that the model does not have.
    """
    read = read_model(source)
    model = OnnxModel(read, name=name)
    if trainable is not None:
        model.set_trainable(trainable)
    return model


class OnnxModel(Adaptable, Model):
    """What `load_onnx` gives: a model whose variables are named after the file's initializers.

    Calling it takes the graph's inputs, in order, by name, or as one list or dict. It returns the
    one output, or a named tuple of all, whose entries are also found by the ONNX name:
    `model(x)["logits"]`. With `training=True`, BatchNormalization and Dropout train.
    """

    def __init__(self, read: SourceModel, name: str | None = None) -> None:
        super().__init__(name=name or read.name.rpartition(".")[0] or read.name)
        import onnx

        self._read = read._replace(prepared=onnx.ModelProto())  # Its weights live on as variables.
        graph = read.prepared.graph
        self._nodes = nodes_of(read.name, graph)
        self.output_names = [o.name for o in graph.output]
        constants = {
            t.name: onnx.numpy_helper.to_array(t)
            for t in graph.initializer
            if t.data_type != onnx.TensorProto.STRING
        }
        for node in self._nodes:
            # Exporters fold weights into Constants as well.
            if node.op_type == "Constant" and not {"value_string", "value_strings"} & set(
                node.attributes
            ):
                constants[node.outputs[0]] = constant_of(node)
        budget = Budget(read.name)
        filled = filled_weights(self._nodes, constants, budget)
        constants |= filled
        # What functions hold, and what stems from a newer opset, could not be saved.
        saved = {*filled, *(name for name, _ in named_tensors(read.original))}
        self._origins = Origins.of(read.original, graph)
        floating = {
            k: a
            for k, a in constants.items()
            # A number is a constant, unless the exporter says otherwise.
            if k in saved
            and is_floating(a.dtype)
            and ((a.ndim and k not in self._origins.numbers) or self._origins.is_parameter(k))
        }
        self._constants = {k: a for k, a in constants.items() if k not in floating}
        for node in self._nodes:
            node.padding = self._origins.padding.get(node.outputs[0])
            node.detached = self._origins.detached.get(node.outputs[0], frozenset())
        self._ties = find_ties(floating, Parameters(read.original.graph).are_apart)
        reached = reached_by_gradients(self._nodes, self.output_names, constants)
        reached |= {tie.to for name, tie in self._ties.items() if name in reached}
        tied = {*self._ties, *(tie.to for tie in self._ties.values())}
        alone = {k: a for k, a in floating.items() if k not in tied}
        self._derived = find_derived(alone, self._constants, self._origins)
        for key, made in self._derived.items():
            if key in reached:
                reached.update(made.sources)
        self._weights: dict[str, Variable] = {}
        self._repetitions: dict[str, npt.NDArray[np.int64]] = {}
        for key, array in floating.items():
            derived = self._derived.get(key)
            if derived is not None:
                for source, start in derived.starts.items():
                    self._weights[source] = Variable(start, key in reached, source)
            if key not in self._ties and derived is None:
                parameter = self._origins.is_parameter(key) is not False
                trained = key in reached and parameter and not is_position_code(array)
                if trained and self._origins.is_computed(key):
                    first = find_repetitions(
                        array,
                        repeated=self._origins.is_repeated(key),
                        expanded=self._origins.is_expanded(key),
                    )
                    if first is not None:
                        self._repetitions[key] = first
                self._weights[key] = Variable(array, trained, key)
        self._nodes = [n for n in self._nodes if n.outputs[0] not in constants]
        for key, made in self._derived.items():
            computing, operands = made.nodes(key)
            self._nodes = [*computing, *self._nodes]
            self._constants.update(operands)
        # Now, so that a trace knows the shapes that they say.
        self._nodes = fold_constants(read.name, self._nodes, self._constants, budget)
        note_last_uses(self._nodes, self.output_names)
        self._specs = [
            input_spec(read.name, value) for value in graph.input if value.name not in constants
        ]
        self._adapters: dict[str, Adapter] = {}
        self._adapter_weights: dict[str, Variable] = {}
        self._truncated = False
        self.built = True

    # The parts that Model asks for ----------------------------------------------------------------

    @property
    def input_names(self) -> list[str]:
        """The graph's inputs, initializers aside, in order."""
        return [spec.name or "" for spec in self._specs]

    @property
    def result_names(self) -> list[str]:
        """What an exported inference graph calls its outputs: as the file does."""
        return self.output_names

    @property
    def input_specs(self) -> Any:
        return self._specs[0] if len(self._specs) == 1 else list(self._specs)

    def _as_input(self, x: Any) -> Any:
        # The graph says which dtypes it takes.
        return convert_to_tensor(x) if isinstance(x, np.ndarray) else x

    def call(self, *inputs: Any, training: bool = False, **named: Any) -> Any:
        values: dict[str, Any] = {name: B.constant(a) for name, a in self._constants.items()}
        values.update(self._weights)
        apply_adapters(self._adapters, values)
        for key, first in self._repetitions.items():
            values[key] = B.op("Gather", ops.reshape(values[key], [-1]), first)
        for key, tie in self._ties.items():
            weight = values[tie.to]
            values[key] = ops.transpose(weight) if tie.transposed else weight
        values.update(self._given(inputs, named))
        evaluate(self._read.name, self._nodes, values, training=bool(training))
        outputs = [convert_to_tensor(values[name]) for name in self.output_names]
        return outputs[0] if len(outputs) == 1 else self._output_type(*outputs)

    def _given(self, inputs: Sequence[Any], named: dict[str, Any]) -> dict[str, Tensor]:
        names = self.input_names
        if len(inputs) == 1 and not named:
            (only,) = inputs
            if isinstance(only, dict):
                inputs, named = (), only
            elif isinstance(only, (list, tuple)):
                inputs = only
        given = {**dict(zip(names, inputs, strict=False)), **named}
        if len(inputs) > len(names) or set(given) != set(names):
            raise ValueError(
                f"model '{self.name}' takes the inputs {', '.join(names)}, but was given "
                f"{', '.join(given) or 'none'}"
                + (f" and {len(inputs) - len(names)} more" if len(inputs) > len(names) else "")
            )
        return {
            spec.name or "": convert_to_tensor(given[spec.name or ""], spec.dtype)
            for spec in self._specs
        }

    @cached_property
    def _output_type(self) -> Any:
        return _named_tuple(self.output_names)

    # Weights --------------------------------------------------------------------------------------

    @property
    def weight_names(self) -> list[str]:
        """The names of the floating-point initializers and constants, as in the file.

        Where the exporter has made one of a parameter, by what can be undone, the parameter's.
        """
        return list(self._weights)

    def set_trainable(self, selection: Selection) -> None:
        """Train these weights, and no others.

        Args:
            selection: names, glob patterns, or a function of the name.

        Raises:
            ValueError: a name or pattern that fits no weight.
        """
        chosen = self._select(selection)
        for name, variable in self._weights.items():
            variable.trainable = name in chosen

    def trained_weights(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of all floating-point initializers and constants, by name, as in the file.

        Adapters are merged into them.
        """
        found = {name: variable.numpy() for name, variable in self._weights.items()}
        for name, first in self._repetitions.items():
            found[name] = found[name].reshape(-1)[first]
        for name, adapter in self._adapters.items():
            found[name] = adapter.added_to(found[name])
        for name, derived in self._derived.items():
            found[name] = derived.applied(found)
        for derived in self._derived.values():
            for source in derived.starts:
                del found[source]
        for name, tie in self._ties.items():
            array = found[tie.to]
            found[name] = np.ascontiguousarray(array.T) if tie.transposed else array
        return found

    def save_onnx(self, path: str | os.PathLike[str], input_signature: Any = None) -> Path:
        """Write the ONNX file that the model was, with its weights as they are now.

        Names, order, metadata and opset stay. Weights that lay in files of their own go into one
        beside it, `<name>.data`.

        Args:
            path: the file.
            input_signature: None: the file says what its inputs are.

        Raises:
            ModelError: a truncated model, whose file this would not be.
            ValueError: an `input_signature`.
        """
        if input_signature is not None:
            raise ValueError(
                f"'{self._read.name}' says what its inputs are: save_onnx takes no "
                "input_signature for it"
            )
        if self._truncated:
            raise ModelError(
                f"model '{self.name}' ends at '{self.output_names[0]}' and is not the whole of "
                f"'{self._read.name}'; save the model that it was truncated from: they share their "
                "weights"
            )
        model = with_weights(self._read.original, self.trained_weights())
        return write_model(path, model, self._read.external)

    def truncate(self, *outputs: str) -> OnnxModel:
        """A model that ends at these values of the graph; it shares this one's weights.

        Put `ot.layers` on top of it to give it another head.

        Args:
            outputs: names of values: outputs of nodes.

        Raises:
            ValueError: the graph has no such value.
        """
        made = {name for node in self._nodes for name in node.outputs if name}
        for name in outputs:
            if name not in made:
                raise ValueError(
                    f"model '{self.name}' has no value '{name}'{suggestion(name, made)}"
                )
        short = OnnxModel.__new__(OnnxModel, self._read)
        short.__dict__.update((k, v) for k, v in self.__dict__.items() if k != "_tracked")
        short.__dict__.pop("_output_type", None)
        short.output_names = list(outputs)
        short._truncated = True
        needed, nodes = set(outputs), []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.outputs):
                nodes.append(replace(node))
                needed.update(node.reads)
        short._nodes = nodes[::-1]
        note_last_uses(short._nodes, outputs)
        used = {self._ties[n].to if n in self._ties else n for n in needed}
        short._adapters = {n: a for n, a in self._adapters.items() if n in used}
        short._adapter_weights = variables_of(short._adapters)
        short._weights = {n: v for n, v in self._weights.items() if n in used}
        short._repetitions = {n: r for n, r in self._repetitions.items() if n in used}
        short._derived = {n: d for n, d in self._derived.items() if n in needed}
        short._ties = {n: t for n, t in self._ties.items() if n in needed}
        short._constants = {n: a for n, a in self._constants.items() if n in needed}
        short._specs = [spec for spec in self._specs if spec.name in needed]
        return short

    def _select(self, selection: Selection) -> set[str]:
        known = self._known_names()
        if callable(selection):
            return {weight for name, weight in known.items() if selection(name)}
        patterns = [selection] if isinstance(selection, str) else list(selection)
        chosen: set[str] = set()
        for pattern in patterns:
            found = {
                weight
                for name, weight in known.items()
                if name == pattern or fnmatch.fnmatchcase(name, pattern)
            }
            if not found:
                raise ValueError(
                    f"model '{self.name}' has no weight '{pattern}'" + suggestion(pattern, known)
                )
            chosen |= found
        return chosen

    def _known_names(self) -> dict[str, str]:
        """What a weight may be called: by its initializers, by the framework's parameters."""
        known = {name: name for name in self._weights}
        known.update((name, tie.to) for name, tie in self._ties.items())
        for name, derived in self._derived.items():
            if len(derived.sources) == 1:
                known[name] = derived.sources[0]
        for name, weight in list(known.items()):
            for parameter in self._origins.of_parameters(name):
                known.setdefault(parameter, weight)
        return known


def _named_tuple(names: Sequence[str]) -> Any:
    """A named tuple whose entries are also found by their ONNX names."""
    base: Any = namedtuple("Outputs", names, rename=True)  # type: ignore[misc]

    def find(self: Any, key: Any) -> Any:
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in names:
            raise KeyError(f"no output '{key}'{suggestion(key, names)}")
        return tuple.__getitem__(self, names.index(key))

    return type("Outputs", (base,), {"__getitem__": find, "__slots__": ()})
