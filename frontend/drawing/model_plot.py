"""`ot.plot_model`: the layers of a model and what flows between them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onnxtape.compiler.dims import format_shape
from onnxtape.drawing.layout import Layout, place
from onnxtape.drawing.svg import (
    BLUE,
    GREEN,
    GREY,
    MARGIN,
    PADDING,
    ROW,
    Box,
    Colours,
    Drawing,
    Point,
    arrow,
    document,
    frame,
    save,
)
from onnxtape.layers.layer import Layer
from onnxtape.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Options:
    """What `plot_model` was asked to show."""

    shapes: bool
    dtypes: bool
    names: bool
    activations: bool
    trainable: bool
    nested: bool
    sideways: bool


def plot_model(
    model: Any,
    to_file: str | os.PathLike[str] | None = "model.svg",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: Literal["TB", "LR"] = "TB",
    expand_nested: bool = False,
    *,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
) -> Drawing:
    """Draw a model as SVG.

    A functional model is drawn call by call, so that a shared layer stands wherever it is used; a
    Sequential one as a chain; one with a `call` of its own as a list of its layers.

    Args:
        model: a model; of one that is not built yet, no shapes are known.
        to_file: an ".svg" file, or None to write none.
        show_shapes, show_dtype: of what goes in and comes out.
        show_layer_names: besides the layers' types.
        rankdir: "TB" from top to bottom, "LR" from left to right.
        expand_nested: draw models in the model as frames around their layers.
        show_layer_activations, show_trainable: of layers that have them.

    Returns:
        The SVG's text; notebooks show it as the picture.

    Raises:
        TypeError: not a model.
        ValueError: another `rankdir`, or a file that is no ".svg".
    """
    from onnxtape.models import Model

    if not isinstance(model, Model):
        raise TypeError(f"plot_model draws models, not {type(model).__name__}")
    if rankdir not in ("TB", "LR"):
        raise ValueError(f"rankdir is 'TB' or 'LR', not {rankdir!r}")
    options = Options(
        show_shapes,
        show_dtype,
        show_layer_names,
        show_layer_activations,
        show_trainable,
        expand_nested,
        rankdir == "LR",
    )
    part = _graph_of(model, options).laid_out(options)
    elements: list[str] = []
    part.draw(MARGIN, MARGIN, options, elements)
    drawing = document(elements, part.width + 2 * MARGIN, part.height + 2 * MARGIN)
    return save(drawing, to_file, "plot_model")


@dataclass(slots=True)
class Graph:
    """Boxes, and frames around other graphs, with arrows between them.

    Attributes:
        nodes: in a topological order.
        edges: by the nodes' numbers.
        layout: their places, once they are laid out.
    """

    nodes: list[Box | Frame] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    layout: Layout | None = None
    width: float = 0.0
    height: float = 0.0

    def add(self, node: Box | Frame) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def laid_out(self, options: Options) -> Graph:
        """Find the places of all nodes, inner ones first."""
        for node in self.nodes:
            if isinstance(node, Frame):
                node.resize(options)
        sizes = {i: (node.width, node.height) for i, node in enumerate(self.nodes)}
        if options.sideways:
            sizes = {i: (height, width) for i, (width, height) in sizes.items()}
        edges = list(dict.fromkeys(self.edges))
        self.edges = edges
        self.layout = place(sizes, edges)
        self.width, self.height = self.layout.width, self.layout.height
        if options.sideways:
            self.width, self.height = self.height, self.width
        return self

    def draw(self, x: float, y: float, options: Options, to: list[str]) -> None:
        """Append the elements, with the upper left corner at (x, y)."""
        assert self.layout is not None

        def moved(point: Point) -> Point:
            across, along = point
            return (x + along, y + across) if options.sideways else (x + across, y + along)

        for i, node in enumerate(self.nodes):
            cx, cy = moved(self.layout.centres[i])
            node.x, node.y = cx - node.width / 2, cy - node.height / 2
        for (source, target), route in zip(self.edges, self.layout.routes, strict=True):
            points = [self._exit(source, options), *map(moved, route), self._entry(target, options)]
            to.append(arrow(points, vertical=not options.sideways))
        for node in self.nodes:
            if isinstance(node, Frame):
                node.draw(options, to)
            else:
                node.write(to)

    def _exit(self, index: int, options: Options) -> Point:
        node = self.nodes[index]
        if options.sideways:
            return node.x + node.width, node.y + node.height / 2
        return node.x + node.width / 2, node.y + node.height

    def _entry(self, index: int, options: Options) -> Point:
        node = self.nodes[index]
        if options.sideways:
            return node.x, node.y + node.height / 2
        return node.x + node.width / 2, node.y


@dataclass(slots=True)
class Frame:
    """A model in a model, drawn as a frame around its own graph."""

    title: str
    graph: Graph
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    def resize(self, options: Options) -> None:
        """Lay out what is inside."""
        self.graph.laid_out(options)
        self.width = max(self.graph.width, 8.0 * len(self.title)) + 2 * PADDING
        self.height = self.graph.height + ROW + 3 * PADDING

    def draw(self, options: Options, to: list[str]) -> None:
        to.extend(frame(self.x, self.y, self.width, self.height, self.title))
        inside = self.x + (self.width - self.graph.width) / 2
        self.graph.draw(inside, self.y + ROW + 1.5 * PADDING, options, to)


def _graph_of(model: Any, options: Options) -> Graph:
    from onnxtape.models import Sequential
    from onnxtape.models.functional import Functional

    if isinstance(model, Functional):
        return _functional(model, options)
    if isinstance(model, Sequential):
        return _sequential(model, options)
    graph = Graph()
    for layer in model.layers:
        graph.add(_node(layer, None, getattr(layer, "_output_shape", None), options))
    if not graph.nodes:
        graph.add(_node(model, None, None, options))
    return graph


def _functional(model: Any, options: Options) -> Graph:
    from onnxtape.functional import LayerCall

    graph = Graph()
    made: dict[int, int] = {}
    for tensor in model.inputs:
        name = getattr(tensor._history, "name", "input")
        made[id(tensor)] = graph.add(_input(name, tensor, options))
    for call in model._calls:
        if isinstance(call, LayerCall):
            index = graph.add(_node(call.layer, call.inputs, call.outputs, options))
        else:
            title = getattr(call, "op_type", "StopGradient")
            rows = _flow(call.inputs, call.outputs, options)
            index = graph.add(Box(title, rows, GREY, "an operation of ops"))
        graph.edges.extend((made[id(t)], index) for t in call.inputs if id(t) in made)
        made.update({id(t): index for t in call.outputs})
    return graph


def _sequential(model: Any, options: Options) -> Graph:
    graph = Graph()
    before: Any = None
    first = getattr(model, "_input", None)
    if first is not None:
        graph.add(_input(getattr(first._history, "name", "input"), first, options))
        before = [first]
    for layer in model.layers:
        after = layer._output_shape
        index = graph.add(_node(layer, before, after, options))
        before = after
        if index:
            graph.edges.append((index - 1, index))
    return graph


def _input(name: str, tensor: Tensor, options: Options) -> Box:
    rows = [_described([tensor], options)] if options.shapes or options.dtypes else []
    return Box(f"{name} (Input)" if options.names else "Input", rows, GREEN)


def _node(layer: Layer, inputs: Any, outputs: Any, options: Options) -> Box | Frame:
    """A layer's box; or a frame around a model's."""
    from onnxtape.models import Model

    kind = type(layer).__name__
    title = f"{layer.name} ({kind})" if options.names else kind
    if options.nested and isinstance(layer, Model) and layer.layers:
        return Frame(title, _graph_of(layer, options))
    rows = _flow(inputs, outputs, options)
    activation = getattr(layer, "activation", None)
    if options.activations and activation is not None:
        rows.append(f"activation: {getattr(activation, '__name__', type(activation).__name__)}")
    if options.trainable and layer.built and layer.weights:
        rows.append("trainable" if layer.trainable_weights else "frozen")
    count = f"{layer.count_params():,} parameters" if layer.built else "not built yet"
    colours: Colours = BLUE if not layer.built or layer.weights else GREY
    return Box(title, rows, colours, f"{title}: {count}")


def _flow(inputs: Any, outputs: Any, options: Options) -> list[str]:
    """Rows that say what goes in and what comes out."""
    if not options.shapes and not options.dtypes:
        return []
    rows = []
    for what, given in (("in", inputs), ("out", outputs)):
        if given is not None and (text := _described(given, options)):
            rows.append(f"{what}: {text}")
    return rows


def _described(given: Any, options: Options) -> str:
    """Shapes and dtypes of tensors, or of one shape."""
    if isinstance(given, tuple) and not any(isinstance(part, tuple) for part in given):
        return _shape(given) if options.shapes else ""
    texts = []
    for part in given.values() if isinstance(given, Mapping) else given:
        if not isinstance(part, Tensor):
            if options.shapes and part is not None:
                texts.append(_shape(part))
            continue
        shape = _shape(part.shape) if options.shapes else ""
        dtype = str(part.dtype) if options.dtypes else ""
        texts.append(" ".join(text for text in (shape, dtype) if text))
    counts = Counter(texts)
    return ", ".join(f"{n} times {text}" if n > 1 else text for text, n in counts.items())


def _shape(shape: Any) -> str:
    return format_shape(tuple(shape)).replace("?", "None")
