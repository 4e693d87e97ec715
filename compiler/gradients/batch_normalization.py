"""The gradient of BatchNormalization: over batch and space, in both of its modes."""

from __future__ import annotations

import functools
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.gradients.normalization import by_channel, count_along, inverse_std, wide
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


def _channel_sum(b: B, values: Any, rank: int) -> Any:
    """The sums over all axes but 1: over the contiguous ones first, which is faster."""
    if rank > 2:
        values = b.op("ReduceSum", values, list(range(2, rank)), keepdims=0)
    return b.op("ReduceSum", values, [0], keepdims=0)


class _Batch:
    """A BatchNormalization node's statistics, and the gradients that its modes have in common.

    Attributes:
        shifted: x - mean.
        inverse, factor: vectors: 1 / deviation; scale / deviation.
        count: how many elements a channel has.
        g: the gradient that arrived at the output, or None.
    """

    def __init__(self, b: B, n: N, g: Any) -> None:
        self.b, self.n = b, n
        given = n.required(0)
        self.rank = b.known_rank(given, "BatchNormalization's gradient")
        if self.rank < 2:
            raise Refusal(f"its input has rank {self.rank}; a batch and channels make 2 at least")
        self.dtype = wide(b.dtype(given))
        x, scale, _, mean, variance = (b.cast(n.required(i), self.dtype) for i in range(5))
        self.count = count_along(b, x, [0, *range(2, self.rank)])
        training = n.attribute("training_mode", 0)
        known = _batch_statistics(b, n) if training else None
        if known is not None:
            mean, variance = (b.cast(value, self.dtype) for value in known)
        elif training:
            mean = b.op("Div", _channel_sum(b, x, self.rank), self.count)
        self.shifted = b.op("Sub", x, self.spread(mean))
        if training and known is None:
            squares = _channel_sum(b, b.op("Mul", self.shifted, self.shifted), self.rank)
            variance = b.op("Div", squares, self.count)
        self.inverse = inverse_std(b, variance, n.attribute("epsilon", 1e-5))
        self.factor = b.op("Mul", scale, self.inverse)
        self.g = None if g is None else b.cast(g, self.dtype)

    def spread(self, vector: Any) -> Any:
        return by_channel(self.b, vector, self.rank)

    def given(self, value: Any, index: int) -> Any:
        """`value` in the dtype of input `index`."""
        return None if value is None else self.b.cast(value, self.b.dtype(self.n.required(index)))

    @functools.cached_property
    def by_bias(self) -> Any:
        return None if self.g is None else _channel_sum(self.b, self.g, self.rank)

    @functools.cached_property
    def by_scale(self) -> Any:
        if self.g is None:
            return None
        product = self.b.op("Mul", self.g, self.shifted)
        return self.b.op("Mul", _channel_sum(self.b, product, self.rank), self.inverse)


def _batch_statistics(b: B, n: N) -> tuple[Any, Any] | None:
    """The batch's mean and (biased) variance, where the operator gives them: its running statistics
    are these if nothing is kept of the old ones."""
    if n.attribute("momentum", 0.9) != 0.0:
        return None
    outputs = b.outputs_of(n, 3)
    return None if outputs is None else outputs[1:]


@gradient("BatchNormalization")
def batch_normalization(
    b: B, n: N, g: Any = None, g_mean: Any = None, g_variance: Any = None
) -> list[Any]:
    """Inference: linear in x. Training: the mean and the (biased) variance depend on x too."""
    a = _Batch(b, n, g)
    if n.attribute("training_mode", 0):
        return _trained(b, n, a, g_mean, g_variance)

    def by_variance() -> Any:
        slope = b.op("Mul", b.op("Mul", a.factor, a.inverse), -0.5)
        return a.given(b.op("Mul", slope, a.by_scale), 4)

    return [
        lambda: a.given(b.op("Mul", a.g, a.spread(a.factor)), 0),
        lambda: a.given(a.by_scale, 1),
        lambda: a.given(a.by_bias, 2),
        lambda: a.given(b.op("Neg", b.op("Mul", a.factor, a.by_bias)), 3),
        by_variance,
    ]


def _trained(b: B, n: N, a: _Batch, g_mean: Any, g_variance: Any) -> list[Any]:
    """dx = factor * (g - mean(g) - z * mean(g z)), z being normalized x.

    The running statistics are momentum * input + (1 - momentum) * current, so what arrives at them
    adds to what is constant along a channel, and to what is a multiple of x - mean.
    """
    momentum = n.attribute("momentum", 0.9)

    def by_x() -> Any:
        constants, slopes, terms = [], [], []
        if a.g is not None:
            share = b.op("Neg", b.op("Div", a.factor, a.count))
            constants.append(b.op("Mul", a.by_bias, share))
            slopes.append(b.op("Mul", b.op("Mul", a.by_scale, a.inverse), share))
            terms.append(b.op("Mul", a.g, a.spread(a.factor)))
        if g_mean is not None:
            part = b.op("Mul", b.cast(g_mean, a.dtype), 1.0 - momentum)
            constants.append(b.op("Div", part, a.count))
        if g_variance is not None:
            part = b.op("Mul", b.cast(g_variance, a.dtype), 2.0 * (1.0 - momentum))
            slopes.append(b.op("Div", part, a.count))
        if slopes:
            terms.append(b.op("Mul", a.shifted, a.spread(_sum(b, slopes))))
        if constants:
            terms.append(a.spread(_sum(b, constants)))
        return b.expand_like(a.given(_sum(b, terms), 0), n.required(0))

    def running(arrived: Any) -> Any:
        return None if arrived is None else b.op("Mul", arrived, momentum)

    return [
        by_x,
        lambda: a.given(a.by_scale, 1),
        lambda: a.given(a.by_bias, 2),
        lambda: running(g_mean),
        lambda: running(g_variance),
    ]


def _sum(b: B, terms: list[Any]) -> Any:
    return functools.reduce(lambda x, y: b.op("Add", x, y), terms)
