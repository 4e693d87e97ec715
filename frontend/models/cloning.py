"""Models made again, with new weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

from onnxtape.layers.layer import Layer
from onnxtape.models.functional import Functional, InputLayer, spec_of_input
from onnxtape.models.model import Model
from onnxtape.models.sequential import Sequential


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: None = None,
    recursive: bool = False,
) -> Any:
    """A model of the same layers, which have new weights.

    Args:
        model: a Sequential or functional one. A layer that it calls twice is one layer again.
        input_tensors: must be None.
        clone_function: makes a new layer of an old one, and is not asked for inputs and models
            inside; by default `layer.from_config(layer.get_config())`.
        call_function: must be None.
        recursive: whether it also makes the layers of models inside.

    Raises:
        ValueError: another kind of model.
    """
    if input_tensors is not None or call_function is not None:
        raise ValueError("clone_model: call the clone yourself, on the tensors and as you want it")
    if not isinstance(model, (Sequential, Functional)):
        raise ValueError(
            f"clone_model takes a Sequential or functional model, not a {type(model).__name__}: "
            "make another one of its class"
        )
    from onnxtape.functional import Input, LayerCall, replay

    clones: dict[int, Layer] = {}

    def clone(layer: Layer) -> Layer:
        if id(layer) not in clones:
            if isinstance(layer, (Sequential, Functional)):
                made: Layer = clone_model(
                    layer, clone_function=clone_function if recursive else None
                )
            elif clone_function is not None:
                made = clone_function(layer)
            else:
                made = layer.from_config(layer.get_config())
            clones[id(layer)] = made
        return clones[id(layer)]

    inputs = [
        Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=spec_of_input(tensor).name)
        for tensor in model.inputs
    ]
    layers = [clone(layer) for layer in model.layers if not isinstance(layer, InputLayer)]
    if isinstance(model, Sequential):
        return Sequential([*inputs, *layers], name=model.name)
    calls = [
        dataclasses.replace(call, layer=clone(call.layer)) if isinstance(call, LayerCall) else call
        for call in model._calls
    ]
    outputs = replay(calls, model.inputs, model.outputs, inputs)
    return cast("Any", Model)(
        model._packed_inputs(inputs), model._packed_outputs(outputs), name=model.name
    )
