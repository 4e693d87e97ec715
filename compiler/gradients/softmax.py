"""Gradients of softmax, log-softmax and the cross-entropy operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


@gradient("Softmax")
def softmax(b: B, n: N, g: Any) -> list[Any]:
    out, axis = n.outputs[0], n.attribute("axis", -1)
    inner = b.op("ReduceSum", b.op("Mul", g, out), [axis], keepdims=1)
    return [b.op("Mul", out, b.op("Sub", g, inner))]


@gradient("LogSoftmax")
def log_softmax(b: B, n: N, g: Any) -> list[Any]:
    return [_log_softmax(b, n.outputs[0], g, n.attribute("axis", -1))]


def _log_softmax(b: B, log_probabilities: Any, g: Any, axis: int) -> Any:
    total = b.op("ReduceSum", g, [axis], keepdims=1)
    return b.op("Sub", g, b.op("Mul", b.op("Exp", log_probabilities), total))


@gradient("NegativeLogLikelihoodLoss")
def nll_loss(b: B, n: N, g: Any) -> list[Any]:
    return [lambda: _nll_input(b, n, g), None, lambda: _refuse_weights()]


@gradient("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(b: B, n: N, g: Any, g_log: Any = None) -> list[Any]:
    def scores() -> Any:
        log_probabilities = (
            n.outputs[1] if len(n.outputs) > 1 else b.op("LogSoftmax", n.required(0), axis=1)
        )
        parts = [_nll_input(b, n, g)] if g is not None else []
        parts += [g_log] if g_log is not None else []
        total = parts[0] if len(parts) == 1 else b.op("Add", *parts)
        return _log_softmax(b, log_probabilities, total, axis=1)

    return [scores, None, lambda: _refuse_weights()]


def _refuse_weights() -> Any:
    raise Refusal("class weights get no gradient yet")


def _nll_input(b: B, n: N, g: Any) -> Any:
    """d/d input of -weight[t] * input[i, t, ...], reduced as the node says; axis 1 is the class."""
    x, target, weight = n.required(0), n.required(1), n.input(2)
    dtype, label = b.dtype(x), b.dtype(target)
    ignored = None
    if (ignore_index := n.attribute("ignore_index")) is not None:
        ignored = b.op("Equal", target, b.scalar(ignore_index, label))
        target = b.op("Where", ignored, np.zeros((), label), target)
    share = b.full_like(target, 1.0, dtype) if weight is None else b.op("Gather", weight, target)
    if ignored is not None:
        share = b.op("Where", ignored, np.zeros((), dtype), share)
    if n.attribute("reduction", "mean") == "mean":
        share = b.op("Div", share, b.op("ReduceSum", share, keepdims=0))
    share = b.op("Neg", b.op("Mul", share, g))
    zeros = b.full_like(x, 0.0)
    places, updates = b.op("Unsqueeze", target, [1]), b.op("Unsqueeze", share, [1])
    return b.op("ScatterElements", zeros, places, updates, axis=1, reduction="add")
