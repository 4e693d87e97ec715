"""Operators of com.microsoft, written with standard ones: what ONNX Runtime's tools fuse.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md has their definitions;
the tests compare with ONNX Runtime's own kernels. Those that keep state between calls (past keys
and values) or hold quantized weights are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxtape.engine import B
from onnxtape.errors import ModelError
from onnxtape.interop.fused_attention import (
    attention,
    multi_head_attention,
    rotary_embedding,
)
from onnxtape.tensor import Tensor

DOMAIN = "com.microsoft"

Attributes = Mapping[str, Any]
#: The outputs, None for those that are not made here, from the inputs, which end with None as often
#: as is needed.
Rule = Callable[[Sequence[Any], Attributes], Sequence[Tensor | None]]


def gelu(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """x Phi(x), after a bias."""
    return [B.op("Gelu", _sum(x[0], x[1]))]


def fast_gelu(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """The approximation by tanh, after a bias."""
    return [B.op("Gelu", _sum(x[0], x[1]), approximate="tanh")]


def quick_gelu(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """x sigmoid(alpha x)."""
    scaled = B.op("Mul", x[0], attributes.get("alpha", 1.702))
    return [B.op("Mul", x[0], B.op("Sigmoid", scaled))]


def matmul(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """alpha op(A) op(B); `transBatch` takes a matrix's rows from the first axis."""
    a = _turned(x[0], attributes.get("transBatchA", 0), attributes.get("transA", 0))
    b = _turned(x[1], attributes.get("transBatchB", 0), attributes.get("transB", 0))
    y = B.op("MatMul", a, b)
    alpha = attributes.get("alpha", 1.0)
    return [y if alpha == 1.0 else B.op("Mul", y, alpha)]


def _turned(x: Tensor, batch: int, last: int) -> Tensor:
    perm = list(range(len(x.shape)))
    if batch and len(perm) > 2:
        perm = [*perm[1:-1], 0, perm[-1]]
    if last and len(perm) > 1:
        perm[-2:] = perm[-1], perm[-2]
    return x if perm == sorted(perm) else B.op("Transpose", x, perm=perm)


def gemm(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Gemm, then an activation."""
    own = {k: v for k, v in attributes.items() if not k.startswith("activation")}
    parameters = [attributes.get(f"activation_{k}") for k in ("alpha", "beta")]
    return [_activated(B.op("Gemm", *x[:3], **own), attributes, parameters)]


def conv(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Conv, plus a fourth input, then an activation."""
    own = {k: v for k, v in attributes.items() if not k.startswith("activation")}
    y = _sum(B.op("Conv", *x[:3], **own), x[3])
    return [_activated(y, attributes, attributes.get("activation_params", []))]


def _activated(y: Tensor, attributes: Attributes, parameters: Sequence[float | None]) -> Tensor:
    name = attributes.get("activation", "")
    if not name:
        return y
    if name == "Clip":
        return B.op("Clip", y, *(np.asarray(p, y.dtype) for p in parameters))
    names = {"LeakyRelu": ["alpha"], "HardSigmoid": ["alpha", "beta"]}.get(name, [])
    if not names and name not in ("Relu", "Tanh", "Sigmoid"):
        raise ModelError(f"an operator is fused with the activation {name}, which is not known")
    given = zip(names, parameters, strict=False)
    return B.op(name, y, **{key: value for key, value in given if value is not None})


def simplified_layer_normalization(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """gamma x / sqrt(mean(x^2) + epsilon) over the axes from `axis`."""
    axes = list(range(attributes.get("axis", -1) % len(x[0].shape), len(x[0].shape)))
    return [_rms(x[0], x[1], axes, attributes.get("epsilon", 1e-5))]


def skip_simplified_layer_normalization(
    x: Sequence[Any], attributes: Attributes
) -> list[Tensor | None]:
    """The same of the sum of an input, a skip and a bias, which is the fourth output."""
    total = _sum(_sum(x[0], x[1]), x[3])
    return [_rms(total, x[2], [-1], attributes.get("epsilon", 1e-12)), None, None, total]


def _rms(x: Tensor, gamma: Tensor, axes: list[int], epsilon: float) -> Tensor:
    square = B.op("ReduceMean", B.op("Mul", x, x), axes, keepdims=1)
    return B.op("Mul", B.op("Div", x, B.op("Sqrt", B.op("Add", square, epsilon))), gamma)


def skip_layer_normalization(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """LayerNormalization of the sum of an input, a skip and a bias, which is the fourth output."""
    total = _sum(_sum(x[0], x[1]), x[4])
    return [_normalized(total, x[2], x[3], attributes), None, None, total]


def embed_layer_normalization(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """LayerNormalization of the sum of a word's, a position's and a segment's embedding."""
    words, segments, word, position, segment, gamma, beta, mask, places = x[:9]
    if mask is not None:
        raise ModelError("EmbedLayerNormalization with a mask is not supported")
    if places is None:
        places = B.positions(words, 1)
    total = B.op("Add", B.op("Gather", word, words), B.op("Gather", position, places))
    if segments is not None:
        total = B.op("Add", total, B.op("Gather", segment, segments))
    return [_normalized(total, gamma, beta, attributes), None, total]


def _normalized(x: Tensor, gamma: Any, beta: Any, attributes: Attributes) -> Tensor:
    return B.op(
        "LayerNormalization", x, gamma, beta, epsilon=attributes.get("epsilon", 1e-12), axis=-1
    )


def _sum(x: Tensor, y: Any) -> Tensor:
    return x if y is None else B.op("Add", x, y)


#: By their domains and names.
OPERATORS: dict[str, Rule] = {
    f"{DOMAIN}::Attention": attention,
    f"{DOMAIN}::BiasGelu": gelu,
    f"{DOMAIN}::EmbedLayerNormalization": embed_layer_normalization,
    f"{DOMAIN}::FastGelu": fast_gelu,
    f"{DOMAIN}::FusedConv": conv,
    f"{DOMAIN}::FusedGemm": gemm,
    f"{DOMAIN}::FusedMatMul": matmul,
    f"{DOMAIN}::Gelu": gelu,
    f"{DOMAIN}::MultiHeadAttention": multi_head_attention,
    f"{DOMAIN}::QuickGelu": quick_gelu,
    f"{DOMAIN}::RotaryEmbedding": rotary_embedding,
    f"{DOMAIN}::SkipLayerNormalization": skip_layer_normalization,
    f"{DOMAIN}::SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
    f"{DOMAIN}::TransposeMatMul": matmul,
    f"{DOMAIN}::SimplifiedLayerNormalization": simplified_layer_normalization,
}
