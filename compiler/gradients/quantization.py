"""Gradients around quantized numbers: integers carry none, their scales do."""

from __future__ import annotations

from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient, zero_gradient

B = Builder[Any]
N = Record[Any]

zero_gradient(
    "QuantizeLinear",
    "QLinearMatMul",
    "MatMulInteger",
    because="it rounds, or has integers only; ot.GradientTape(straight_through=True) passes "
    "QuantizeLinear where a DequantizeLinear follows",
)


@expansion("DynamicQuantizeLinear")
def dynamic_quantize_linear(b: B, n: N) -> list[Any]:
    """Its scale, (max(0, x) - min(0, x)) / 255; ties share the gradient."""
    x = n.required(0)
    high = b.op("Max", b.op("ReduceMax", x, keepdims=0), 0.0)
    low = b.op("Min", b.op("ReduceMin", x, keepdims=0), 0.0)
    return [None, b.op("Div", b.op("Sub", high, low), 255.0), None]


@gradient("DequantizeLinear")
def dequantize_linear(b: B, n: N, g: Any) -> list[Any]:
    """(x - zero_point) * scale is linear in the scale."""
    return [None, lambda: _by_scale(b, n, g), None]


def _by_scale(b: B, n: N, g: Any) -> Any:
    x, scale, zero_point = n.required(0), n.required(1), n.input(2)
    why = "DequantizeLinear's gradient by its scale"
    rank, scale_rank = b.known_rank(x, why), b.known_rank(scale, why)
    dtype = b.dtype(scale)
    g, offset = b.cast(g, dtype), b.cast(x, dtype)
    block = n.attribute("block_size", 0)
    if block:
        axis = n.attribute("axis", 1) % rank
        length = b.dim(x, axis)
        if isinstance(length, int) and length % block:
            raise Refusal(
                f"its axis {axis}, of size {length}, does not divide into blocks of {block}"
            )
        # (..., blocks, block, ...): each block shares a scale.
        sizes = [b.dim_tensor(scale, i) for i in range(rank)]
        sizes.insert(axis + 1, b.constant([block]))
        parts = b.op("Concat", *sizes, axis=0)
        g, offset = b.op("Reshape", g, parts), b.op("Reshape", offset, parts)
        if zero_point is not None:
            zeros = b.op("Unsqueeze", b.cast(zero_point, dtype), [axis + 1])
            offset = b.op("Sub", offset, zeros)
        return b.op("ReduceSum", b.op("Mul", g, offset), [axis + 1], keepdims=0)
    # A scale of one element is for the whole tensor, of whatever rank it is.
    per_axis = scale_rank == 1 and b.dim(scale, 0) != 1 and rank > 0
    axis = n.attribute("axis", 1) % rank if per_axis else 0
    others = [i for i in range(rank) if i != axis] if per_axis else list(range(rank))
    if zero_point is not None:
        zeros = b.cast(zero_point, dtype)
        if per_axis:
            zeros = b.op("Unsqueeze", zeros, [i for i in range(rank) if i != axis])
        offset = b.op("Sub", offset, zeros)
    product = b.op("Mul", g, offset)
    total = b.op("ReduceSum", product, others, keepdims=0) if others else product
    return b.sum_to(total, scale) if per_axis else b.reshape_like(total, scale)
