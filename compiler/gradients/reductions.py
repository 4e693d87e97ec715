"""Gradients of reductions and cumulative sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

B = Builder[Any]
N = Record[Any]


def _is_noop(b: B, n: N) -> bool:
    """Whether this reduction reduces nothing: empty axes that do not mean all of them."""
    if not n.attribute("noop_with_empty_axes", 0):
        return False
    axes = n.input(1)
    known = None if axes is None else b.constant_value(axes)
    return axes is None or (known is not None and known.size == 0)


def _reduce(b: B, n: N, op_type: str, x: Any) -> Any:
    """`x` reduced by another operator over the node's axes, which are kept as size 1."""
    noop = n.attribute("noop_with_empty_axes", 0)
    return b.op(op_type, x, n.input(1), keepdims=1, noop_with_empty_axes=noop)


def _kept(b: B, n: N, reduced: Any) -> Any:
    """`reduced`, a tensor of the output's shape, with the reduced axes back as size 1."""
    if n.attribute("keepdims", 1) or _is_noop(b, n):
        return reduced
    x, axes = n.required(0), n.input(1)
    known = None if axes is None else b.constant_value(axes)
    if axes is not None and known is None:
        return b.reshape_like(reduced, _reduce(b, n, "ReduceSum", x))
    if known is None or known.size == 0:
        rank = b.known_rank(x, f"{n.op_type}'s gradient")
        return b.op("Reshape", reduced, [1] * rank) if rank else reduced
    return b.op("Unsqueeze", reduced, known.astype(np.int64))


def _count(b: B, n: N) -> Any:
    """How many elements each output element was reduced from: a number or a scalar tensor."""
    x, out = n.required(0), n.outputs[0]
    x_shape, out_shape = b.shape(x), b.shape(out)
    if is_static(x_shape) and is_static(out_shape):
        return math.prod(x_shape) / max(math.prod(out_shape), 1)
    # Divided as integers: the size of a whole float16 tensor may be beyond float16's range.
    count = b.op("Div", b.op("Size", x), b.op("Max", b.op("Size", out), 1))
    return b.cast(count, b.dtype(x))


@gradient("ReduceSum")
def reduce_sum(b: B, n: N, g: Any) -> list[Any]:
    return [b.expand_like(_kept(b, n, g), n.required(0)), None]


@gradient("ReduceMean")
def reduce_mean(b: B, n: N, g: Any) -> list[Any]:
    share = b.op("Div", g, _count(b, n))
    return [b.expand_like(_kept(b, n, share), n.required(0)), None]


@gradient("ReduceMax", "ReduceMin")
def reduce_max_min(b: B, n: N, g: Any) -> list[Any]:
    """Ties share the gradient equally, as torch.amax does."""
    x = n.required(0)
    if _is_noop(b, n):
        return [g, None]
    mask = b.cast(b.op("Equal", x, _kept(b, n, n.outputs[0])), b.dtype(x))
    ties = _reduce(b, n, "ReduceSum", mask)
    return [b.op("Mul", mask, b.op("Div", _kept(b, n, g), ties)), None]


@gradient("ReduceProd")
def reduce_prod(b: B, n: N, g: Any) -> list[Any]:
    """The product of the others, exact where one or several factors are zero.

    Higher derivatives are right where none is.
    """
    x = n.required(0)
    if _is_noop(b, n):
        return [g, None]
    dtype = b.dtype(x)
    zero, one = np.zeros((), dtype), np.ones((), dtype)
    is_zero = b.op("Equal", x, 0.0)
    zeros = _reduce(b, n, "ReduceSum", b.cast(is_zero, dtype))
    nonzero = b.op("Where", is_zero, one, x)
    product = _reduce(b, n, "ReduceProd", nonzero)
    only_this = b.op("And", is_zero, b.op("Equal", zeros, 1.0))
    others = b.op(
        "Where",
        b.op("Equal", zeros, 0.0),
        b.op("Div", product, nonzero),
        b.op("Where", only_this, product, zero),
    )
    return [b.op("Mul", others, _kept(b, n, g)), None]


@gradient("ReduceL1")
def reduce_l1(b: B, n: N, g: Any) -> list[Any]:
    """Zero at zero."""
    return [b.op("Mul", b.op("Sign", n.required(0)), _kept(b, n, g)), None]


@gradient("ReduceL2")
def reduce_l2(b: B, n: N, g: Any) -> list[Any]:
    """x / norm; zero where the norm is zero, as torch.linalg.vector_norm."""
    x, norm = n.required(0), _kept(b, n, n.outputs[0])
    safe = b.op("Where", b.op("Equal", norm, 0.0), np.ones((), b.dtype(x)), norm)
    return [b.op("Mul", x, b.op("Div", _kept(b, n, g), safe)), None]


@gradient("ReduceSumSquare")
def reduce_sum_square(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Mul", n.required(0), b.op("Mul", _kept(b, n, g), 2.0)), None]


@gradient("ReduceLogSum")
def reduce_log_sum(b: B, n: N, g: Any) -> list[Any]:
    total = b.op("Exp", n.outputs[0])
    return [b.expand_like(_kept(b, n, b.op("Div", g, total)), n.required(0)), None]


@gradient("ReduceLogSumExp")
def reduce_log_sum_exp(b: B, n: N, g: Any) -> list[Any]:
    """The softmax over the reduced axes."""
    weights = b.op("Exp", b.op("Sub", n.required(0), _kept(b, n, n.outputs[0])))
    return [b.op("Mul", weights, _kept(b, n, g)), None]


@gradient("CumSum")
def cumsum(b: B, n: N, g: Any) -> list[Any]:
    back = b.op(
        "CumSum",
        g,
        n.required(1),
        exclusive=n.attribute("exclusive", 0),
        reverse=1 - n.attribute("reverse", 0),
    )
    return [back, None]
