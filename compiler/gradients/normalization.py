"""Gradients of normalizations.

Those that training uses all the time are written for few passes over memory: means over a row that
a weight scales are products with the column of weights, everything else that one row shares is
joined into one number per row first. 16-bit floats are computed in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.dtypes import DType
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


def wide(dtype: DType) -> DType:
    """The dtype to compute in."""
    return np.dtype(np.float32) if dtype.itemsize < 4 else dtype


def count_along(b: B, x: Any, axes: list[int]) -> Any:
    """How many elements x has along the axes, as a number or a scalar of x's dtype."""
    dims = tuple(b.dim(x, axis) for axis in axes)
    if is_static(dims):
        return float(max(math.prod(dims), 1))
    sizes = b.op("Concat", *[b.dim_tensor(x, axis) for axis in axes], axis=0)
    return b.cast(b.op("ReduceProd", sizes, keepdims=0), b.dtype(x))


def inverse_std(b: B, variance: Any, epsilon: float) -> Any:
    """1 / sqrt(variance + epsilon)."""
    return b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, epsilon)))


def by_channel(b: B, values: Any, rank: int) -> Any:
    """A vector, one entry per channel, ready to be broadcast along axis 1."""
    return b.op("Unsqueeze", values, list(range(1, rank - 1))) if rank > 2 else values


# Over the last axes: LayerNormalization and RMSNormalization -------------------------------------


class _Rows:
    """A node's tensors as matrices of one row per normalization, and what rows share.

    Attributes:
        shifted: x - mean, x itself for RMSNormalization, (rows, columns).
        inverse_std: (rows, 1).
        scale: (1, columns); and as a column, divided by how many there are.
        columns: how many there are.
    """

    def __init__(self, b: B, n: N, *, centered: bool) -> None:
        x, scale = n.required(0), n.required(1)
        rank = b.known_rank(x, f"{n.op_type}'s gradient")
        self.axis = n.attribute("axis", -1) % rank
        self.dtype = wide(b.dtype(x))
        flat = b.op("Flatten", b.cast(x, self.dtype), axis=self.axis)
        self.scale = b.op("Reshape", b.cast(scale, self.dtype), [1, -1])
        size, columns = b.dim(self.scale, 1), b.dim(flat, 1)
        if isinstance(size, int) and isinstance(columns, int) and size != columns:
            raise Refusal(f"its scale has {size} elements for {columns} that are normalized")
        self.columns = count_along(b, flat, [1])
        shares = b.op("Reshape", self.scale, [-1, 1])
        if isinstance(columns, int):
            # Not by a number: ONNX Runtime would fuse that with the product, which then is slower.
            shares = b.op("Mul", shares, np.full((columns, 1), 1 / self.columns, self.dtype))
        else:
            shares = b.op("Div", shares, self.columns)
        self.shares = shares
        known = self._stored(b, n) if centered else None
        if known is not None:
            mean, self.inverse_std = known
            self.shifted = b.op("Sub", flat, mean)
            return
        self.shifted = b.op("Sub", flat, b.op("ReduceMean", flat, [1])) if centered else flat
        variance = b.op("ReduceMean", b.op("Mul", self.shifted, self.shifted), [1])
        self.inverse_std = inverse_std(b, variance, n.attribute("epsilon", 1e-5))

    def _stored(self, b: B, n: N) -> tuple[Any, Any] | None:
        """The mean and the inverse deviation that the node itself puts out, if it does."""
        # They are float32 even where x is float64.
        outputs = b.outputs_of(n, 3) if self.dtype == np.float32 else None
        if outputs is None:
            return None
        return self.matrix(b, outputs[1]), self.matrix(b, outputs[2])

    def matrix(self, b: B, value: Any) -> Any:
        """`value`, of x's shape or with ones for the normalized axes, by rows."""
        return b.op("Flatten", b.cast(value, self.dtype), axis=self.axis)

    def gradients(self, b: B, n: N, g: Any, by_row: Any, by_normalized: Any) -> list[Any]:
        """By x, scale and bias.

        With z = shifted * inverse_std the gradient by x is
        inverse_std * (g scale - by_row - z * (by_normalized + mean(g scale z))).

        Args:
            g: the output's gradient, or None.
            by_row, by_normalized: (rows, 1), or None for zero.
        """
        x, scale, r = n.required(0), n.required(1), self.inverse_std
        back = product = None
        if g is not None:
            g = self.matrix(b, g)
            # z itself is not needed: its factor per row goes into the products.
            product = b.op("Mul", g, self.shifted)
            mean = b.op("Mul", b.op("MatMul", product, self.shares), r)
            by_normalized = mean if by_normalized is None else b.op("Add", mean, by_normalized)
            back = b.op("Mul", g, self.scale)
        terms = [] if by_row is None else [by_row]
        if by_normalized is not None:
            terms.append(b.op("Mul", self.shifted, b.op("Mul", by_normalized, r)))

        def dx() -> Any:
            total = back
            for term in terms:
                total = b.op("Neg", term) if total is None else b.op("Sub", total, term)
            total = b.expand_like(b.op("Mul", total, r), self.shifted)
            return b.reshape_like(b.cast(total, b.dtype(x)), x)

        def dscale() -> Any:
            total = b.op("MatMul", b.op("Reshape", r, [1, -1]), product)
            return b.reshape_like(b.cast(total, b.dtype(scale)), scale)

        def dbias() -> Any:
            bias = n.input(2)
            total = b.op("ReduceSum", g, [0], keepdims=0)
            return b.reshape_like(b.cast(total, b.dtype(bias)), bias)

        return [dx, None, None] if g is None else [dx, dscale, dbias]


@gradient("LayerNormalization")
def layer_normalization(
    b: B, n: N, g: Any = None, g_mean: Any = None, g_inverse: Any = None
) -> list[Any]:
    """With z = (x - mean) * r: dx = r * (g s - mean(g s) - z * mean(g s z)).

    Gradients of the mean and of r, the inverse deviation, join the terms that a row shares.
    """
    rows = _Rows(b, n, centered=True)
    by_row = by_normalized = None
    if g is not None:
        by_row = b.op("MatMul", rows.matrix(b, g), rows.shares)
    if g_mean is not None:
        share = b.op("Div", rows.matrix(b, g_mean), b.op("Mul", rows.inverse_std, rows.columns))
        by_row = b.op("Neg", share) if by_row is None else b.op("Sub", by_row, share)
    if g_inverse is not None:
        by_normalized = b.op("Mul", rows.matrix(b, g_inverse), rows.inverse_std)
        by_normalized = b.op("Div", by_normalized, rows.columns)
    return rows.gradients(b, n, g, by_row, by_normalized)


@gradient("RMSNormalization")
def rms_normalization(b: B, n: N, g: Any) -> list[Any]:
    """With z = x * r: dx = r * (g s - z * mean(g s z))."""
    return _Rows(b, n, centered=False).gradients(b, n, g, None, None)[:2]


# Within a sample ---------------------------------------------------------------------------------


def _standardized(b: B, x: Any, axes: list[int], epsilon: float) -> Any:
    """(x - mean) / sqrt(variance + epsilon) over the axes."""
    shifted = b.op("Sub", x, b.op("ReduceMean", x, axes))
    variance = b.op("ReduceMean", b.op("Mul", shifted, shifted), axes)
    return b.op("Mul", shifted, inverse_std(b, variance, epsilon))


def _scaled(b: B, n: N, normalized: Any, rank: int) -> Any:
    """normalized * scale + bias, both per channel; in the input's dtype."""
    dtype = b.dtype(normalized)
    scale, bias = (by_channel(b, b.cast(n.required(i), dtype), rank) for i in (1, 2))
    y = b.op("Add", b.op("Mul", normalized, scale), bias)
    return b.cast(y, b.dtype(n.required(0)))


@expansion("InstanceNormalization")
def instance_normalization(b: B, n: N) -> list[Any]:
    x = n.required(0)
    rank = b.known_rank(x, "InstanceNormalization's gradient")
    wide_x = b.cast(x, wide(b.dtype(x)))
    normalized = _standardized(b, wide_x, list(range(2, rank)), n.attribute("epsilon", 1e-5))
    return [_scaled(b, n, normalized, rank)]


@expansion("GroupNormalization")
def group_normalization(b: B, n: N) -> list[Any]:
    """Of opset 21: scale and bias have one entry per channel."""
    x = n.required(0)
    rank = b.known_rank(x, "GroupNormalization's gradient")
    wide_x = b.cast(x, wide(b.dtype(x)))
    # 0: the batch stays as it is.
    groups = b.op("Reshape", wide_x, [0, n.attribute("num_groups"), -1])
    normalized = _standardized(b, groups, [2], n.attribute("epsilon", 1e-5))
    return [_scaled(b, n, b.reshape_like(normalized, x), rank)]


@expansion("MeanVarianceNormalization")
def mean_variance_normalization(b: B, n: N) -> list[Any]:
    """(x - mean) / (deviation + 1e-9); where the deviation is zero, so is its derivative."""
    x, axes = n.required(0), list(n.attribute("axes", (0, 2, 3)))
    rank = b.known_rank(x, "MeanVarianceNormalization's gradient")
    wide_x = b.cast(x, wide(b.dtype(x)))
    shifted = b.op("Sub", wide_x, b.op("ReduceMean", wide_x, axes))
    count = count_along(b, wide_x, [axis % rank for axis in axes])
    root = math.sqrt(count) if isinstance(count, float) else b.op("Sqrt", count)
    deviation = b.op("Div", b.op("ReduceL2", shifted, axes), root)
    return [b.cast(b.op("Div", shifted, b.op("Add", deviation, 1e-9)), b.dtype(x))]


@gradient("LpNormalization")
def lp_normalization(b: B, n: N, g: Any) -> list[Any]:
    """(g - dnorm/dx * sum(g * y)) / norm; zero where the norm is zero."""
    x, y, axis, p = n.required(0), n.outputs[0], n.attribute("axis", -1), n.attribute("p", 2)
    norm = b.op("ReduceL1" if p == 1 else "ReduceL2", x, [axis], keepdims=1)
    slope = b.op("Sign", x) if p == 1 else y
    dot = b.op("ReduceSum", b.op("Mul", g, y), [axis], keepdims=1)
    zero, one = (np.asarray(value, b.dtype(x)) for value in (0, 1))
    is_zero = b.op("Equal", norm, 0.0)
    inverse = b.op("Reciprocal", b.op("Where", is_zero, one, norm))
    inverse = b.op("Where", is_zero, zero, inverse)
    return [b.op("Mul", b.op("Sub", g, b.op("Mul", slope, dot)), inverse)]


@gradient("LRN")
def lrn(b: B, n: N, g: Any) -> list[Any]:
    """y = x / d^beta, d = bias + alpha / size * (a sum of squares over near channels).

    dx = g / d^beta - 2 alpha beta / size * x * (the sum of g y / d over channels that are near).
    """
    x, y = n.required(0), n.outputs[0]
    size, alpha = n.attribute("size"), n.attribute("alpha", 1e-4)
    beta, bias = n.attribute("beta", 0.75), n.attribute("bias", 1.0)
    near = _near_channels(b, x, size)

    def summed(values: Any, transposed: bool) -> Any:
        flat = b.op("Reshape", values, [0, 0, -1])
        band = b.op("Transpose", near, perm=[1, 0]) if transposed else near
        return b.reshape_like(b.op("MatMul", band, flat), x)

    squares = b.op("Mul", summed(b.op("Mul", x, x), False), alpha / size)
    d = b.op("Add", squares, bias)
    direct = b.op("Mul", g, b.op("Pow", d, -beta))
    shared = summed(b.op("Div", b.op("Mul", g, y), d), True)
    return [b.op("Sub", direct, b.op("Mul", b.op("Mul", x, 2 * alpha * beta / size), shared))]


def _near_channels(b: B, x: Any, size: int) -> Any:
    """1 where channel `column` is in the window of channel `row`, else 0."""
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    channel = b.op("Range", zero, b.op("Squeeze", b.dim_tensor(x, 1)), one)
    ahead = b.op("Sub", channel, b.op("Unsqueeze", channel, [1]))
    after = b.op("GreaterOrEqual", ahead, -((size - 1) // 2))
    before = b.op("LessOrEqual", ahead, size // 2)
    return b.cast(b.op("And", after, before), b.dtype(x))
