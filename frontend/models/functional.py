"""Functional models: made of tensors that began with `ot.Input`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from onnxtape import masks, nest, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.inference import shape_of
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.models.copying import call_list, make_calls
from onnxtape.models.model import Model
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.ops.axes import may_equal, refused
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor


def _described(x: Any) -> str:
    """What a value is, without its numbers."""
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        return repr(x)
    return f"{type(x).__name__} of {x.dtype}{format_shape(tuple(x.shape))}"


@functools.cache
def functional_class(cls: Any) -> Any:
    """A subclass of `Model` as one of `Functional`, under its own name."""
    own = {"__module__": cls.__module__, "made_of": cls}
    return type(cls.__name__, (cls, Functional), own)


def _bare(cls: Any) -> Any:
    return object.__new__(cls if issubclass(cls, Functional) else functional_class(cls))


#: What a functional model has of the functional API's tensors, which copies make anew.
_OF_TENSORS = frozenset(
    ("inputs", "outputs", "_input_tree", "_output_tree", "_calls", "_shapes", "_layers")
)


class Functional(Model):
    """A model made of tensors; see `Model`."""

    _notes_every_call = False

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        from onnxtape.functional import is_functional

        Model.__init__(self, name=name or self._default_name(), **kwargs)
        for what, tree in (("inputs", inputs), ("outputs", outputs)):
            leaves = nest.flatten(tree)
            if not leaves or not all(is_functional(x) for x in leaves):
                given = next((_described(x) for x in leaves if not is_functional(x)), "none")
                raise TypeError(
                    f"Model's {what} must be tensors that began with ot.Input, not {given}"
                )
        self._lead(inputs, outputs)

    def _lead(self, inputs: Any, outputs: Any) -> None:
        """Lead from these inputs to these outputs."""
        from onnxtape.functional import InputPlace, LayerCall, call_graph

        self.inputs: list[Tensor] = nest.flatten(inputs)
        self.outputs: list[Tensor] = nest.flatten(outputs)
        self._input_tree, self._output_tree = inputs, outputs
        # Keras takes the entries of a dict in the order of their names.
        graph = call_graph(nest.flatten_sorted(inputs), nest.flatten_sorted(outputs))
        self._calls = graph.calls
        self._shapes: dict[int, Any] = {}
        for call in graph.calls:
            if isinstance(call, LayerCall):
                made = [t.shape for t in call.outputs]
                self._shapes.setdefault(id(call.layer), made[0] if len(made) == 1 else made)
        places = {id(t._history): t for t in self.inputs}
        self._layers: list[Layer] = []
        for node in graph.nodes:
            if isinstance(node, InputPlace):
                layer = InputLayer(places[id(node)])
                self._shapes[id(layer)] = layer.output.shape
                self._layers.append(layer)
            elif isinstance(node, Layer):
                self._layers.append(node)
        self.built = True

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class made by `functional_class` is known by nobody else.
        made_of = vars(type(self)).get("made_of")
        return _bare, (type(self) if made_of is None else made_of,), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        from onnxtape.functional import is_functional

        state = super().__getstate__()
        if is_functional(state["_made_with"]):
            del state["_made_with"]
        tracked = state["_tracked"]
        state["_tracked"] = {key: x for key, x in tracked.items() if key not in _OF_TENSORS}
        specs = [spec_of_input(tensor) for tensor in self.inputs]
        calls = call_list(specs, self.inputs, self._calls, self._input_tree, self._output_tree)
        return {key: x for key, x in state.items() if key not in _OF_TENSORS} | {"_graph": calls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        graph, tracked = rest.pop("_graph"), rest.pop("_tracked")
        self.__dict__.update(rest)
        inputs, outputs = make_calls(graph)
        self._lead(inputs, outputs)
        self._tracked.update(tracked)
        self.__dict__.setdefault("_made_with", ((inputs, outputs), {"name": self.name}))

    @property
    def input_specs(self) -> Any:
        return nest.map_structure(spec_of_input, self._input_tree)

    @classmethod
    def _default_name(cls) -> str:
        return auto_name("functional" if cls is Functional else to_snake_case(cls.__name__))

    @property
    def input(self) -> Any:
        """The inputs, as they were given."""
        return self._input_tree

    @property
    def output(self) -> Any:
        """The outputs, as they were given."""
        return self._output_tree

    @property
    def output_names(self) -> list[str]:
        """The names of the layers that made the outputs."""
        return [call_name(t._history) for t in self.outputs]

    @property
    def input_shape(self) -> Any:
        return nest.map_structure(lambda t: t.shape, self._input_tree)

    @property
    def output_shape(self) -> Any:
        return nest.map_structure(lambda t: t.shape, self._output_tree)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        from onnxtape.functional import replay

        given = self._in_order(inputs)
        if mask is not None:
            for x, own in zip(given, nest.flatten(mask), strict=True):
                masks.attach(x, own)
        values = replay(self._calls, self.inputs, self.outputs, given)
        return self._packed_outputs(values)

    def get_config(self) -> dict[str, Any]:
        """The layers and how they are called, for `from_config`.

        Of a subclass whose constructor makes the tensors itself, its arguments.

        Raises:
            ValueError: two layers have one name; or a variable is used outside of layers.
        """
        from onnxtape.models.configuration import functional_config

        parameters = inspect.signature(type(self)).parameters
        takes_all = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        if "inputs" in parameters or takes_all:
            return functional_config(self)
        return super().get_config()

    def _packed_inputs(self, leaves: list[Any]) -> Any:
        return nest.pack_like(self._input_tree, leaves)

    def _packed_outputs(self, leaves: list[Any]) -> Any:
        return nest.pack_like(self._output_tree, leaves)

    def _in_order(self, inputs: Any) -> list[Any]:
        """The given inputs, one for each of the model's; those of a dict by their names."""
        if isinstance(inputs, Mapping):
            tree = self._input_tree
            names = (
                [*tree]
                if isinstance(tree, Mapping)
                else [spec_of_input(p).name for p in self.inputs]
            )
            if missing := [name for name in names if name not in inputs]:
                raise ValueError(f"model '{self.name}' was given no input {missing[0]!r}")
            inputs = [inputs[name] for name in names]
        given = nest.flatten(inputs)
        if len(given) != len(self.inputs):
            raise ValueError(
                f"model '{self.name}' takes {len(self.inputs)} inputs, but {len(given)} were given"
            )
        given = [of_rank(x, place) for x, place in zip(given, self.inputs, strict=True)]
        for value, place in zip(given, self.inputs, strict=True):
            tensor = convert_to_tensor(value)
            if not may_equal(B.shape(tensor), B.shape(place)) or _has_varied(tensor, place):
                raise other_shape(self.name, place, value)
        return given

    def _summary_rows(self) -> list[tuple[Layer, Any]]:
        return [(layer, self._shapes[id(layer)]) for layer in self._layers]


def other_shape(model: str, place: Tensor, given: Any) -> ValueError:
    """What a model says of an input that has another shape than its place."""
    wanted = format_shape(place.shape).replace("?", "None")
    return refused(
        f"model '{model}' takes {wanted} for its input '{spec_of_input(place).name}', "
        f"not {format_shape(B.shape(given))}"
    )


def of_rank(x: Any, place: Tensor) -> Any:
    """An input with or without a last axis of size 1, as the model wants it."""
    value = convert_to_tensor(x)
    given, wanted = B.rank(value), B.known_rank(place, "an input")
    if given == wanted + 1 and B.dim(value, -1) == 1:
        return masks.attach(ops.squeeze(value, -1), masks.mask_of(x))
    if given == wanted - 1 and B.dim(place, -1) == 1:
        return masks.attach(ops.expand_dims(value, -1), masks.mask_of(x))
    return x


def _has_varied(value: Tensor, place: Tensor) -> bool:
    """Whether a size that the model fixes, other than the batch's, has varied between calls of the
    step that is being traced."""
    from onnxtape.tracing import Trace

    given, wanted = B.shape(value), B.shape(place)
    if given is None or wanted is None or not isinstance(value._symbolic, Trace):
        return False
    inputs = [shape_of(x) or () for x in value._symbolic.graph.inputs]
    varied = {dim for shape in inputs for dim in shape[1:] if isinstance(dim, str)}
    pairs = zip(given[1:], wanted[1:], strict=False)
    return any(isinstance(fixed, int) and dim in varied for dim, fixed in pairs)


def spec_of_input(tensor: Tensor) -> TensorSpec:
    """The `TensorSpec` of a model's input, with the name that `ot.Input` gave it."""
    return TensorSpec(tensor.shape, tensor.dtype, getattr(tensor._history, "name", None))


def call_name(call: Any) -> str:
    """What the maker of a functional tensor is called: a layer, an input, or an operator."""
    layer = getattr(call, "layer", call)
    name: str = getattr(layer, "name", None) or to_snake_case(getattr(call, "op_type", "operation"))
    return name


class InputLayer(Layer):
    """How an input is listed among a model's layers."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(name=getattr(tensor._history, "name", None))
        self.built = True
        self.__dict__["_first_call"] = (tensor, tensor)

    def get_config(self) -> dict[str, Any]:
        """The arguments of `ot.Input`."""
        tensor = self.output
        shape = tuple(tensor.shape)
        return {"batch_shape": shape, "dtype": tensor.dtype.name, "name": self.name}
