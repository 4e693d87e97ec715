"""Batch normalization of training, which ONNX Runtime's CUDA kernel refuses."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.gradients.normalization import count_along, inverse_std
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

    count = count_along(b, x, [0, *range(2, rank)])
    mean = b.op("Div", channel_sum(x), count)
    shifted = b.op("Sub", x, spread(mean))
    variance = b.op("Div", channel_sum(b.op("Mul", shifted, shifted)), count)
    factor = b.op("Mul", scale, inverse_std(b, variance, epsilon))
    y = b.op("Mul", shifted, spread(factor))
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
