"""Functional models as configurations, in Keras's layout, and back.

Each layer is listed with its calls (`inbound_nodes`), in which a tensor is named by the layer that
made it, which of its calls that was, and which of the call's outputs it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape import nest
from onnxtape.saving.objects import deserialize, is_configuration, serialize
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

if TYPE_CHECKING:
    from onnxtape.models.functional import Functional

Place = tuple[str, int, int]


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model of what `model.to_json()` gave, with weights of its own.

    Args:
        custom_objects: your classes by name.

    Raises:
        ValueError: a class is not known.
    """
    return deserialize(json.loads(json_string), custom_objects)


def functional_config(model: Functional) -> dict[str, Any]:
    """The configuration of a functional model.

    Raises:
        ValueError: two layers have one name; or a variable is used outside of layers.
    """
    from onnxtape.functional import LayerCall, OperatorCall

    places: dict[int, Place] = {}
    listed: dict[str, dict[str, Any]] = {}
    names: dict[int, str] = {}

    def entry(key: int, name: str, class_name: str, config: Any, module: str) -> dict[str, Any]:
        if key not in names:
            if name in listed:
                raise ValueError(
                    f"model '{model.name}' has two layers named '{name}': give them names of their "
                    "own"
                )
            names[key] = name
            listed[name] = {
                "module": module,
                "class_name": class_name,
                "config": config,
                "name": name,
                "inbound_nodes": [],
            }
        return listed[names[key]]

    for i, tensor in enumerate(model.inputs):
        name = getattr(tensor._history, "name", None) or f"{model.name}_input_{i}"
        config = {"batch_shape": tuple(tensor.shape), "dtype": tensor.dtype.name, "name": name}
        entry(id(tensor), name, "InputLayer", config, "onnxtape.layers")
        places[id(tensor)] = (name, 0, 0)
    for i, call in enumerate(model._calls):
        node: dict[str, Any]
        op_type: str
        operands: Sequence[Any]
        attributes: Mapping[str, Any]
        if isinstance(call, LayerCall):
            made = serialize(call.layer)
            owner = entry(
                id(call.layer), call.layer.name, made["class_name"], made["config"], made["module"]
            )
            node = {"args": call.args, "kwargs": call.kwargs}
        else:
            op_type, operands, attributes = "StopGradient", call.inputs, {}
            if isinstance(call, OperatorCall):
                op_type, operands, attributes = call.op_type, call.operands, call.attributes
            config = {
                "op_type": op_type,
                "attributes": _packed(attributes, places),
                "outputs": len(call.outputs),
            }
            owner = entry(
                id(call), f"{op_type.lower()}_{i}", "Operator", config, "onnxtape.functional"
            )
            node = {"args": operands, "kwargs": {}}
        for k, tensor in enumerate(call.outputs):
            places[id(tensor)] = (owner["name"], len(owner["inbound_nodes"]), k)
        owner["inbound_nodes"].append(_packed(node, places))
    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": list(listed.values()),
        "input_layers": nest.map_structure(lambda t: list(places[id(t)]), model._input_tree),
        "output_layers": nest.map_structure(lambda t: list(places[id(t)]), model._output_tree),
    }


def from_functional_config(config: Mapping[str, Any], make: Callable[..., Any]) -> Any:
    """The model that `functional_config` described, with weights of its own.

    Args:
        make: called with inputs, outputs and a name.

    Raises:
        ValueError: a layer's class is not known; or the calls do not fit together.
    """
    known: dict[Place, Any] = {}
    layers: dict[str, Any] = {}
    waiting: list[tuple[str, int, Any]] = []
    for listed in config["layers"]:
        name, own = listed["name"], listed["config"]
        if listed["class_name"] == "InputLayer":
            known[name, 0, 0] = input_of(own)
            continue
        operator = listed["class_name"] == "Operator"
        layers[name] = _operator(own) if operator else deserialize(listed)
        waiting += [(name, i, node) for i, node in enumerate(listed["inbound_nodes"])]
    while waiting:
        later = []
        for name, i, node in waiting:
            try:
                args, kwargs = _unpacked((node["args"], node["kwargs"]), known)
            except _NotYet:
                later.append((name, i, node))
                continue
            made = nest.flatten(layers[name](*args, **kwargs))
            known |= {(name, i, k): tensor for k, tensor in enumerate(made)}
        if len(later) == len(waiting):
            raise ValueError(f"the inputs of layer '{later[0][0]}' are made by no layer")
        waiting = later
    model = make(
        _tensors(config["input_layers"], known),
        _tensors(config["output_layers"], known),
        name=config.get("name"),
    )
    if not config.get("trainable", True):
        model.trainable = False
    return model


def input_of(config: Mapping[str, Any]) -> Tensor:
    """An `ot.Input` of its configuration, here or in Keras."""
    from onnxtape.functional import Input

    shape = tuple(config["batch_shape"])
    return Input(batch_shape=shape, dtype=config["dtype"], name=config["name"])


def _operator(config: Mapping[str, Any]) -> Callable[..., Any]:
    """An operation outside any layer."""
    from onnxtape import ops
    from onnxtape.engine import emit

    if config["op_type"] == "StopGradient":
        return ops.stop_gradient
    attributes = _unpacked(config["attributes"], {})
    return lambda *operands: emit(
        config["op_type"], list(operands), attributes, int(config["outputs"])
    )


class _NotYet(Exception):
    """A tensor has not been made yet."""


def _packed(x: Any, places: Mapping[int, Place]) -> Any:
    """Arguments with tensors as dicts."""
    if isinstance(x, Mapping):
        return {key: _packed(value, places) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_packed(value, places) for value in x]
    if isinstance(x, Tensor) and id(x) in places:
        history = list(places[id(x)])
        config = {"shape": tuple(x.shape), "dtype": x.dtype.name, "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(x, Variable) or (isinstance(x, Tensor) and x._variable is not None):
        raise ValueError(
            "a model that reads a variable outside of layers has no configuration: make the "
            "variable a weight of a layer, with add_weight"
        )
    if isinstance(x, (Tensor, np.ndarray, np.generic)):
        array = np.asarray(x)
        return {
            "class_name": "__numpy__",
            "config": {"value": array.tolist(), "dtype": array.dtype.name},
        }
    return serialize(x)


def _unpacked(x: Any, known: Mapping[Place, Any]) -> Any:
    if is_configuration(x):
        config = x["config"]
        if x["class_name"] == "__keras_tensor__":
            place = tuple(config["keras_history"])
            if place not in known:
                raise _NotYet
            return known[place]
        if x["class_name"] == "__numpy__":
            from onnxtape.engine import convert_to_tensor

            return convert_to_tensor(np.asarray(config["value"]), config["dtype"])
        return deserialize(x)
    if isinstance(x, Mapping):
        return {key: _unpacked(value, known) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_unpacked(value, known) for value in x]
    return x


def _tensors(tree: Any, known: Mapping[Place, Any]) -> Any:
    """A model's inputs or outputs, which are named by their places."""
    if isinstance(tree, Mapping):
        return {key: _tensors(part, known) for key, part in tree.items()}
    if len(tree) == 3 and isinstance(tree[0], str):
        name, node, index = tree
        return known[name, node, index]
    return [_tensors(part, known) for part in tree]
