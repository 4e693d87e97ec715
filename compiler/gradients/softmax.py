"""Gradients of softmax, log-softmax and the cross-entropy operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.gradients.places import scatter_add
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

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
    """-weight[t] * input[i, t, ...], reduced as the node says; axis 1 is the class."""
    x = n.required(0)
    return [lambda: _nll_input(b, n, g), None, lambda: _nll_weight(b, n, g, x)]


@gradient("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(b: B, n: N, g: Any, g_log: Any = None) -> list[Any]:
    """The negative log-likelihood of the log-softmax, which is the second output."""

    def log_probabilities() -> Any:
        return n.outputs[1] if len(n.outputs) > 1 else b.op("LogSoftmax", n.required(0), axis=1)

    def scores() -> Any:
        parts = [_nll_input(b, n, g)] if g is not None else []
        parts += [g_log] if g_log is not None else []
        total = parts[0] if len(parts) == 1 else b.op("Add", *parts)
        return _log_softmax(b, log_probabilities(), total, axis=1)

    def weight() -> Any:
        return None if g is None else _nll_weight(b, n, g, log_probabilities())

    return [scores, None, weight]


def _targets(b: B, n: N) -> tuple[Any, Any]:
    """The classes, 0 for the ignored ones; and where those are, None if there are none."""
    target = n.required(1)
    if (ignore_index := n.attribute("ignore_index")) is None:
        return target, None
    label = b.dtype(target)
    ignored = b.op("Equal", target, b.scalar(ignore_index, label))
    return b.op("Where", ignored, np.zeros((), label), target), ignored


def _without(b: B, ignored: Any, values: Any) -> Any:
    """`values` with zeros for ignored targets."""
    if ignored is None:
        return values
    return b.op("Where", ignored, np.zeros((), b.dtype(values)), values)


def _shares(b: B, n: N) -> tuple[Any, Any]:
    """How much each target's term weighs, before the reduction; and their sum."""
    target, ignored = _targets(b, n)
    weight, dtype = n.input(2), b.dtype(n.required(0))
    share = b.full_like(target, 1.0, dtype) if weight is None else b.op("Gather", weight, target)
    share = _without(b, ignored, share)
    total = b.op("ReduceSum", share, keepdims=0)
    if ignored is not None:
        # When all targets are ignored, the loss is 0/0 but, as in PyTorch, its gradient 0.
        total = b.op("Where", b.op("Equal", total, 0.0), np.ones((), dtype), total)
    return share, total


def _nll_input(b: B, n: N, g: Any) -> Any:
    x, (target, _), (share, total) = n.required(0), _targets(b, n), _shares(b, n)
    if n.attribute("reduction", "mean") == "mean":
        g = b.op("Div", g, total)
    places = b.op("Unsqueeze", target, [1])
    updates = b.op("Unsqueeze", b.op("Neg", b.op("Mul", share, g)), [1])
    zeros = b.full_like(x, 0.0)
    return scatter_add(b, "ScatterElements", zeros, places, updates, axis=1)


def _nll_weight(b: B, n: N, g: Any, log_probabilities: Any) -> Any:
    """By the class weights, which also make up the mean's divisor."""
    target, ignored = _targets(b, n)
    picked = b.op("GatherElements", log_probabilities, b.op("Unsqueeze", target, [1]), axis=1)
    term = b.op("Neg", b.op("Squeeze", picked, [1]))
    if n.attribute("reduction", "mean") == "mean":
        term = b.op("Sub", term, n.outputs[0])
        g = b.op("Div", g, _shares(b, n)[1])
    term = b.op("Mul", _without(b, ignored, term), g)
    zeros = b.full_like(n.required(2), 0.0)
    places, updates = b.op("Reshape", target, [-1]), b.op("Reshape", term, [-1])
    return scatter_add(b, "ScatterElements", zeros, places, updates, axis=0)
