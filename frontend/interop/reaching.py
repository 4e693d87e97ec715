"""Which of a graph's weights a gradient of its outputs reaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxtape.compiler import registry
from onnxtape.interop import foreign_operators, sequences
from onnxtape.interop.graph import Node

#: Inputs that carry gradients here, though ONNX's schema calls them not differentiable.
_CARRYING: dict[str, tuple[int, ...]] = {
    "AffineGrid": (0,),
    "Clip": (1, 2),
    "DFT": (0,),
    "GRU": (5,),
    "GridSample": (1,),
    "LSTM": (5, 6),
    "Mod": (1,),
    "Pad": (2,),
    "RNN": (5,),
    "STFT": (0, 1),
    "Unique": (0,),
}
#: Inputs that are measured, not trained: running statistics, scales of quantization.
_MEASURED: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "DequantizeLinear": (1,),
    "QuantizeLinear": (1,),
}


def reached_by_gradients(
    nodes: Sequence[Node], outputs: Iterable[str], constants: Iterable[str]
) -> set[str]:
    """Of the names in `constants`, those that a gradient of the outputs may reach."""
    carrying = set(outputs)
    _trace_back(nodes, carrying)
    return carrying.intersection(constants)


def _trace_back(nodes: Sequence[Node], carrying: set[str]) -> None:
    """Add to the names of values that carry gradients those that get them from there."""
    import onnx

    for node in reversed(nodes):
        if node.graphs and not carrying.isdisjoint(node.outputs):
            _trace_back_inside(node, carrying)
            continue
        if node.op_type in foreign_operators.OPERATORS:
            carrying.update(() if carrying.isdisjoint(node.outputs) else node.inputs)
            continue
        passes = node.op_type in sequences.OPERATORS or registry.lookup(node.op_type) is not None
        if carrying.isdisjoint(node.outputs) or not passes:
            continue
        formal = onnx.defs.get_schema(node.op_type).inputs
        for i, name in enumerate(node.inputs):
            category = formal[min(i, len(formal) - 1)].differentiation_category
            constant = i in _MEASURED.get(node.op_type, ()) or i in node.detached
            stops = category == onnx.defs.OpSchema.DifferentiationCategory.NonDifferentiable
            if not constant and (not stops or i in _CARRYING.get(node.op_type, ())):
                carrying.add(name)


def _trace_back_inside(node: Node, carrying: set[str]) -> None:
    """The same through a node with subgraphs, whose names are their own in the whole model."""
    # A Loop's body also takes and gives what is no state.
    first_in, first_out = (2, 1) if node.op_type == "Loop" else (0, 0)
    before = -1
    while len(carrying) > before:
        before = len(carrying)
        for graph in node.graphs.values():
            outputs = graph.outputs[first_out:]
            carrying.update(i for i, o in zip(outputs, node.outputs, strict=False) if o in carrying)
            _trace_back(graph.nodes, carrying)
            places = [i for i, name in enumerate(graph.inputs) if name in carrying]
            carrying.update(node.inputs[i] for i in places if i >= first_in)
            if node.op_type in ("Loop", "Scan"):
                # What an iteration gets, the one before it has made.
                states = len(graph.inputs) - node.attributes.get("num_scan_inputs", 0)
                carrying.update(outputs[i - first_in] for i in places if first_in <= i < states)
