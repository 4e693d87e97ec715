"""Initializers and Constants inside the subgraphs of a model: weights like all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def subgraphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs that a node holds itself."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g


def tensors_of(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The tensors that the graph itself holds, by name: initializers, then Constants.

    A Constant that is a list of floats becomes the tensor that it stands for.
    """
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value_floats":
                    _as_tensor(attribute)
                if attribute.HasField("t"):
                    yield node.output[0], attribute.t


def _as_tensor(attribute: onnx.AttributeProto) -> None:
    import onnx

    tensor = onnx.numpy_helper.from_array(np.asarray(attribute.floats, np.float32))
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    attribute.ClearField("floats")
    attribute.t.CopyFrom(tensor)


def all_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """`tensors_of` the graph and of all subgraphs; those of the latter by names of their own.

    Such a name is the tensor's, with a number where another tensor has it already.
    """
    taken = set()
    for name, tensor in tensors_of(graph):
        taken.add(name)
        yield name, tensor
    for name, tensor in _inner_tensors(graph):
        own = _free(name, taken)
        taken.add(own)
        yield own, tensor


def _inner_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in graph.node:
        for inner in subgraphs_of(node):
            yield from tensors_of(inner)
            yield from _inner_tensors(inner)


def _free(name: str, taken: set[str]) -> str:
    own, number = name, 1
    while own in taken:
        number += 1
        own = f"{name}.{number}"
    return own


def lift_tensors(graph: onnx.GraphProto) -> None:
    """Move all tensors of subgraphs out to the graph, and give every value a name of its own.

    Tensors get the names that `all_tensors` gives them. The subgraphs then capture them.
    """
    if not any(True for node in graph.node for _ in subgraphs_of(node)):
        return
    found = list(all_tensors(graph))
    count = sum(1 for _ in tensors_of(graph))
    taken = {name for name, _ in found}
    taken.update(value.name for value in graph.input)
    taken.update(name for node in graph.node for name in node.output)
    lifting = _Lifting(iter(name for name, _ in found[count:]), taken)
    for node in graph.node:
        for inner in subgraphs_of(node):
            lifting.lift(inner, {})
    graph.initializer.extend(lifting.lifted)
    for node in reversed(lifting.constants):
        graph.node.insert(0, node)


class _Lifting:
    """Walks through subgraphs in the order of `all_tensors`."""

    def __init__(self, names: Iterator[str], taken: set[str]) -> None:
        self._names, self._taken = names, taken
        self.lifted: list[onnx.TensorProto] = []
        self.constants: list[onnx.NodeProto] = []

    def lift(self, graph: onnx.GraphProto, around: Mapping[str, str]) -> None:
        names = dict(around)
        for name, tensor in tensors_of(graph):
            names[name] = tensor.name = next(self._names)
        self.lifted.extend(graph.initializer)
        del graph.initializer[:]
        for node in [n for n in graph.node if n.op_type == "Constant" and n.output[0] in names]:
            graph.node.remove(node)
            node.output[0] = names[node.output[0]]
            self.constants.append(node)
        for value in graph.input:
            own = names[value.name] = self._own(value.name)
            value.name = own
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            for inner in subgraphs_of(node):
                self.lift(inner, names)
            for i, name in enumerate(node.output):
                if name:
                    node.output[i] = names[name] = self._own(name)
        for value in graph.output:
            value.name = names.get(value.name, value.name)

    def _own(self, name: str) -> str:
        own = _free(name, self._taken)
        self._taken.add(own)
        return own
