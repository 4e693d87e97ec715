"""Operators that ONNX's reference evaluator lacks in part or computes wrongly, in NumPy.

Each says what is wrong with the original. The rest of the evaluator is the oracle as it comes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from tests.compiler import (
    reference_convolution,
    reference_images,
    reference_normalization,
    reference_pooling,
    reference_recurrent,
)


class Erf(OpRun):
    """The original rounds to float32, too coarse for central differences."""

    def _run(self, x: Any) -> Any:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Gelu(OpRun):
    """The original is made of the original Erf."""

    def _run(self, x: Any, approximate: str = "none") -> Any:
        if approximate == "tanh":
            inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
            return (np.asarray(0.5 * x * (1 + np.tanh(inner)), x.dtype),)
        erf = np.vectorize(math.erf, otypes=[x.dtype])
        return (np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))), x.dtype),)


class Mean(OpRun):
    """The original adds into the first operand and so does not broadcast it."""

    def _run(self, *operands: Any) -> Any:
        total = operands[0]
        for x in operands[1:]:
            total = total + x
        return (np.asarray(total / len(operands), operands[0].dtype),)


class Pad(OpRun):
    """The original knows no negative pads."""

    op_domain = ""

    def _run(self, x: Any, pads: Any, value: Any = None, axes: Any = None, mode: str = "") -> Any:
        axes = range(x.ndim) if axes is None else [int(a) % x.ndim for a in axes]
        widths, crops = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
        for i, axis in enumerate(axes):
            before, after = int(pads[i]), int(pads[len(axes) + i])
            widths[axis] = (max(before, 0), max(after, 0))
            crops[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
        cropped = x[tuple(crops)]
        fill: Any = {"constant_values": 0 if value is None else value}
        kind: Any = mode
        return (np.pad(cropped, widths, mode=kind, **(fill if mode == "constant" else {})),)


class GatherElements(OpRun):
    """The original wants indices as large as the data along the other axes."""

    def _run(self, data: Any, indices: Any, axis: int = 0) -> Any:
        places: list[Any] = list(np.indices(indices.shape))
        places[axis] = indices
        return (data[tuple(places)],)


class ReduceLogSumExp(OpRun):
    """The original fails on scalars and gives NaN for an infinity."""

    def _run(
        self, x: Any, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Any:
        if axes is None or len(axes) == 0:
            if noop_with_empty_axes:
                return (x,)
            axes = range(x.ndim)
        over = tuple(int(a) for a in axes)
        largest = np.max(x, axis=over, keepdims=True)
        largest = np.where(np.isfinite(largest), largest, 0)
        total = largest + np.log(np.sum(np.exp(x - largest), axis=over, keepdims=True))
        return (np.asarray(total if keepdims else np.squeeze(total, over)),)


class Flatten(OpRun):
    """The original fails where there are no elements."""

    def _run(self, x: Any, axis: int = 1) -> Any:
        axis += x.ndim if axis < 0 else 0
        return (x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])),)


class Optional(OpRun):
    """The original makes a list of what is put in, and its counterpart does not take it out."""

    def _run(self, x: Any = None, type: Any = None) -> Any:
        return (x,)


class Unique(OpRun):
    """The original mistakes places in the flattened tensor for rows, where it does not sort."""

    op_domain = ""

    def _run(self, x: Any, axis: int | None = None, sorted: int = 1) -> Any:
        found = np.unique(x, True, True, True, axis=axis)
        y, first, inverse, counts = found
        inverse = inverse.reshape(-1)
        if not sorted:
            order = np.argsort(first)
            y = np.take(y, order, axis=axis or 0)
            first, inverse, counts = first[order], np.argsort(order)[inverse], counts[order]
        outputs = (y, *(np.asarray(part, np.int64) for part in (first, inverse, counts)))
        return outputs[: len(self.onnx_node.output)]


CORRECTED = [
    Erf,
    Gelu,
    Mean,
    Pad,
    GatherElements,
    ReduceLogSumExp,
    *reference_pooling.CORRECTED,
    *reference_images.CORRECTED,
    *reference_convolution.CORRECTED,
    Flatten,
    Optional,
    Unique,
    *reference_normalization.CORRECTED,
    *reference_recurrent.CORRECTED,
]
