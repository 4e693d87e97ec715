"""Gradients of gathers and selections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.gradients.places import scatter_add
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

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
    if reduction == "add":
        return b.reshape_like(scatter_add(b, "ScatterElements", zeros, places, flat, axis=0), x)
    return b.reshape_like(b.op("ScatterElements", zeros, places, flat, axis=0), x)


def put_slices(b: B, x: Any, indices: Any, g: Any, axis: int) -> Any:
    """The gradient by `x` of gathering slices along an axis; a slice that is there twice gets both.

    Args:
        axis: counted from the front.
        g: of x's shape with the dimensions of `indices` in the place of `axis`.
    """
    rank = b.known_rank(x, "Gather's gradient")
    # ScatterND takes int64 only.
    places = b.op("Unsqueeze", b.cast(indices, np.dtype(np.int64)), [-1])
    if axis == 0:
        return scatter_add(b, "ScatterND", b.full_like(x, 0.0), places, g)
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
    scattered = scatter_add(b, "ScatterND", zeros, places, updates)
    return b.op("Transpose", scattered, perm=[int(i) for i in np.argsort(to_front)])


@gradient("Gather")
def gather(b: B, n: N, g: Any) -> list[Any]:
    """Slices of g added where they came from."""
    x = n.required(0)
    axis = n.attribute("axis", 0) % b.known_rank(x, "Gather's gradient")
    return [put_slices(b, x, n.required(1), g, axis), None]


@gradient("GatherElements")
def gather_elements(b: B, n: N, g: Any) -> list[Any]:
    zeros = b.full_like(n.required(0), 0.0)
    axis = n.attribute("axis", 0)
    return [scatter_add(b, "ScatterElements", zeros, n.required(1), g, axis=axis), None]


@gradient("GatherND")
def gather_nd(b: B, n: N, g: Any) -> list[Any]:
    x, indices, batch_dims = n.required(0), n.required(1), n.attribute("batch_dims", 0)
    if batch_dims:

        def pick(numbers: Any) -> Any:
            return b.op("GatherND", numbers, indices, batch_dims=batch_dims)

        return [put_back(b, x, g, pick, reduction="add"), None]
    return [scatter_add(b, "ScatterND", b.full_like(x, 0.0), indices, g), None]


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


@gradient("Compress")
def compress(b: B, n: N, g: Any) -> list[Any]:
    condition, axis = n.required(1), n.attribute("axis")

    def pick(numbers: Any) -> Any:
        return b.op("Compress", numbers, condition, axis=axis)

    return [put_back(b, n.required(0), g, pick, reduction="none"), None]


@gradient("Unique")
def unique(b: B, n: N, g: Any, *_: Any) -> list[Any]:
    """To the first of equals, which is the one whose place ONNX gives."""
    x, axis = n.required(0), n.attribute("axis")
    outputs = b.outputs_of(n, 2)
    if outputs is None:
        outputs = b.op_multi("Unique", x, outputs=2, axis=axis, sorted=n.attribute("sorted", 1))
    if axis is not None:
        return [put_slices(b, x, outputs[1], g, axis % b.known_rank(x, "Unique's gradient"))]
    flat = b.op("Reshape", x, [-1])
    return [b.reshape_like(put_slices(b, flat, outputs[1], g, 0), x)]
