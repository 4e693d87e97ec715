"""Normalizations and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from onnxtape.compiler.dims import format_shape, is_static
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import Axis, may_equal, normalized, normalized_axes, refused
from onnxtape.ops.promotion import BOOL, in_float32, operands
from onnxtape.tensor import Tensor

__all__ = [
    "batch_normalization",
    "dot_product_attention",
    "layer_normalization",
    "moments",
    "normalize",
    "rms_normalization",
]

#: Keras's default.
_EPSILON = 1e-7


def _inverse_root(t: Tensor) -> Tensor:
    return B.op("Reciprocal", B.op("Sqrt", t))


def moments(
    x: Any, axes: Axis, keepdims: bool = False, synchronized: bool = False
) -> tuple[Tensor, Tensor]:
    """The mean and the variance (divided by the count) over the axes.

    16-bit floats are summed in float32.

    Args:
        synchronized: must be False; there are no replicas to synchronize with.
    """
    if synchronized:
        raise ValueError("moments: synchronized=True needs replicas, and there are none; leave it")
    (t,) = operands(x, floating=True)
    wide = in_float32(t)
    over = normalized_axes(axes, B.known_rank(t, "moments"), "moments")
    mean = B.op("ReduceMean", wide, over, keepdims=1)
    shifted = B.op("Sub", wide, mean)
    variance = B.op("ReduceMean", B.op("Mul", shifted, shifted), over, keepdims=int(keepdims))
    if not keepdims:
        mean = B.op("Squeeze", mean, over)
    return B.cast(mean, t.dtype), B.cast(variance, t.dtype)


def normalize(x: Any, axis: Axis = -1, order: int = 2, epsilon: float | None = None) -> Tensor:
    """x divided by its norm along an axis, or by epsilon (1e-7) where the norm is less.

    Args:
        axis: several make one norm over all of them.
        order: of the norm: 1, 2, ...
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"normalize: order is a whole number from 1 on, not {order!r}")
    floor = _EPSILON if epsilon is None else float(epsilon)
    (given,) = operands(x, floating=True)
    axes = normalized_axes(axis, B.known_rank(given, "normalize"), "normalize")
    # In float16, epsilon would be zero.
    t = in_float32(given)
    if order == 2:
        squares = B.op("ReduceSum", B.op("Mul", t, t), axes, keepdims=1)
        y = B.op("Mul", t, _inverse_root(B.op("Max", squares, floor * floor)))
    else:
        powers = B.op("Abs", t) if order == 1 else B.op("Pow", B.op("Abs", t), float(order))
        norm = B.op("ReduceSum", powers, axes, keepdims=1)
        norm = norm if order == 1 else B.op("Pow", norm, 1.0 / order)
        y = B.op("Div", t, B.op("Max", norm, floor))
    return B.cast(y, given.dtype)


def layer_normalization(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    axis: int | Sequence[int] = -1,
    epsilon: float | None = None,
    *,
    rms_scaling: bool = False,
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with statistics over the axes.

    16-bit floats are normalized in float32.

    Args:
        gamma, beta: one entry per element of the axes; by default ones and zeros.
        epsilon: 1e-7 by default.
        rms_scaling: Keras's old variant: x / sqrt(variance + epsilon) * gamma, without beta.
    """
    small = _EPSILON if epsilon is None else float(epsilon)
    (t,) = operands(x, floating=True)
    rank = B.known_rank(t, "layer_normalization")
    axes = sorted(normalized_axes(axis, rank, "layer_normalization"))
    sizes = tuple(B.dim(t, a) for a in axes)
    # With ones for the axes that are not normalized.
    broadcast = [B.dim_tensor(t, a) if a in axes else [1] for a in range(rank)]

    def weight(value: Any, dtype: Any) -> Tensor | None:
        if value is None:
            return None
        w = convert_to_tensor(value, dtype)
        if not may_equal(B.shape(w), sizes) and not may_equal(B.shape(w), B.shape(t)):
            raise refused(
                f"layer_normalization: a weight of shape {format_shape(B.shape(w))} does not fit "
                f"axes {tuple(axes)} of {format_shape(B.shape(t))}"
            )
        return w

    scale, offset = weight(gamma, t.dtype), weight(beta, t.dtype)
    last = axes == list(range(axes[0], rank)) and not rms_scaling
    ranks = {B.rank(w) for w in (scale, offset) if w is not None}
    if last and ranks <= {len(axes)} and (scale is not None or is_static(sizes)):
        # One kernel. Its statistics, which it makes anyway, serve the gradient.
        ones = np.ones(sizes if is_static(sizes) else (), t.dtype)
        count = 1 if t.dtype == np.float64 else 3
        return B.op_multi(
            "LayerNormalization",
            t,
            ones if scale is None else scale,
            offset,
            outputs=count,
            axis=axes[0] - rank,
            epsilon=small,
        )[0]
    wide = in_float32(t)
    mean, variance = moments(wide, axes, keepdims=True)

    def shaped(w: Tensor) -> Tensor:
        w = B.cast(w, wide.dtype)
        if B.rank(w) == rank:
            return w
        parts = [B.constant(part) if isinstance(part, list) else part for part in broadcast]
        return B.op("Reshape", w, B.op("Concat", *parts, axis=0))

    factor = _inverse_root(B.op("Add", variance, small))
    y = B.op("Mul", wide if rms_scaling else B.op("Sub", wide, mean), factor)
    if scale is not None:
        y = B.op("Mul", y, shaped(scale))
    if offset is not None and not rms_scaling:
        y = B.op("Add", y, shaped(offset))
    return B.cast(y, t.dtype)


def rms_normalization(
    x: Any, scale: Any = None, axis: int | Sequence[int] = -1, epsilon: float | None = None
) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * scale, the mean over the axes.

    16-bit floats are normalized in float32.

    Args:
        scale: broadcast to x; by default ones.
        epsilon: 1e-7 by default.
    """
    (t,) = operands(x, floating=True)
    axes = normalized_axes(axis, B.known_rank(t, "rms_normalization"), "rms_normalization")
    wide = in_float32(t)
    squares = B.op("ReduceMean", B.op("Mul", wide, wide), axes, keepdims=1)
    small = _EPSILON if epsilon is None else float(epsilon)
    y = B.op("Mul", wide, _inverse_root(B.op("Add", squares, small)))
    if scale is not None:
        y = B.op("Mul", y, convert_to_tensor(scale, wide.dtype))
    return B.cast(y, t.dtype)


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    axis: int,
    offset: Any = None,
    scale: Any = None,
    epsilon: float = 1e-3,
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset.

    Args:
        mean, variance, offset, scale: vectors along `axis`; offset and scale may be None.
    """
    given = [v for v in (offset, scale) if v is not None]
    t, center, spread, *rest = operands(x, mean, variance, *given, floating=True)
    rank = B.known_rank(t, "batch_normalization")
    axis = normalized(axis, rank, "batch_normalization")
    for vector in (center, spread, *rest):
        if not may_equal(B.shape(vector), (B.dim(t, axis),)):
            raise refused(
                f"batch_normalization: a vector of shape {format_shape(B.shape(vector))} does not "
                f"fit axis {axis} of {format_shape(B.shape(t))}"
            )
    factor = _inverse_root(B.op("Add", spread, float(epsilon)))
    if scale is not None:
        factor = B.op("Mul", factor, rest[-1])
    # Vectors first: two passes over x.
    shift = B.op("Mul", center, factor)
    shift = B.op("Neg", shift) if offset is None else B.op("Sub", rest[0], shift)
    if axis < rank - 1:
        after = list(range(1, rank - axis))
        factor, shift = B.op("Unsqueeze", factor, after), B.op("Unsqueeze", shift, after)
    return B.op("Add", B.op("Mul", t, factor), shift)


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Tensor:
    """softmax(query key^T * scale + bias) value, for several heads.

    Args:
        query: (batch, queries, heads, size).
        key: (batch, keys, key heads, size): one for several query heads is shared by them.
        value: (batch, keys, key heads, value size).
        bias: added to the scores, broadcast to (batch, heads, queries, keys).
        mask: booleans, broadcast to the same; False hides a key. Queries without any key see all.
        scale: 1 / sqrt(size) by default.
        is_causal: queries see no later keys.
        flash_attention: None or False; there is one way to compute it.
        attn_logits_soft_cap: c makes scores c * tanh(scores / c), before bias and mask.

    Returns:
        (batch, queries, heads, value size).
    """
    if flash_attention:
        raise ValueError("dot_product_attention: there is no flash attention; leave it at None")
    q, k, v = operands(query, key, value, floating=True)
    for name, tensor in (("query", q), ("key", k), ("value", v)):
        if B.known_rank(tensor, "dot_product_attention") != 4:
            raise refused(
                f"dot_product_attention: {name} has shape {format_shape(B.shape(tensor))}; it "
                "takes (batch, length, heads, size)"
            )
    heads, shared = B.dim(q, 2), B.dim(k, 2)
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        raise refused(f"dot_product_attention: {heads} query heads cannot share {shared} key heads")
    if scale is None:
        size = B.dim(q, 3)
        if not isinstance(size, int):
            raise refused("dot_product_attention: size is not known; give it a scale")
        scale = 1.0 / math.sqrt(size)
    weights = attention_weights(
        B.op("Transpose", q, perm=[0, 2, 1, 3]),
        B.op("Transpose", k, perm=[0, 2, 3, 1]),
        scale=scale,
        bias=bias,
        mask=mask,
        is_causal=is_causal,
        soft_cap=attn_logits_soft_cap,
    )
    return B.op(
        "Transpose", attended(weights, B.op("Transpose", v, perm=[0, 2, 1, 3])), perm=[0, 2, 1, 3]
    )


def attention_weights(
    query: Tensor,
    key: Tensor,
    *,
    scale: float,
    bias: Any = None,
    mask: Any = None,
    is_causal: bool = False,
    soft_cap: float | None = None,
) -> Tensor:
    """The probabilities of attention, (batch, heads, queries, keys).

    Args:
        query: (batch, heads, queries, size).
        key: (batch, key heads, size, keys), transposed for the product.
    """
    allowed = _allowed(mask, is_causal, query, key)
    factor: Any = scale
    offset = None if bias is None else convert_to_tensor(bias, query.dtype)
    if mask is not None:
        # No gradient comes from queries without any key.
        sees = B.op("ReduceMax", allowed, [-1], keepdims=1)
        factor = B.op("Mul", sees, scale)
        offset = None if offset is None else B.op("Mul", offset, sees)
    scores = B.op("MatMul", _per_key_head(B.op("Mul", query, factor), query, key), key)
    scores = _per_query_head(scores, query, key)
    if soft_cap is not None:
        scores = B.op("Mul", B.op("Tanh", B.op("Div", scores, soft_cap)), soft_cap)
    if allowed is not None:
        # So low that the score itself is lost in the sum.
        lowest = 0.7 * float(ml_dtypes.finfo(query.dtype).max)  # type: ignore[no-untyped-call]
        hidden = B.op("Mul", B.op("Sub", allowed, 1.0), lowest)
        offset = hidden if offset is None else B.op("Add", offset, hidden)
    if offset is not None:
        scores = B.op("Add", scores, offset)
    return B.cast(B.op("Softmax", in_float32(scores), axis=-1), scores.dtype)


def attended(weights: Tensor, value: Tensor) -> Tensor:
    """weights (batch, heads, queries, keys) times value (batch, key heads, keys, size)."""
    product = B.op("MatMul", _per_key_head(weights, weights, value), value)
    return _per_query_head(product, weights, value)


def _shares(query: Tensor, key: Tensor) -> bool:
    heads, shared = B.dim(query, 1), B.dim(key, 1)
    return heads != shared or heads is None


def _per_key_head(x: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The rows of all query heads that share a key head as rows of one matrix."""
    if not _shares(query, key):
        return x
    sizes = [B.constant([0]), B.dim_tensor(key, 1), B.constant([-1]), B.dim_tensor(x, 3)]
    return B.op("Reshape", x, B.op("Concat", *sizes, axis=0))


def _per_query_head(x: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The reverse of `_per_key_head`."""
    if not _shares(query, key):
        return x
    sizes = [B.constant([0]), B.dim_tensor(query, 1), B.dim_tensor(query, 2), B.dim_tensor(x, 3)]
    return B.op("Reshape", x, B.op("Concat", *sizes, axis=0))


def _allowed(mask: Any, is_causal: bool, query: Tensor, key: Tensor) -> Tensor | None:
    """1 where a query sees a key, else 0, broadcast to the scores; None where all see all."""
    dtype = query.dtype
    allowed = None if mask is None else B.cast(convert_to_tensor(mask, BOOL), dtype)
    if not is_causal:
        return allowed
    zero, one = B.constant(np.int64(0)), B.constant(np.int64(1))
    rows = B.op("Range", zero, B.op("Squeeze", B.dim_tensor(query, 2)), one)
    columns = B.op("Range", zero, B.op("Squeeze", B.dim_tensor(key, 3)), one)
    earlier = B.cast(B.op("LessOrEqual", columns, B.op("Unsqueeze", rows, [1])), dtype)
    return earlier if allowed is None else B.op("Mul", allowed, earlier)
