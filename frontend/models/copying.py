"""Functional models for copies, also in other processes: their calls, with numbers for tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from onnxtape import nest
from onnxtape.functional import Call, Input
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Stands for a tensor of the functional API."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class CallList:
    """What makes a model's outputs of its inputs, without tensors of the functional API.

    Attributes:
        specs: of the inputs.
        calls: in an order in which they can run; they hold a `Place` for each tensor.
        inputs, outputs: nested as the model's.
    """

    specs: Sequence[TensorSpec]
    calls: Sequence[Call]
    inputs: Any
    outputs: Any


def call_list(
    specs: Sequence[TensorSpec],
    inputs: Sequence[Tensor],
    calls: Sequence[Call],
    input_tree: Any,
    output_tree: Any,
) -> CallList:
    """The calls of a model, to be kept."""
    made = [tensor for call in calls for tensor in call.outputs]
    places = {id(tensor): Place(i) for i, tensor in enumerate([*inputs, *made])}

    def kept(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return places.get(id(x), x if x._variable is None else x._variable)

    return CallList(
        specs,
        [_with_fields(call, kept) for call in calls],
        nest.map_structure(kept, input_tree),
        nest.map_structure(kept, output_tree),
    )


def make_calls(given: CallList) -> tuple[Any, Any]:
    """Call everything once more; returns inputs and outputs, nested as they were."""
    tensors: list[Any] = [
        Input(batch_shape=spec.shape, dtype=spec.dtype, name=spec.name) for spec in given.specs
    ]

    def found(x: Any) -> Any:
        if isinstance(x, Place):
            return tensors[x.number]
        return x.value if isinstance(x, Variable) else x

    for call in given.calls:
        tensors.extend(call.replay(found, {}))
    return nest.map_structure(found, given.inputs), nest.map_structure(found, given.outputs)


def _with_fields(call: Call, change: Callable[[Any], Any]) -> Call:
    """The call with another leaf for each in its fields."""
    fields = {field.name: getattr(call, field.name) for field in dataclasses.fields(call)}
    changed = {
        name: nest.map_structure(change, value)
        for name, value in fields.items()
        if name not in ("layer", "op_type", "attributes")
    }
    return dataclasses.replace(call, **changed)
