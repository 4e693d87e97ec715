"""Pooling in NumPy, by ONNX's specification.

ONNX's reference evaluator indexes beyond the image in some padded windows and takes SAME_LOWER for
SAME_UPPER.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


def places(size: int, axis: int, given: dict[str, Any]) -> tuple[Any, int, int]:
    """Where along an axis the windows look: (windows, elements of one), and the pads."""

    def entry(name: str, index: int = axis, default: int = 1) -> int:
        numbers = given.get(name)
        return int(numbers[index]) if numbers else default

    window, stride, dilation = entry("kernel_shape"), entry("strides"), entry("dilations")
    before = entry("pads", default=0)
    after = entry("pads", axis + len(given["kernel_shape"]), default=0)
    reach = (window - 1) * dilation + 1
    auto = given.get("auto_pad") or "NOTSET"
    if auto.startswith("SAME"):
        count = -(-size // stride)
        total = max((count - 1) * stride + reach - size, 0)
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        after = total - before
    else:
        before, after = (0, 0) if auto == "VALID" else (before, after)
        free = size + before + after - reach
        count = (-(-free // stride) if given.get("ceil_mode") else free // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
    starts = np.arange(count) * stride - before
    return starts[:, None] + np.arange(window) * dilation, before, after


def windows(x: Any, given: dict[str, Any], outside: float = 0.0) -> Any:
    """The elements of every window: (batch, channels, *windows, elements of a window).

    `outside` stands for what lies beyond the image.
    """
    count = len(given["kernel_shape"])
    for i in range(count):
        size = x.shape[2 + i]
        at, _, _ = places(size, i, given)
        inside = (at >= 0) & (at < size)
        taken = np.take(x, np.where(inside, at, 0), axis=2 + i)
        shape = [1] * taken.ndim
        shape[2 + i : 4 + i] = inside.shape
        taken = np.where(inside.reshape(shape), taken, np.asarray(outside, x.dtype))
        x = np.moveaxis(taken, 3 + i, -1)
    return x.reshape(*x.shape[: 2 + count], math.prod(x.shape[2 + count :]))


class MaxPool(OpRun):
    def _run(self, x: Any, storage_order: int = 0, **given: Any) -> Any:
        found = windows(x, given, outside=-np.inf)
        if len(self.output) == 1:
            return (found.max(-1),)
        image = np.arange(np.prod(x.shape[2:]))
        image = image.reshape(x.shape[2:], order="F" if storage_order else "C")
        planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * image.ndim)
        numbers = windows(planes * image.size + image, given)
        first = found.argmax(-1)[..., None]
        return found.max(-1), np.take_along_axis(numbers, first, -1)[..., 0]


class AveragePool(OpRun):
    def _run(self, x: Any, count_include_pad: int = 0, **given: Any) -> Any:
        counts = []
        for i, size in enumerate(x.shape[2:]):
            at, before, after = places(size, i, given)
            low, high = (-before, size + after) if count_include_pad else (0, size)
            counts.append(((at >= low) & (at < high)).sum(1))
        count = functools.reduce(np.multiply.outer, counts)
        return ((windows(x, given).sum(-1) / count).astype(x.dtype),)


class LpPool(OpRun):
    def _run(self, x: Any, p: int = 2, **given: Any) -> Any:
        return ((np.abs(windows(x, given)) ** p).sum(-1) ** (1 / p),)


class GlobalMaxPool(OpRun):
    """The original takes images only."""

    def _run(self, x: Any) -> Any:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """There is no original."""

    def _run(self, x: Any, p: int = 2) -> Any:
        total = (np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return (np.asarray(total ** (1 / p), x.dtype),)


CORRECTED = [GlobalLpPool, GlobalMaxPool, MaxPool, AveragePool, LpPool]
