"""Gradients of pooling.

Where windows neither overlap nor are padded, a pooling gradient repeats what belongs to a window
over its elements, in float kernels alone. Otherwise MaxPool's goes back by the indices of its
maxima, and averages by one matrix per axis. MaxPool with indices takes ONNX Runtime six times as
long as without, so they are avoided where windows allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.expansion import expansion
from onnxtape.compiler.gradients.places import scatter_add
from onnxtape.compiler.gradients.separable import (
    identity,
    multiply_back,
    repeated,
    repeats_fast,
)
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


@gradient("MaxPool")
def max_pool(b: B, n: N, g: Any, _: Any = None) -> list[Any]:
    """All to the first maximum of a window in the order of its elements, as PyTorch.

    Nothing where no element equals the maximum: ONNX Runtime's kernel takes -inf for the lowest
    finite number, and skips NaN.
    """
    if len(n.outputs) == 1 and _tiles(b, n):
        return [_back_to_first(b, n, g)]
    x = n.required(0)
    if len(n.outputs) > 1 and not n.attribute("storage_order", 0):
        places = n.outputs[1]
    else:
        attributes = {k: v for k, v in n.attributes.items() if k != "storage_order"}
        places = b.op_multi("MaxPool", x, outputs=2, **attributes)[1]
    zeros = b.op("Reshape", b.full_like(x, 0.0), [-1])
    flat, flat_places = b.op("Reshape", g, [-1]), b.op("Reshape", places, [-1])
    added = scatter_add(b, "ScatterElements", zeros, flat_places, flat, axis=0)
    return [b.reshape_like(added, x)]


def _tiles(b: B, n: N) -> bool:
    """Whether the windows lie side by side, and all sizes of the image are known."""
    x = n.required(0)
    window = n.attribute("kernel_shape")
    strides = n.attribute("strides") or [1] * len(window)
    shape = b.shape(x)
    if shape is None or not is_static(sizes := shape[2:]) or not repeats_fast(b, x):
        return False
    divisible = all(size % w == 0 for size, w in zip(sizes, window, strict=True))
    return (
        list(strides) == list(window)
        and not any(n.attribute("pads") or [])
        and n.attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and all(d == 1 for d in n.attribute("dilations") or [])
        and (divisible or not n.attribute("ceil_mode", 0))
        and all(size >= w for size, w in zip(sizes, window, strict=True))
    )


def _covered(b: B, n: N) -> list[int]:
    """The sizes of what non-overlapping windows cover of the image."""
    sizes = (b.shape(n.required(0)) or ())[2:]
    return [
        int(str(size)) // w * w for size, w in zip(sizes, n.attribute("kernel_shape"), strict=True)
    ]


def _with_margin(b: B, n: N, inner: Any) -> Any:
    """`inner`, which belongs to what windows cover, with zeros for the rest of the image."""
    x = n.required(0)
    rest = [
        int(str(size)) - c for size, c in zip((b.shape(x) or ())[2:], _covered(b, n), strict=True)
    ]
    if not any(rest):
        return b.refine_shape(inner, b.shape(x))
    padded = b.op("Pad", inner, [0] * (2 + len(rest)) + [0, 0, *rest])
    return b.refine_shape(padded, b.shape(x))


def _back_to_first(b: B, n: N, g: Any) -> Any:
    """MaxPool's gradient without indices.

    Elements that equal their window's maximum are ranked by their place in it; the highest rank is
    the first. 7 ms for 3.2 million elements in windows of 2 x 2.
    """
    x, window = n.required(0), list(n.attribute("kernel_shape"))
    covered, spatial = _covered(b, n), list(range(2, 2 + len(window)))
    if (*(b.shape(x) or ())[:2], *covered) != b.shape(x):
        x = b.op("Slice", x, [0] * len(window), covered, spatial)
    dtype, count = b.dtype(x), math.prod(window)
    ranks = np.arange(count, 0, -1).astype(dtype).reshape(window)
    tiles = [c // w for c, w in zip(covered, window, strict=True)]
    pattern = b.op("Tile", b.constant(ranks), tiles)
    is_maximum = b.cast(b.op("Equal", x, repeated(b, n.outputs[0], window)), dtype)
    ranked = b.op("Mul", is_maximum, pattern)
    # At least 1: in a window whose maximum is none of its elements all have rank 0, and none wins.
    best = b.op("Clip", b.op("MaxPool", ranked, kernel_shape=window, strides=window), 1.0)
    is_first = b.cast(b.op("Equal", ranked, repeated(b, best, window)), dtype)
    return _with_margin(b, n, b.op("Mul", repeated(b, g, window), is_first))


@gradient("AveragePool")
def average_pool(b: B, n: N, g: Any) -> list[Any]:
    if _tiles(b, n):
        window = n.attribute("kernel_shape")
        share = b.op("Mul", g, 1.0 / math.prod(window))
        return [_with_margin(b, n, repeated(b, share, window))]
    counts = n.attribute("count_include_pad")
    return [_pooled_back(b, n, g, "AveragePool", count_include_pad=counts)]


@gradient("LpPool")
def lp_pool(b: B, n: N, g: Any) -> list[Any]:
    """Zero where the norm is zero."""
    return [_lp_back(b, n, _pooled_back(b, n, _lp_share(b, n, g), "LpPool", p=1))]


@gradient("GlobalLpPool")
def global_lp_pool(b: B, n: N, g: Any) -> list[Any]:
    """Zero where the norm is zero."""
    return [_lp_back(b, n, _lp_share(b, n, g))]


def _lp_share(b: B, n: N, g: Any) -> Any:
    """g / norm^(p - 1), finite where the norm is zero."""
    p, norm = n.attribute("p", 2), n.outputs[0]
    if p == 1:
        return g
    one = np.ones((), b.dtype(norm))
    safe = b.op("Where", b.op("Equal", norm, 0.0), one, norm)
    return b.op("Div", g, safe if p == 2 else b.op("Pow", safe, float(p - 1)))


def _lp_back(b: B, n: N, shares: Any) -> Any:
    """sign(x) |x|^(p - 1) times what every element gets of the shares."""
    p, x = n.attribute("p", 2), n.required(0)
    if p == 2:
        return b.op("Mul", x, shares)
    sign = b.op("Sign", x)
    if p == 1:
        return b.op("Mul", sign, shares)
    return b.op("Mul", b.op("Mul", sign, b.op("Pow", b.op("Abs", x), float(p - 1))), shares)


@expansion("GlobalAveragePool")
def global_average_pool(b: B, n: N) -> list[Any]:
    rank = b.known_rank(n.required(0), "GlobalAveragePool's gradient")
    return [b.op("ReduceMean", n.required(0), list(range(2, rank)))]


@expansion("GlobalMaxPool")
def global_max_pool(b: B, n: N) -> list[Any]:
    """The first of equal maxima wins, as PyTorch."""
    flat = b.op("Reshape", n.required(0), [0, 0, -1])
    places = b.op("ArgMax", flat, axis=2)
    maxima = b.op("GatherElements", flat, places, axis=2)
    return [b.reshape_like(maxima, n.outputs[0])]


@gradient("MaxUnpool")
def max_unpool(b: B, n: N, g: Any) -> list[Any]:
    """From where each element was put; indices are distinct, or one of them would be lost."""
    if n.input(2) is not None and not _is_default_size(b, n):
        raise Refusal(
            "runtimes disagree about what its indices mean with an output_shape other than the "
            "default one; leave output_shape out, and Pad the result"
        )
    return [b.op("Gather", b.op("Reshape", g, [-1]), n.required(1)), None, None]


def _is_default_size(b: B, n: N) -> bool:
    """Whether MaxUnpool's output_shape is the one that it would have without it."""
    x, window = b.shape(n.required(0)), n.attribute("kernel_shape")
    asked = b.constant_value(n.required(2))
    if asked is None or x is None or not is_static(sizes := x[2:]):
        return False
    strides = n.attribute("strides") or [1] * len(window)
    default = [
        (size - 1) * stride + w - sum(_ends(n, i) or [0])
        for i, (size, stride, w) in enumerate(zip(sizes, strides, window, strict=True))
    ]
    return [int(d) for d in asked[2:]] == default


def _pooled_back(b: B, n: N, g: Any, op_type: str, **attributes: Any) -> Any:
    """`g` multiplied by the transposed matrix of a pooling operator with the node's windows."""
    x = n.required(0)
    for i, window in enumerate(n.attribute("kernel_shape")):
        axis = i + 2
        along = {
            "kernel_shape": [window],
            "strides": _entry(n, "strides", i),
            "dilations": _entry(n, "dilations", i),
            "pads": _ends(n, i),
            "auto_pad": n.attribute("auto_pad"),
            "ceil_mode": n.attribute("ceil_mode"),
        }
        rows = b.op("Unsqueeze", identity(b, x, axis), [0])
        matrix = b.op("Squeeze", b.op(op_type, rows, **along, **attributes), [0])
        matrix = b.refine_shape(matrix, (b.dim(x, axis), b.dim(n.outputs[0], axis)))
        g = multiply_back(b, g, axis, matrix)
    return b.refine_shape(g, b.shape(x))


def _entry(n: N, name: str, i: int) -> list[int] | None:
    given = n.attribute(name)
    return None if given is None else [given[i]]


def _ends(n: N, i: int) -> list[int] | None:
    """The pads before and after along spatial axis `i`."""
    pads: Sequence[int] | None = n.attribute("pads")
    return None if pads is None else [pads[i], pads[i + len(pads) // 2]]
