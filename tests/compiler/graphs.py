"""Building, running and checking graphs; ONNX's reference evaluator is the oracle."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.inference import shape_of
from tests.compiler.reference_control_flow import CONTROL_FLOW
from tests.compiler.reference_ops import CORRECTED

Array = npt.NDArray[Any]
FLOAT64 = np.dtype(np.float64)
INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)


def new_graph(opset: int = 21) -> tuple[ir.Graph, GraphBuilder]:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="test")
    return graph, GraphBuilder(graph, opset=opset)


def input_like(b: GraphBuilder, name: str, value: ir.Value, actual: Sequence[int]) -> ir.Value:
    """A new graph input as which `value`'s shape can be fed, with what is known of that shape.

    Args:
        actual: the shape at run time. A graph input must have a rank: where the value's is unknown,
            the input is reshaped, which makes it so too.
    """
    shape = b.shape(value)
    if shape is not None:
        return b.input(name, b.dtype(value), shape)
    flat = b.input(name, b.dtype(value), tuple(f"{name}_{i}" for i in range(len(actual))))
    return b.op("Reshape", flat, b.op("Shape", value), allowzero=1)


def model_of(graph: ir.Graph) -> ir.Model:
    return ir.Model(graph, ir_version=10)


class Evaluator:
    """A graph in ONNX's reference evaluator.

    Args:
        graph: checked by `onnx.checker`, strict shape inference included.
        outputs: what calls return; default: the graph's outputs.
    """

    def __init__(self, graph: ir.Graph, outputs: Sequence[ir.Value] | None = None) -> None:
        proto = ir.to_proto(model_of(graph))
        onnx.checker.check_model(proto, full_check=True)
        self.names = [v.name or "" for v in (graph.outputs if outputs is None else outputs)]
        self._evaluator = ReferenceEvaluator(proto, new_ops=[*CORRECTED, *CONTROL_FLOW])

    def all_values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every value of the graph by name, intermediates included."""
        # NumPy warns of 0/0 and 1/0, which tests about zeros and empty tensors make on purpose.
        with np.errstate(all="ignore"):
            found: Any = self._evaluator.run(None, dict(feeds), intermediate=True)
        return dict(found)

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        found = self.all_values(feeds)
        return [np.asarray(found[name]) for name in self.names]


def run(graph: ir.Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """The graph's outputs."""
    return Evaluator(graph)(feeds)


def check_shapes(graph: ir.Graph, values: Mapping[str, Array]) -> None:
    """Every dtype and dimension that the graph declares must be what it is at run time.

    A symbol must mean one number wherever it appears, in expressions too.
    """
    symbols: dict[str, int] = {}
    everything = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    for value in everything:
        shape, actual = shape_of(value), np.asarray(values[value.name or ""])
        assert value.dtype is not None, f"{value.name} has no dtype"
        assert value.dtype.numpy() == actual.dtype, f"{value} is {actual.dtype}"
        if shape is None:
            continue
        assert len(shape) == actual.ndim, f"{value} has rank {actual.ndim}"
        for dim, size in zip(shape, actual.shape, strict=True):
            promised: Any = dim
            if isinstance(dim, str) and re.fullmatch(r"\w+", dim):
                promised = symbols.setdefault(dim, size)
            elif isinstance(dim, str):
                promised = ir.SymbolicDim(dim).evaluate(symbols)
                if isinstance(promised, ir.SymbolicDim):
                    continue  # of a symbol that is no dimension by itself
            assert promised in (None, size), f"{value} has shape {actual.shape} with {symbols}"


def spread(shape: Sequence[int], low: float = -1.9, high: float = 2.1, seed: int = 0) -> Array:
    """Evenly spread numbers in random order: none equal, none close to another."""
    size = int(np.prod(shape))
    numbers = np.linspace(low, high, size) if size > 1 else np.full(size, (low + 2 * high) / 3)
    return np.random.default_rng(seed + size).permutation(numbers).reshape(shape)
