"""Gradients of reductions, cumulative sums and products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.gradients.places import compare_positions, identity_mask, parted
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
        shape = b.shape(x)
        # A scalar broadcasts as it is, also to a rank that only run time tells.
        return b.op("Reshape", reduced, [1] * len(shape)) if shape else reduced
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
    """The product of the others: nothing is divided, so zeros are no exception."""
    if _is_noop(b, n):
        return [g, None]
    return [b.op("Mul", _other_factors(b, n), _kept(b, n, g)), None]


def _other_factors(b: B, n: N) -> Any:
    """For each element, the product of those that are reduced to one with it."""
    x, axes = n.required(0), n.input(1)
    known = np.asarray([]) if axes is None else b.constant_value(axes)
    rank = b.rank(x)
    if known is None or rank is None:
        return _other_members(b, n)
    reduced = sorted({int(a) % rank for a in known} if known.size else range(rank))
    perm = [*(i for i in range(rank) if i not in reduced), *reduced]
    in_place = perm == sorted(perm)
    moved = x if in_place else b.op("Transpose", x, perm=perm)
    rows = b.op("Flatten", moved, axis=rank - len(reduced))
    others = b.reshape_like(products_of_others(b, rows), moved)
    return (
        others if in_place else b.op("Transpose", others, perm=[perm.index(i) for i in range(rank)])
    )


def _other_members(b: B, n: N) -> Any:
    """The same where axes come at run time: elements with the same group's number are compared."""
    x = n.required(0)
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    totals = _reduce(b, n, "ReduceSum", x)
    groups = b.reshape_like(b.op("Range", zero, b.op("Size", totals), one), totals)
    group = b.op("Reshape", b.op("Expand", groups, b.op("Shape", x)), [-1])
    flat = b.op("Reshape", x, [1, -1])
    mates = b.op("Equal", b.op("Unsqueeze", group, [1]), group)
    self = identity_mask(b, flat, 1, (0, 1), 2)
    factors = b.op("Where", b.op("And", mates, b.op("Not", self)), flat, np.ones((), b.dtype(x)))
    return b.reshape_like(b.op("ReduceProd", factors, [1], keepdims=0), x)


def products_of_others(b: B, rows: Any) -> Any:
    """For each element of a matrix, the product of the other elements of its row."""
    size = b.dim(rows, 1)
    if isinstance(size, int):
        before, after = (_products_before(b, rows, size, sign) for sign in (1, -1))
        return b.op("Mul", before, after)
    one = np.ones((), b.dtype(rows))
    itself = identity_mask(b, rows, 1, (1, 2), 3)
    factors = b.op("Where", itself, one, b.op("Unsqueeze", rows, [1]))
    return b.op("ReduceProd", factors, [2], keepdims=0)


def _products_before(b: B, rows: Any, size: int, sign: int) -> Any:
    """Exclusive products from the left (`sign` 1) or the right (-1), in log2(size) steps."""

    def shifted(value: Any, by: int) -> Any:
        by = min(by, size)
        return b.op("Pad", value, [by * sign, -by * sign], 1.0, [1])

    products, reach = shifted(rows, 1), 1
    while reach < size - 1:
        products = b.op("Mul", products, shifted(products, reach))
        reach *= 2
    return products


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


@gradient("CumProd")
def cumprod(b: B, n: N, g: Any) -> list[Any]:
    """What comes before an element, times what g makes of those after it.

    Nothing is divided, so zeros among the factors are no exception.
    """
    x, axis = n.required(0), n.required(1)
    flags = {"exclusive": n.attribute("exclusive", 0), "reverse": n.attribute("reverse", 0)}
    known = b.constant_value(axis)
    if known is not None:
        place = int(known.item()) % b.known_rank(x, "CumProd's gradient")
        return [_cumprod_back(b, x, g, place, **flags), None]
    shape = parted(b, x, axis)
    flat, flat_g = (b.op("Reshape", value, shape, allowzero=1) for value in (x, g))
    return [b.reshape_like(_cumprod_back(b, flat, flat_g, 1, **flags), x), None]


def _cumprod_back(b: B, x: Any, g: Any, axis: int, exclusive: int, reverse: int) -> Any:
    size = b.dim(x, axis)
    if not isinstance(size, int):
        return _cumprod_by_pairs(b, x, g, axis, exclusive, reverse)
    back = -1 if reverse else 1

    def ahead(value: Any, by: int) -> Any:
        by = min(by, size)
        return b.op("Pad", value, [-by * back, by * back], None, [axis])

    # total[i] = g[i] + x[i + 1] total[i + 1], solved by doubling how far each element sees.
    before = b.op("CumProd", x, b.constant(np.int64(axis)), exclusive=1, reverse=reverse)
    total = ahead(g, 1) if exclusive else g
    factor, reach = ahead(x, 1), 1
    while reach < size:
        total = b.op("Add", total, b.op("Mul", factor, ahead(total, reach)))
        factor = b.op("Mul", factor, ahead(factor, reach))
        reach *= 2
    return b.op("Mul", before, total)


def _cumprod_by_pairs(b: B, x: Any, g: Any, axis: int, exclusive: int, reverse: int) -> Any:
    """The same for an axis of unknown length: each element's effect on each product."""
    rank, dtype = b.known_rank(x, "CumProd's gradient") + 1, b.dtype(x)
    axes = (axis, axis + 1)
    itself = identity_mask(b, x, axis, axes, rank)
    factors = b.op("Where", itself, np.ones((), dtype), b.op("Unsqueeze", x, [axis]))
    last = b.constant(np.int64(axis + 1))
    products = b.op("CumProd", factors, last, exclusive=exclusive, reverse=reverse)
    compare = ("Greater" if reverse else "Less") + ("" if exclusive else "OrEqual")
    counts = compare_positions(b, compare, x, axis, axes, rank)
    effects = b.op("Where", counts, products, np.zeros((), dtype))
    return b.op(
        "ReduceSum", b.op("Mul", effects, b.op("Unsqueeze", g, [axis])), [axis + 1], keepdims=0
    )
