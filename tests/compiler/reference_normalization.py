"""Normalizations that ONNX's reference evaluator computes wrongly or too coarsely, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


class GroupNormalization(OpRun):
    """The original is the schema's function body, which rounds to float32."""

    def _run(
        self,
        x: Any,
        scale: Any,
        bias: Any,
        epsilon: float = 1e-5,
        num_groups: int = 1,
        stash_type: int = 1,
    ) -> Any:
        groups = x.reshape(x.shape[0], num_groups, -1)
        shifted = groups - groups.mean(2, keepdims=True)
        normalized = shifted / np.sqrt(np.square(shifted).mean(2, keepdims=True) + epsilon)
        channels = (-1, *[1] * (x.ndim - 2))
        return (normalized.reshape(x.shape) * scale.reshape(channels) + bias.reshape(channels),)


class LayerNormalization(OpRun):
    """The original's statistics have the input's dtype instead of float32."""

    def _run(
        self,
        x: Any,
        scale: Any,
        bias: Any = None,
        axis: int = -1,
        epsilon: float = 1e-5,
        stash_type: int = 1,
    ) -> Any:
        over = tuple(range(axis % x.ndim, x.ndim))
        wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
        mean = wide.mean(over, keepdims=True)
        inverse = 1 / np.sqrt(np.square(wide - mean).mean(over, keepdims=True) + epsilon)
        y = (wide - mean) * inverse * scale + (0 if bias is None else bias)
        return y.astype(x.dtype), mean.astype(np.float32), inverse.astype(np.float32)


class LpNormalization(OpRun):
    """The original sums numbers of both signs for p=1."""

    def _run(self, x: Any, axis: int = -1, p: int = 2) -> Any:
        norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1.0 / p)
        return (np.where(norm == 0, 0, x / norm),)


class LRN(OpRun):
    """The original takes the batch's size for the number of channels."""

    def _run(
        self, x: Any, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int = 1
    ) -> Any:
        squares = np.zeros_like(x)
        for c in range(x.shape[1]):
            begin, end = max(0, c - (size - 1) // 2), c + size // 2 + 1
            squares[:, c] = np.square(x[:, begin:end]).sum(axis=1)
        return (x / (bias + alpha / size * squares) ** beta,)


class Dropout(OpRun):
    """The original does not know an omitted ratio before a given training mode."""

    def _run(self, x: Any, ratio: Any = None, training_mode: Any = False, seed: Any = None) -> Any:
        rate = 0.5 if ratio is None else float(ratio)
        if not training_mode or rate == 0:
            return x, np.ones(x.shape, bool)
        mask = np.random.RandomState(int(seed)).uniform(size=x.shape) >= rate
        return mask * x / (1.0 - rate), mask


CORRECTED = [GroupNormalization, LayerNormalization, LpNormalization, LRN, Dropout]
