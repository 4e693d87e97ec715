"""Gradients of activation functions.

Boolean kernels are slow on ONNX Runtime's CPU provider, so float32 masks are made there with one
`HardSigmoid` of a huge slope, a 0-1 step in a single float kernel (which float64 does not have).
Others compute that wrongly (OpenVINO), or in float16: `passes.portable_masks` puts a comparison in
its place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

B = Builder[Any]
N = Record[Any]

#: The slope of masks, by which they are recognized.
STEEP = 1e38


def positive(b: B, x: Any) -> Any:
    """1 where x > 0, else 0, in x's dtype (positive subnormal numbers may give a value between)."""
    dtype = b.dtype(x)
    if dtype == np.dtype(np.float32) and b.target.is_cpu:
        return b.op("HardSigmoid", x, alpha=STEEP, beta=0.0)
    return b.cast(b.op("Greater", x, 0.0), dtype)


@gradient("Relu")
def relu(b: B, n: N, g: Any) -> list[Any]:
    """Zero at zero."""
    return [b.op("Mul", g, positive(b, n.outputs[0]))]


@gradient("LeakyRelu")
def leaky_relu(b: B, n: N, g: Any) -> list[Any]:
    """`alpha` at zero."""
    alpha = n.attribute("alpha", 0.01)
    mask = positive(b, n.required(0))
    return [b.op("Mul", g, b.op("Add", b.op("Mul", mask, 1.0 - alpha), alpha))]


@gradient("PRelu", broadcasts=True)
def prelu(b: B, n: N, g: Any) -> list[Any]:
    """`slope` at zero."""
    x, slope = n.required(0), n.required(1)
    mask = positive(b, x)
    return [
        lambda: b.op("Mul", g, b.op("Add", mask, b.op("Mul", b.op("Sub", 1.0, mask), slope))),
        lambda: b.op("Mul", g, b.op("Mul", b.op("Sub", 1.0, mask), x)),
    ]


@gradient("ThresholdedRelu")
def thresholded_relu(b: B, n: N, g: Any) -> list[Any]:
    """Zero at the threshold."""
    shifted = b.op("Sub", n.required(0), n.attribute("alpha", 1.0))
    return [b.op("Mul", g, positive(b, shifted))]


@gradient("Elu")
def elu(b: B, n: N, g: Any) -> list[Any]:
    """exp(0) * alpha at zero."""
    return [b.op("Mul", g, _bent(b, n.outputs[0], n.attribute("alpha", 1.0), 1.0))]


@gradient("Selu")
def selu(b: B, n: N, g: Any) -> list[Any]:
    """exp(0) * alpha * gamma at zero."""
    alpha = n.attribute("alpha", 1.67326319217681884765625)
    gamma = n.attribute("gamma", 1.05070102214813232421875)
    return [b.op("Mul", g, _bent(b, n.outputs[0], alpha * gamma, gamma))]


@gradient("Celu")
def celu(b: B, n: N, g: Any) -> list[Any]:
    scaled = b.op("Mul", n.required(0), 1.0 / n.attribute("alpha", 1.0))
    return [b.op("Mul", g, b.op("Exp", b.op("Min", scaled, 0.0)))]


def _bent(b: B, y: Any, at_zero: float, above: float) -> Any:
    """`at_zero` + y where y <= 0, else `above`; without a Where, which is slow."""
    slope = b.op("Add", b.op("Min", y, 0.0), at_zero)
    if above == at_zero:
        return slope
    return b.op("Add", slope, b.op("Mul", positive(b, y), above - at_zero))


@gradient("Sigmoid")
def sigmoid(b: B, n: N, g: Any) -> list[Any]:
    out = n.outputs[0]
    return [b.op("Mul", g, b.op("Mul", out, b.op("Sub", 1.0, out)))]


@gradient("Tanh")
def tanh(b: B, n: N, g: Any) -> list[Any]:
    out = n.outputs[0]
    return [b.op("Mul", g, b.op("Sub", 1.0, b.op("Mul", out, out)))]


@gradient("HardSigmoid")
def hard_sigmoid(b: B, n: N, g: Any) -> list[Any]:
    """Zero on both kinks."""
    alpha = n.attribute("alpha", 0.2)
    return [b.op("Mul", b.op("Mul", g, _inside_unit(b, n.outputs[0])), alpha)]


def _inside_unit(b: B, y: Any) -> Any:
    """1 where 0 < y < 1, else 0, for y in [0, 1]."""
    return b.op("Mul", positive(b, y), positive(b, b.op("Sub", 1.0, y)))


@gradient("HardSwish")
def hard_swish(b: B, n: N, g: Any) -> list[Any]:
    """x * s with s = clip(x / 6 + 1/2, 0, 1); zero slope of s on its kinks."""
    x = n.required(0)
    s = b.op("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)
    inner = b.op("Mul", b.op("Mul", x, 1.0 / 6.0), _inside_unit(b, s))
    return [b.op("Mul", g, b.op("Add", s, inner))]


@gradient("Softplus")
def softplus(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Mul", g, b.op("Sigmoid", n.required(0)))]


@gradient("Softsign")
def softsign(b: B, n: N, g: Any) -> list[Any]:
    scale = b.op("Add", b.op("Abs", n.required(0)), 1.0)
    return [b.op("Div", g, b.op("Mul", scale, scale))]


@gradient("Mish")
def mish(b: B, n: N, g: Any) -> list[Any]:
    """x * t with t = tanh(softplus(x))."""
    x = n.required(0)
    t = b.op("Tanh", b.op("Softplus", x))
    slope = b.op("Mul", b.op("Sub", 1.0, b.op("Mul", t, t)), b.op("Sigmoid", x))
    return [b.op("Mul", g, b.op("Add", t, b.op("Mul", x, slope)))]


@gradient("Gelu")
def gelu(b: B, n: N, g: Any) -> list[Any]:
    """Exact: Phi(x) + x * phi(x). `approximate="tanh"`: the derivative of that formula."""
    x = n.required(0)
    if n.attribute("approximate", "none") == "tanh":
        c = math.sqrt(2.0 / math.pi)
        square = b.op("Mul", x, x)
        inner = b.op("Mul", b.op("Mul", x, c), b.op("Add", b.op("Mul", square, 0.044715), 1.0))
        t = b.op("Tanh", inner)
        inner_slope = b.op("Add", b.op("Mul", square, 3 * 0.044715 * c), c)
        sech2 = b.op("Sub", 1.0, b.op("Mul", t, t))
        slope = b.op("Add", b.op("Add", t, 1.0), b.op("Mul", x, b.op("Mul", sech2, inner_slope)))
        return [b.op("Mul", g, b.op("Mul", slope, 0.5))]
    return [b.op("Mul", g, _exact_gelu_slope(b, n, x))]


def _exact_gelu_slope(b: B, n: N, x: Any) -> Any:
    """Phi(x) + x phi(x), with u = x / sqrt(2): (1 + erf(u)) / 2 + u exp(-u^2) / sqrt(pi).

    In a graph what this has in common with the forward pass takes the operator's place.
    """
    u = b.op("Mul", x, math.sqrt(0.5))
    cdf = b.op("Erf", u)
    if b.dtype(x) == np.dtype(np.float32):
        # One kernel, which bounds it to [0, 1], where it lies.
        cdf = b.op("HardSigmoid", cdf, alpha=0.5, beta=0.5)
    else:
        cdf = b.op("Mul", b.op("Add", cdf, 1.0), 0.5)
    b.supersede(n.outputs[0], lambda: b.op("Mul", x, cdf))
    # The factor is an offset of the exponent, which the square is subtracted from anyway.
    bell = b.op("Exp", b.op("Sub", -0.5 * math.log(math.pi), b.op("Mul", u, u)))
    return b.op("Add", cdf, b.op("Mul", u, bell))


@gradient("Shrink")
def shrink(b: B, n: N, g: Any) -> list[Any]:
    """1 outside [-lambd, lambd], zero inside and on the kinks."""
    lambd = n.attribute("lambd", 0.5)
    return [b.op("Mul", g, positive(b, b.op("Sub", b.op("Abs", n.required(0)), lambd)))]
