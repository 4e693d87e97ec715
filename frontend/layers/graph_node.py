"""Layers in the functional API: what they were called on there, and what came of it."""

from __future__ import annotations

from typing import Any

from onnxtape import nest
from onnxtape.layers.called import Called
from onnxtape.tensor import Tensor


class GraphNode(Called):
    """The part of a layer that the functional API sees."""

    name: str
    #: Input and output of the first call.
    _first_call: tuple[Any, Any] | None = None

    def _remember(self, args: Any, kwargs: Any, outputs: Any) -> Any:
        """Give functional outputs their history; one that is an input becomes another tensor."""
        from onnxtape.functional import LayerCall

        given = {id(x) for x in nest.flatten((args, kwargs))}
        outputs = nest.map_structure(
            lambda t: Tensor._from_symbol(t._symbol, t._symbolic) if id(t) in given else t, outputs
        )
        made = nest.flatten(outputs)
        history = LayerCall(self, args, kwargs, made)
        for tensor in made:
            tensor._history = history
        self._note_outputs(nest.map_structure(lambda t: t.shape, outputs))
        if self._first_call is None:
            first = args[0] if args else next(iter(kwargs.values()))
            self.__dict__["_first_call"] = (first, outputs)
        return outputs

    @property
    def input(self) -> Any:
        """What the layer was first called on in the functional API, for `Model(inputs, outputs)`.

        Raises:
            AttributeError: it has not been called there.
        """
        return self._known_call()[0]

    @property
    def output(self) -> Any:
        """What that call gave.

        Raises:
            AttributeError: it has not been called there.
        """
        return self._known_call()[1]

    def _known_call(self) -> tuple[Any, Any]:
        if self._first_call is None:
            raise AttributeError(
                f"'{self.name}' has no input and output yet: call it on an ot.Input, or begin its "
                "Sequential model with one"
            )
        return self._first_call

    def compute_output_shape(self, *shapes: Any) -> Any:
        """The outputs' shape for inputs of these shapes, batch dimension included."""
        from onnxtape.functional import Input

        call: Any = self

        def given(shape: Any) -> Any:
            nested = any(isinstance(part, (list, tuple)) for part in shape)
            return [*map(given, shape)] if nested else Input(batch_shape=shape, dtype=call.dtype)

        return nest.map_structure(lambda t: t.shape, call(*map(given, shapes)))
