"""Batch normalization of training, which ONNX Runtime's CUDA kernel refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

_FLOAT32 = np.dtype(np.float32)


@lowering("BatchNormalization")
def batch_normalization(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """By its formula, in float32 at least, in the words of its gradient rule, so that what both
    compute is computed once.

    ONNX Runtime refuses "training mode" since opset 14; of inference it has a kernel.
    """
    if not n.attribute("training_mode", 0):
        return None
    given = n.required(0)
    rank = b.known_rank(given, "BatchNormalization on CUDA")
    dtype = np.promote_types(b.dtype(given), _FLOAT32) if b.dtype(given).kind == "f" else _FLOAT32
    x, scale, bias, old_mean, old_variance = (b.cast(n.required(i), dtype) for i in range(5))
    momentum = n.attribute("momentum", 0.9)
    epsilon = n.attribute("epsilon", 1e-5)

    def spread(vector: Any) -> Any:
        return b.op("Unsqueeze", vector, list(range(1, rank - 1))) if rank > 2 else vector

    def channel_sum(values: Any) -> Any:
        # CUDA adds up the last axes, or the first ones, in fast kernels of its own.
        if rank > 2:
            values = b.op("ReduceSum", values, list(range(2, rank)), keepdims=0)
        return b.op("ReduceSum", values, [0], keepdims=0)

    count = _count(b, x, [0, *range(2, rank)])
    mean = b.op("Div", channel_sum(x), count)
    shifted = b.op("Sub", x, spread(mean))
    variance = b.op("Div", channel_sum(b.op("Mul", shifted, shifted)), count)
    inverse = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, epsilon)))
    y = b.op("Mul", shifted, spread(b.op("Mul", scale, inverse)))
    y = b.op("Add", y, spread(bias))

    def running(old: Any, new: Any) -> Any:
        if momentum == 0.0:
            return new
        kept = b.op("Mul", old, momentum)
        return b.op("Add", kept, b.op("Mul", new, 1.0 - momentum))

    statistics = (running(old_mean, mean), running(old_variance, variance))
    given_in = b.dtype(n.required(3))
    values = [b.cast(y, b.dtype(given)), *(b.cast(s, given_in) for s in statistics)]
    return values[: len(n.outputs)]


def _count(b: Builder[Any], x: Any, axes: list[int]) -> Any:
    shape = b.shape(x)
    sizes = [None if shape is None else shape[axis] for axis in axes]
    if all(isinstance(size, int) for size in sizes):
        return float(math.prod(int(size) for size in sizes if size is not None))
    chosen = b.op("Gather", b.op("Shape", x), axes, axis=0)
    return b.cast(b.op("ReduceProd", chosen, keepdims=0), b.dtype(x))
