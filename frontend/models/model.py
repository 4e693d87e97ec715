"""Model: a layer that can be summarized, from tensors (functional) or from a subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, cast

from onnxtape import nest
from onnxtape.layers.layer import Layer
from onnxtape.models.summary import print_summary
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor


class Model(Layer):
    """A model.

    `Model(inputs, outputs)` makes a functional one of tensors that began with `ot.Input`. Subclasses
    write `__init__` and `call(inputs, training=False)` instead.

    Args:
        inputs: a tensor, or a nested structure of them.
        outputs: what is computed from them.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is Model and (args or "inputs" in kwargs):
            return cast("Self", super().__new__(Functional))
        return super().__new__(cls)

    def summary(self, print_fn: Callable[[str], None] | None = None) -> None:
        """Print a table of the layers, their output shapes and parameters.

        Args:
            print_fn: takes the text, instead of the terminal.
        """
        print_summary(self, print_fn)

    @property
    def input_specs(self) -> Any:
        """A `TensorSpec` per input, in the structure that a call takes.

        Raises:
            ValueError: the model has not been called yet.
        """
        if self._input_specs is None:
            raise ValueError(
                f"the inputs of model '{self.name}' are not known yet: call it on data first"
            )
        return self._input_specs

    @property
    def layers(self) -> list[Layer]:
        """The layers directly below the model."""
        return [part for part in self._parts() if isinstance(part, Layer)]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by its name or index.

        Raises:
            ValueError: there is no such layer.
        """
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"model '{self.name}' has {len(layers)} layers, none at {index}")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"model '{self.name}' has no layer named {name!r}; "
            f"it has {', '.join(layer.name for layer in layers)}"
        )

    def _summary_rows(self) -> list[tuple[Layer, Any]]:
        """The layers to list, with their output shapes (None where they are not known)."""
        return [(layer, layer._output_shape) for layer in self.layers]


class Functional(Model):
    """A model made of tensors; see `Model`."""

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        from onnxtape.functional import LayerCall, calls_between, is_functional
        from onnxtape.naming import auto_name

        super().__init__(name=name or auto_name("functional"), **kwargs)
        for what, tree in (("inputs", inputs), ("outputs", outputs)):
            leaves = nest.flatten(tree)
            if not leaves or not all(is_functional(x) for x in leaves):
                raise TypeError(
                    f"Model's {what} must be tensors that began with ot.Input, not {tree!r}"
                )
        self.inputs: list[Tensor] = nest.flatten(inputs)
        self.outputs: list[Tensor] = nest.flatten(outputs)
        self._input_tree, self._output_tree = inputs, outputs
        self._calls = calls_between(self.inputs, self.outputs)
        layers: dict[int, Layer] = {}
        shapes: dict[int, Any] = {}
        for call in self._calls:
            if isinstance(call, LayerCall):
                layers.setdefault(id(call.layer), call.layer)
                made = [t.shape for t in call.outputs]
                shapes.setdefault(id(call.layer), made[0] if len(made) == 1 else made)
        self._layers = list(layers.values())
        self._shapes = shapes
        self.built = True

    @property
    def input_specs(self) -> Any:
        return nest.map_structure(spec_of_input, self._input_tree)

    @property
    def input_shape(self) -> Any:
        return nest.map_structure(lambda t: t.shape, self._input_tree)

    @property
    def output_shape(self) -> Any:
        return nest.map_structure(lambda t: t.shape, self._output_tree)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        from onnxtape.functional import replay

        given = nest.flatten(inputs)
        if len(given) != len(self.inputs):
            raise ValueError(
                f"model '{self.name}' takes {len(self.inputs)} inputs, but {len(given)} were given"
            )
        values = replay(self._calls, self.inputs, self.outputs, given)
        return nest.pack_like(self._output_tree, values)

    def _summary_rows(self) -> list[tuple[Layer, Any]]:
        from onnxtape.functional import InputPlace

        inputs = [
            (InputLayer(t._history.name), t.shape)
            for t in self.inputs
            if isinstance(t._history, InputPlace)
        ]
        return [*inputs, *((layer, self._shapes[id(layer)]) for layer in self._layers)]


def spec_of_input(tensor: Tensor) -> TensorSpec:
    """The `TensorSpec` of a tensor made by `ot.Input`."""
    return TensorSpec(tensor.shape, tensor.dtype, tensor._history.name)


class InputLayer(Layer):
    """How an input is listed in a summary."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.built = True
