"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from onnxtape import context, masks, nest
from onnxtape.engine import B
from onnxtape.functional import Input, InputPlace
from onnxtape.layers.layer import Layer
from onnxtape.models.configuration import input_of
from onnxtape.models.functional import InputLayer, of_rank, other_shape, spec_of_input
from onnxtape.models.model import Model
from onnxtape.saving.objects import custom_object_scope, deserialize, serialize
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor


class Sequential(Model):
    """A stack of layers.

    Args:
        layers: layers; an `ot.Input` in front builds the model at once, otherwise the first call
            does.
    """

    def __init__(
        self, layers: Sequence[Layer | Tensor] | None = None, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._stack: list[Layer] = []
        self._input: Tensor | None = None
        # Or made for what the model was called on.
        self._input_is_given = True
        for layer in layers or ():
            self.add(layer, rebuild=False)
        self._build_from_input()

    def add(self, layer: Layer | Tensor, rebuild: bool = True) -> None:
        """Put a layer on top.

        Raises:
            TypeError: not a layer.
            ValueError: an input that is not in front.
        """
        if isinstance(layer, Tensor) and isinstance(layer._history, InputPlace):
            if self._stack or self._input is not None:
                raise ValueError("an Input comes first in a Sequential model, and only once")
            self._input = layer
        elif isinstance(layer, Layer):
            self._stack = [*self._stack, layer]
            self.built = False
        else:
            raise TypeError(f"Sequential takes layers, not {type(layer).__name__}")
        if rebuild:
            self._build_from_input()

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the top layer off.

        Raises:
            ValueError: there is none.
        """
        if not self._stack:
            raise ValueError(f"Sequential '{self.name}' has no layers")
        *rest, last = self._stack
        self._stack = rest
        if rebuild:
            self._build_from_input()
        return last

    def build(self, input_shape: Any = None) -> None:
        """Build all layers for inputs of this shape; any batch size will do afterwards.

        Where the first layer takes several inputs, the call that follows builds them.
        """
        nested = any(isinstance(part, (Sequence, Mapping)) for part in input_shape or ())
        if self._input is None and input_shape is not None and not nested:
            called_on = self._input_specs
            dtype = called_on.dtype if isinstance(called_on, TensorSpec) else None
            self._input = Input(shape=input_shape[1:], dtype=dtype)
            self.__dict__["_call_specs"] = (spec_of_input(self._input),), {}
            self._input_is_given = False
        self._build_from_input()

    def _build_from_input(self) -> None:
        if self._input is None or not self._stack:
            return
        x: Any = self._input
        with ExitStack() as stack:
            # When called, the model has named its scope already.
            if context.state.layers[-1:] != [self.name]:
                stack.enter_context(context.in_layer(self.name))
            for layer in self._stack:
                layer.__dict__.pop("_first_call", None)
                x = layer(x)
        self.__dict__["_first_call"] = (self._input, x)
        self._note_outputs(x.shape if isinstance(x, Tensor) else None)
        self.built = True

    def __getstate__(self) -> dict[str, Any]:
        # As `Functional` does: the layers are called again.
        state = super().__getstate__()
        state["_input"] = None if self._input is None else spec_of_input(self._input)
        state["_made_with"] = (self._stack,), {"name": self.name}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._input is not None:
            spec = state["_input"]
            self._input = Input(batch_shape=spec.shape, dtype=spec.dtype, name=spec.name)
            self._build_from_input()

    def get_config(self) -> dict[str, Any]:
        """The layers, for `from_config`."""
        specs = [] if self._input is None else [self.input_specs]
        listed = [InputLayer(Input(batch_shape=s.shape, dtype=s.dtype, name=s.name)) for s in specs]
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize(self.dtype_policy),
            "layers": [serialize(layer) for layer in (*listed, *self._stack)],
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A model of the layers that `get_config` gave, here or in Keras, with weights of its own.

        Args:
            custom_objects: your classes by name.

        Raises:
            ValueError: a layer's class is not known.
        """
        with custom_object_scope(custom_objects):
            layers = [
                input_of(given["config"])
                if given["class_name"] == "InputLayer"
                else deserialize(given)
                for given in config["layers"]
            ]
        options = {name: config[name] for name in ("trainable", "dtype") if name in config}
        return cls(layers, name=config.get("name"), **options)

    @property
    def input_specs(self) -> Any:
        if self._input is None or not self._input_is_given:
            return super().input_specs
        return spec_of_input(self._input)

    @property
    def input_shape(self) -> Any:
        return None if self._input is None else self._input.shape

    @property
    def output_shape(self) -> Any:
        return self._output_shape

    @property
    def inputs(self) -> list[Tensor]:
        """The one input, if it is known."""
        return [] if self._input is None else [self._input]

    @property
    def outputs(self) -> list[Any]:
        """What the layers make of it."""
        return [] if self._input is None else nest.flatten(self.output)

    @property
    def layers(self) -> list[Layer]:
        return list(self._stack)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = inputs if self._input is None else self._fitting(inputs, self._input)
        if mask is not None:
            x = masks.attach(x, mask)
        for layer in self._stack:
            x = layer(x)
        return x

    def _fitting(self, inputs: Any, place: Tensor) -> Any:
        """The one input, also out of a list, with the last axis of size 1 that the model wants."""
        given = nest.flatten(inputs)
        if len(given) != 1:
            raise ValueError(
                f"model '{self.name}' takes one input, but {len(given)} were given; samples are "
                "made one array by np.stack"
            )
        x = of_rank(given[0], place)
        if self._input_is_given and B.rank(x) not in (None, B.rank(place)):
            raise other_shape(self.name, place, x)
        return x
