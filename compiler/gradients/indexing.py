"""Gradients of gathers, scatters and selections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


def put_back(b: B, x: Any, g: Any, pick: Callable[[Any], Any], *, reduction: str) -> Any:
    """The gradient by `x` of an operator that only picks elements of it.

    Each entry of `g` goes where `pick`, applied to the elements' own numbers, says that it came
    from. Reduction "none" will do where no element is picked twice, else "add".
    """
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    numbers = b.reshape_like(b.op("Range", zero, b.op("Size", x), one), x)
    places = b.op("Reshape", pick(numbers), [-1])
    zeros = b.op("Reshape", b.full_like(x, 0.0), [-1])
    flat = b.op("Reshape", g, [-1])
    return b.reshape_like(
        b.op("ScatterElements", zeros, places, flat, axis=0, reduction=reduction), x
    )


@gradient("Gather")
def gather(b: B, n: N, g: Any) -> list[Any]:
    """Rows of g added where they came from; an index that occurs twice gets both."""
    x, indices = n.required(0), n.required(1)
    rank = b.known_rank(x, "Gather's gradient")
    axis = n.attribute("axis", 0) % rank
    places = b.op("Unsqueeze", indices, [-1])
    if axis == 0:
        return [b.op("ScatterND", b.full_like(x, 0.0), places, g, reduction="add"), None]
    # ScatterND indexes leading axes only: bring the gathered axis to the front and back.
    index_rank = b.known_rank(indices, "Gather's gradient")
    front = [
        *range(axis, axis + index_rank),
        *range(axis),
        *range(axis + index_rank, rank - 1 + index_rank),
    ]
    to_front = [axis, *[i for i in range(rank) if i != axis]]
    zeros = b.op("Transpose", b.full_like(x, 0.0), perm=to_front)
    updates = b.op("Transpose", g, perm=front)
    scattered = b.op("ScatterND", zeros, places, updates, reduction="add")
    return [b.op("Transpose", scattered, perm=[int(i) for i in np.argsort(to_front)]), None]


@gradient("GatherElements")
def gather_elements(b: B, n: N, g: Any) -> list[Any]:
    zeros = b.full_like(n.required(0), 0.0)
    axis = n.attribute("axis", 0)
    return [b.op("ScatterElements", zeros, n.required(1), g, axis=axis, reduction="add"), None]


@gradient("GatherND")
def gather_nd(b: B, n: N, g: Any) -> list[Any]:
    x, indices, batch_dims = n.required(0), n.required(1), n.attribute("batch_dims", 0)
    if batch_dims:

        def pick(numbers: Any) -> Any:
            return b.op("GatherND", numbers, indices, batch_dims=batch_dims)

        return [put_back(b, x, g, pick, reduction="add"), None]
    return [b.op("ScatterND", b.full_like(x, 0.0), indices, g, reduction="add"), None]


@gradient("ScatterElements")
def scatter_elements(b: B, n: N, g: Any) -> list[Any]:
    indices, axis = n.required(1), n.attribute("axis", 0)

    def overwrite(zeros: Any) -> Any:
        return b.op("ScatterElements", g, indices, zeros, axis=axis)

    _refuse_reductions(n)
    return [
        lambda: _kept_data(b, n, g, overwrite),
        None,
        lambda: b.op("GatherElements", g, indices, axis=axis),
    ]


@gradient("ScatterND")
def scatter_nd(b: B, n: N, g: Any) -> list[Any]:
    indices = n.required(1)
    _refuse_reductions(n)
    return [
        lambda: _kept_data(b, n, g, lambda zeros: b.op("ScatterND", g, indices, zeros)),
        None,
        lambda: b.op("GatherND", g, indices),
    ]


def _refuse_reductions(n: N) -> None:
    reduction = n.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise Refusal(f"reduction '{reduction}' has no rule yet; 'none' and 'add' have")


def _kept_data(b: B, n: N, g: Any, overwrite: Callable[[Any], Any]) -> Any:
    """What reaches the data: everything when updates were added, else what was not overwritten.

    With reduction "none" the indices must be distinct, as ONNX requires.
    """
    if n.attribute("reduction", "none") == "add":
        return g
    return overwrite(b.full_like(n.required(2), 0.0))


@gradient("OneHot")
def one_hot(b: B, n: N, g: Any) -> list[Any]:
    """`values` is (off, on): each gets the gradients of the places it fills."""

    def values() -> Any:
        indices, depth = n.required(0), n.required(1)
        unit = b.constant(np.asarray([0, 1], b.dtype(g)))
        hot = b.op("OneHot", indices, depth, unit, axis=n.attribute("axis", -1))
        on = b.op("ReduceSum", b.op("Mul", g, hot), keepdims=0)
        off = b.op("Sub", b.op("ReduceSum", g, keepdims=0), on)
        return b.op("Concat", b.op("Reshape", off, [1]), b.op("Reshape", on, [1]), axis=0)

    return [None, None, values]


@gradient("TopK")
def top_k(b: B, n: N, g: Any, _: Any = None) -> list[Any]:
    zeros = b.full_like(n.required(0), 0.0)
    axis = n.attribute("axis", -1)
    return [b.op("ScatterElements", zeros, n.outputs[1], g, axis=axis), None]
