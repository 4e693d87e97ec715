"""Cases of `ops.normalization`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, booleans, fixed, given, sample


def _layer(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float = 1e-7
) -> Any:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shifted = x - x.mean(axes, keepdims=True)
    y = shifted / np.sqrt((shifted**2).mean(axes, keepdims=True) + epsilon)
    shape = [x.shape[a] if a in [b % x.ndim for b in axes] else 1 for a in range(x.ndim)]
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def _rms(x: Any, scale: Any = 1.0, axis: Any = -1, epsilon: float = 1e-7) -> Any:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return x / np.sqrt((x**2).mean(axes, keepdims=True) + epsilon) * scale


def _batch(
    x: Any,
    mean: Any,
    variance: Any,
    axis: int,
    offset: Any = None,
    scale: Any = None,
    epsilon: float = 1e-3,
) -> Any:
    def shaped(v: Any) -> Any:
        return v.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])

    y = (x - shaped(mean)) / np.sqrt(shaped(variance) + epsilon)
    y = y if scale is None else y * shaped(scale)
    return y if offset is None else y + shaped(offset)


def _normalize(x: Any, axis: Any = -1, order: int = 2, epsilon: float = 1e-7) -> Any:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    norm = (np.abs(x) ** order).sum(axes, keepdims=True) ** (1 / order)
    return x / np.maximum(norm, epsilon)


def _moments(x: Any, axes: Any, keepdims: bool = False) -> list[Any]:
    over = tuple(axes)
    return [x.mean(over, keepdims=keepdims), x.var(over, keepdims=keepdims)]


def _attention(
    q: Any,
    k: Any,
    v: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    attn_logits_soft_cap: float | None = None,
) -> Any:
    k, v = (np.repeat(t, q.shape[2] // t.shape[2], axis=2) for t in (k, v))
    scores = np.einsum("btnh,bsnh->bnts", q, k) * (scale or q.shape[3] ** -0.5)
    if attn_logits_soft_cap is not None:
        scores = attn_logits_soft_cap * np.tanh(scores / attn_logits_soft_cap)
    scores = scores if bias is None else scores + bias
    allowed = np.ones(scores.shape, bool) if mask is None else mask & np.ones(scores.shape, bool)
    if is_causal:
        allowed = allowed & np.tri(*scores.shape[2:], dtype=bool)
    scores = np.where(allowed, scores, -1e30)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnts,bsnh->btnh", e / e.sum(-1, keepdims=True), v)


def _normalizations() -> Iterator[Case]:
    x = given(sample((3, 4, 5)), "float32")
    last, two = fixed(sample((5,), seed=1), "float32"), fixed(sample((4, 5), seed=2), "float32")
    middle = fixed(sample((4,), seed=3), "float32")
    name = "layer_normalization"
    yield Case(name, [x], _layer, gradient=True, tolerance=1e-5)
    yield Case(name, [x, last, last], _layer, gradient=True, tolerance=1e-5)
    yield Case(name, [x, last, None], _layer, {"epsilon": 0.1}, gradient=True)
    yield Case(name, [x, two, two], _layer, {"axis": [1, 2]}, gradient=True, tolerance=1e-5)
    yield Case(name, [x, middle, middle], _layer, {"axis": 1}, gradient=True, tolerance=1e-5)
    yield Case(name, [x], _layer, {"axis": [2, 0]}, gradient=True, tolerance=1e-5)
    yield Case(name, [given(sample((2, 6)), "float16")], _layer)
    yield Case(name, [given(sample((2, 6)), "float16")], _layer, {"axis": 0}, tolerance=4e-3)
    yield Case(name, [given(sample((2, 6)), "float64")], _layer, tolerance=1e-6)
    yield Case(name, [given([[1, 2, 4]], "int32")], _layer, dtype="float32")
    name = "rms_normalization"
    yield Case(name, [x], _rms, gradient=True)
    yield Case(name, [x, last], _rms, {"epsilon": 0.1}, gradient=True)
    yield Case(name, [x], _rms, {"axis": [0, 1]}, gradient=True)
    yield Case(name, [given(sample((2, 6)), "float16")], _rms)
    name = "batch_normalization"
    spread = fixed(sample((5,), 0.5, 2.0), "float32")
    yield Case(name, [x, last, spread, -1], _batch, gradient=True, tolerance=1e-5)
    yield Case(name, [x, last, spread, 2, last, spread], _batch, gradient=True, tolerance=1e-5)
    narrow = fixed(sample((4,), 0.5, 2.0), "float32")
    yield Case(name, [x, middle, narrow, 1, None, narrow], _batch, gradient=True, tolerance=1e-5)
    name = "normalize"
    yield Case(name, [x], _normalize, gradient=True)
    yield Case(name, [x], _normalize, {"axis": [0, 2]}, gradient=True)
    yield Case(name, [x], _normalize, {"order": 1, "axis": 1}, gradient=True)
    yield Case(name, [x], _normalize, {"order": 3}, gradient=True, tolerance=1e-5)
    yield Case(name, [fixed([[0.0, 0.0], [3.0, 4.0]], "float32")], _normalize, note="zeros")
    name = "moments"
    yield Case(name, [x, [0]], _moments, dtype=("float32", "float32"), gradient=True)
    yield Case(name, [x, [0, 2], True], _moments, dtype=("float32", "float32"), gradient=True)
    halves = given(sample((4, 3)) * 100, "float16")
    yield Case(name, [halves, [0]], _moments, dtype=("float16", "float16"))


def _attentions() -> Iterator[Case]:
    def inputs(heads: int, key_heads: int) -> list[Any]:
        shapes = ((2, 3, heads, 4), (2, 5, key_heads, 4), (2, 5, key_heads, 3))
        return [given(sample(shape, seed=i), "float32") for i, shape in enumerate(shapes)]

    name = "dot_product_attention"
    yield Case(name, inputs(2, 2), _attention, gradient=True)
    yield Case(name, inputs(4, 2), _attention, {"scale": 0.3}, gradient=True)
    yield Case(name, inputs(2, 1), _attention, {"is_causal": True}, gradient=True)
    bias = fixed(sample((1, 2, 3, 5), seed=5), "float32")
    yield Case(name, [*inputs(2, 2), bias], _attention, gradient=True)
    allowed = booleans((2, 1, 3, 5))
    allowed[..., 1] = True
    mask = given(allowed)
    yield Case(name, [*inputs(2, 2), None, mask], _attention, gradient=True)
    yield Case(name, [*inputs(2, 2), bias, mask], _attention, {"attn_logits_soft_cap": 0.8},
               gradient=True)  # fmt: skip
    yield Case(name, [given(t.array, "float16") for t in inputs(2, 2)], _attention)


CASES = [*_normalizations(), *_attentions()]
