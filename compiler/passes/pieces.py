"""Blocks of memory, and the nodes that update them piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes.scaled_sums import fuse_scaled_sums

#: Variables begin at multiples of so many elements, 64 bytes.
ALIGNMENT = 16


@dataclass(frozen=True)
class Block:
    """A block of float32 memory, and what the graphs see of it.

    Attributes:
        size: its number of elements.
        members: state inputs, each with the element it begins at. They need not be inputs of the
            graph any more.
        results: outputs that are written there, each with the element it begins at and its shape.
        inputs: inputs of the graph, or of a share, that are slices of the block, as one row: name,
            first element, end.
        outputs: such outputs.
        pairs: such inputs as two rows.
    """

    size: int
    members: dict[str, int] = field(default_factory=dict)
    results: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    inputs: list[tuple[str, int, int]] = field(default_factory=list)
    outputs: list[tuple[str, int, int]] = field(default_factory=list)
    pairs: list[tuple[str, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Update:
    """An update of blocks.

    Attributes:
        name: names of what is made for it begin so.
        template: its nodes as a graph, whose inputs are the blocks and then the numbers.
        blocks: the state and, after it, the other arrays.
    """

    name: str
    template: ir.Graph
    blocks: Sequence[Block]

    @property
    def size(self) -> int:
        """The number of elements in each of the blocks."""
        return self.blocks[0].size

    def piece(
        self, graph: ir.Graph, number: int, place: tuple[int, int], numbers: Sequence[ir.Value]
    ) -> list[ir.Node]:
        """Nodes that update the elements of a place, whose slices become the graph's own inputs and
        outputs."""
        begin, end = place
        shape = ir.Shape([1, end - begin])
        values: dict[int, ir.Value] = {}
        for role, (block, inner) in enumerate(zip(self.blocks, self.template.inputs, strict=False)):
            view = ir.Value(name=f"{self.name}.{role}.{number}", shape=shape, type=inner.type)
            values[id(inner)] = view
            graph.inputs.append(view)
            block.inputs.append((view.name or "", begin, end))
        for inner, scalar in zip(self.template.inputs[len(self.blocks) :], numbers, strict=True):
            values[id(inner)] = scalar
        nodes = []
        for i, node in enumerate(self.template):
            made = repeated(node, values)
            made.name = f"{self.name}.node{i}.{number}"
            made.outputs[0].name = f"{self.name}.value{i}.{number}"
            made.outputs[0].shape = shape
            nodes.append(made)
        for block, inner in zip(self.blocks, self.template.outputs, strict=False):
            graph.outputs.append(values[id(inner)])
            block.outputs.append((values[id(inner)].name or "", begin, end))
        return nodes


def places(size: int, least: int, most: int) -> list[tuple[int, int]]:
    """Cut `size` elements into at most `most` pieces of at least `least`: their begins and ends."""
    count = max(1, min(size // least, most))
    step = -(-size // (count * ALIGNMENT)) * ALIGNMENT
    return [(begin, min(begin + step, size)) for begin in range(0, size, step)]


def repeated(node: ir.Node, values: dict[int, ir.Value]) -> ir.Node:
    """The same operation on `values`, by the ids of those that it has now; extends `values`."""
    used = [None if v is None else values[id(v)] for v in node.inputs]
    attributes, metadata = node.attributes.values(), dict(node.metadata_props)
    made = ir.Node(node.domain, node.op_type, used, attributes, metadata_props=metadata)
    (output,) = node.outputs
    made.outputs[0].shape, made.outputs[0].type = output.shape, output.type
    values[id(output)] = made.outputs[0]
    return made


def as_output(graph: ir.Graph, value: ir.Value, name: str = "") -> ir.Value:
    """The value as an output of the graph that is written nowhere else.

    Args:
        name: of the copy, if one has to be made.
    """
    if value.is_graph_output() or value.producer() is None:
        name = name or f"{value.name}.copy"
        node = ir.Node("", "Identity", [value], name=f"{name}_node")
        copy = node.outputs[0]
        copy.name, copy.shape, copy.type = name, value.shape, value.type
        graph.append(node)
        value = copy
    graph.outputs.append(value)
    return value


class Shares:
    """Graphs that each run some of the pieces of updates, all at the same time.

    Args:
        model: the step's graph, which runs before them.
        count: how many there are.
    """

    def __init__(self, model: ir.Model, count: int) -> None:
        self._graph = model.graph
        opsets = {"": model.graph.opset_imports.get("", 21)}
        self._models = [
            ir.Model(
                ir.Graph([], [], nodes=[], opset_imports=opsets, name=f"share{k}"),
                ir_version=model.ir_version,
            )
            for k in range(count)
        ]

    @property
    def models(self) -> list[ir.Model]:
        """Those that have anything to do."""
        return [model for model in self._models if len(model.graph)]

    def add(
        self, update: Update, cuts: Sequence[tuple[int, int]], numbers: Sequence[ir.Value]
    ) -> Block | None:
        """Divide an update among the shares.

        Args:
            cuts: its pieces.
            numbers: what its nodes read of the step's graph besides the blocks.

        Returns:
            The block through which the step's graph hands over the numbers; None if it cannot,
            and nothing has been divided.
        """
        if not all(n.is_initializer() or n.dtype == ir.DataType.FLOAT for n in numbers):
            return None
        states = len(update.template.outputs)
        negated = fuse_scaled_sums(update.template, states, len(update.blocks) - states)
        numbers = [*numbers, *(_negative(self._graph, numbers[i]) for i in negated)]
        first = len(update.blocks)
        for i in reversed(range(len(numbers))):
            if not update.template.inputs[first + i].uses():
                del update.template.inputs[first + i], numbers[i]
        block = Block(ALIGNMENT * len(numbers))
        names = [f"{update.name}.number{i}" for i in range(len(numbers))]
        for i, (name, number) in enumerate(zip(names, numbers, strict=True)):
            if not number.is_initializer():
                result = as_output(self._graph, number, f"{name}.copy")
                shape = shape_of(number)
                assert is_static(shape)
                block.results[result.name or ""] = (i * ALIGNMENT, shape)
                block.inputs.append((name, i * ALIGNMENT, i * ALIGNMENT + 1))
        for k, model in enumerate(self._models):
            begin, end = (len(cuts) * n // len(self._models) for n in (k, k + 1))
            if begin < end:
                own = [_number(model.graph, *pair) for pair in zip(names, numbers, strict=True)]
                for piece in range(begin, end):
                    nodes = update.piece(model.graph, piece, cuts[piece], own)
                    model.graph.extend(nodes)
        return block


def constant(name: str, array: npt.NDArray[Any]) -> ir.Value:
    """An initializer, which is not yet part of a graph."""
    tensor = ir.tensor(array, name=name)
    shape, kind = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
    return ir.Value(name=name, shape=shape, type=kind, const_value=tensor)


def _negative(graph: ir.Graph, number: ir.Value) -> ir.Value:
    """Minus the number: a constant, or a node at the graph's end."""
    name = f"{number.name}.negative"
    if number.const_value is not None and number.is_initializer():
        return graph.initializers.setdefault(name, constant(name, -number.const_value.numpy()))
    found = [use.node for use in number.uses() if use.node.name == name]
    if found:
        return found[0].outputs[0]
    node = ir.Node("", "Neg", [number], name=name)
    node.outputs[0].name, node.outputs[0].shape = name, number.shape
    node.outputs[0].type = number.type
    graph.append(node)
    return node.outputs[0]


def _number(graph: ir.Graph, name: str, number: ir.Value) -> ir.Value:
    """What a share has in the place of a number of the step's graph, constant or not."""
    if number.const_value is not None and number.is_initializer():
        value = constant(name, number.const_value.numpy().reshape(1, 1))
        graph.register_initializer(value)
    else:
        value = ir.Value(name=name, shape=ir.Shape([1, 1]), type=number.type)
        graph.inputs.append(value)
    return value
