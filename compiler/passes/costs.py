"""What operators cost, by estimate: bytes, floating-point operations, seconds."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies
from onnxtape.compiler.subgraphs import graphs_in

#: What stands in for a size that is known only at run time.
_TYPICAL_SIZE = 64
#: One thread of a recent processor, on arrays in its cache.
_FLOPS_PER_SECOND, _BYTES_PER_SECOND, _SECONDS_PER_NODE = 1e11, 5e10, 1e-6
#: Operators whose work their operands' sizes do not tell.
_UNKNOWN = frozenset(("Attention", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"))


def byte_count(value: ir.Value) -> int:
    """How many bytes a value takes."""
    shape = shape_of(value)
    if shape is None or value.dtype is None:
        return 0
    count = math.prod(d if isinstance(d, int) else _TYPICAL_SIZE for d in shape)
    return int(count * value.dtype.itemsize)


def flop_count(node: ir.Node) -> float:
    """Of matrix products and convolutions; other operators are counted by their bytes."""
    if not applies(node, "MatMul", "Gemm", "Conv", "ConvTranspose"):
        return 0
    sizes: list[Any] = [None if x is None else byte_count(x) // 4 for x in node.inputs[:2]]
    out = byte_count(node.outputs[0]) // 4
    if applies(node, "Conv", "ConvTranspose"):
        kernel = node.inputs[1]
        shape = None if kernel is None else shape_of(kernel)
        inner = math.prod(d for d in (shape or ())[1:] if isinstance(d, int))
        return 2.0 * inner * (out if applies(node, "Conv") else sizes[0])
    # (m, k) by (k, n): the product of the three sizes is (m k n) squared.
    return 2.0 * math.sqrt(float(sizes[0]) * float(sizes[1]) * float(out))


def estimated_seconds(graph: ir.Graph) -> float:
    """What one thread needs for a graph; infinite where sizes or operators do not tell."""
    total = 0.0
    for node in graph:
        values = [x for x in (*node.inputs, *node.outputs) if x is not None]
        static = all(is_static(shape_of(value)) for value in values)
        if not static or node.op_type in _UNKNOWN or graphs_in(node):
            return math.inf
        moved = sum(byte_count(value) for value in values)
        total += flop_count(node) / _FLOPS_PER_SECOND + moved / _BYTES_PER_SECOND
        total += _SECONDS_PER_NODE
    return total
