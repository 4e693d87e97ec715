"""Hypothesis strategies for gradient cases: operators with shapes, axes and indices at random.

Floating-point inputs hold numbers of which no two are equal or close, over all inputs together, so
that nothing ties. Shapes may be empty, axes negative, and what broadcasts may have size 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import (
    BroadcastableShapes,
    array_shapes,
    broadcastable_shapes,
    mutually_broadcastable_shapes,
)

from tests.compiler.cases import Case
from tests.compiler.graphs import Array

#: Ranges in which the operators are smooth, away from zero where they need it.
BINARY = {
    "Add": (-2, 2), "Sub": (-2, 2), "Mul": (-2, 2), "Div": (0.5, 2), "Pow": (0.5, 2),
    "Max": (-2, 2), "Min": (-2, 2), "Sum": (-2, 2), "Mean": (-2, 2),
}  # fmt: skip
REDUCTIONS = {
    "ReduceSum": (-2, 2), "ReduceMean": (-2, 2), "ReduceMax": (-2, 2), "ReduceMin": (-2, 2),
    "ReduceProd": (-1.4, 1.5), "ReduceL1": (0.2, 2), "ReduceL2": (0.2, 2),
    "ReduceSumSquare": (-2, 2), "ReduceLogSum": (0.3, 2), "ReduceLogSumExp": (-2, 2),
}  # fmt: skip

Draw = st.DrawFn


def numbers(
    draw: Draw, shapes: Sequence[tuple[int, ...]], low: float = -2, high: float = 2
) -> list[Array]:
    """Arrays of these shapes, all their numbers evenly spread and in random order."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    spread = rng.permutation(np.linspace(low, high, sum(sizes) + 2)[1:-1])
    parts = np.split(spread, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def shapes(min_dims: int = 0, min_side: int = 0, max_dims: int = 4) -> st.SearchStrategy[Any]:
    return array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=3)


def together(count: int) -> st.SearchStrategy[BroadcastableShapes]:
    """Shapes that broadcast with each other."""
    return mutually_broadcastable_shapes(num_shapes=count, max_dims=4, min_side=0, max_side=3)


def axis(draw: Draw, rank: int) -> int:
    return draw(st.integers(-rank, rank - 1))


def axes(draw: Draw, rank: int, min_size: int = 0) -> list[int]:
    """Different axes, each counted from the front or from the back."""
    if not rank:
        return []
    chosen = draw(st.lists(st.integers(0, rank - 1), unique=True, min_size=min_size))
    return [a - rank * draw(st.booleans()) for a in chosen]


@st.composite
def elementwise(draw: Draw) -> Case:
    op = draw(st.sampled_from(sorted(BINARY)))
    count = draw(st.integers(1, 4)) if op in ("Max", "Min", "Sum", "Mean") else 2
    return Case(op, numbers(draw, draw(together(count)).input_shapes, *BINARY[op]))


@st.composite
def where(draw: Draw) -> Case:
    condition, *others = draw(together(3)).input_shapes
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return Case("Where", [rng.random(condition) < 0.5, *numbers(draw, others)])


@st.composite
def matmul(draw: Draw) -> Case:
    """With empty batches, not with matrices without columns: a Reshape to (-1, 0) has no answer."""
    m, k, n = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    batch = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=3))
    left: tuple[int, ...] = (*batch.input_shapes[0], m, k)
    right: tuple[int, ...] = (*batch.input_shapes[1], k, n)
    if draw(st.integers(0, 4)) == 0:
        left = (k,)
    elif draw(st.integers(0, 4)) == 0:
        right = (k,)
    return Case("MatMul", numbers(draw, [left, right]))


@st.composite
def gemm(draw: Draw) -> Case:
    m, k, n = (draw(st.integers(1, 3)) for _ in range(3))
    flags = {flag: int(draw(st.booleans())) for flag in ("transA", "transB")}
    left, right = (k, m) if flags["transA"] else (m, k), (n, k) if flags["transB"] else (k, n)
    added = draw(st.none() | broadcastable_shapes((m, n), max_dims=2, max_side=3))
    if added is not None and np.broadcast_shapes(added, (m, n)) != (m, n):
        added = (m, n)
    factors = {name: draw(st.sampled_from([1.0, -0.5, 2.0])) for name in ("alpha", "beta")}
    inputs = numbers(draw, [left, right] if added is None else [left, right, added])
    return Case("Gemm", inputs, {**flags, **factors})


@st.composite
def reduction(draw: Draw) -> Case:
    op = draw(st.sampled_from(sorted(REDUCTIONS)))
    smooth_at_nothing = op in ("ReduceSum", "ReduceL1", "ReduceSumSquare", "ReduceProd")
    shape = draw(shapes(min_side=0 if smooth_at_nothing else 1))
    inputs = numbers(draw, [shape], *REDUCTIONS[op])
    if draw(st.booleans()):
        inputs.append(np.asarray(axes(draw, len(shape)), np.int64))
    flags = {f: int(draw(st.booleans())) for f in ("keepdims", "noop_with_empty_axes")}
    return Case(op, inputs, flags)


@st.composite
def along_axis(draw: Draw) -> Case:
    op = draw(st.sampled_from(["Softmax", "LogSoftmax", "CumSum", "LpNormalization"]))
    shape = draw(shapes(min_dims=1, min_side=1))
    x, chosen = numbers(draw, [shape], 0.2, 2), axis(draw, len(shape))
    if op == "CumSum":
        flags = {f: int(draw(st.booleans())) for f in ("exclusive", "reverse")}
        return Case(op, [*x, np.asarray(chosen)], flags)
    return Case(op, x, {"axis": chosen})


@st.composite
def gather(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1, min_side=1))
    chosen = axis(draw, len(shape))
    op = draw(st.sampled_from(["Gather", "GatherElements"]))
    wanted = draw(shapes(max_dims=2))
    if op == "GatherElements":
        wanted = tuple(draw(st.integers(0, d)) for d in shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    size = shape[chosen]
    return Case(op, [*numbers(draw, [shape]), rng.integers(-size, size, wanted)], {"axis": chosen})


@st.composite
def gather_nd(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1, min_side=1))
    batch = draw(st.integers(0, min(2, len(shape) - 1)))
    depth = draw(st.integers(1, len(shape) - batch))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    places = (*shape[:batch], *draw(shapes(max_dims=2, min_side=1)))
    limits = np.asarray(shape[batch : batch + depth])
    indices = rng.integers(-limits, limits, (*places, depth))
    return Case("GatherND", [*numbers(draw, [shape]), indices], {"batch_dims": batch})


@st.composite
def scatter_elements(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1, min_side=1))
    chosen, rank = axis(draw, len(shape)), len(shape)
    wanted = tuple(draw(st.integers(1, d)) for d in shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    size = shape[chosen]
    reduction = draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    if reduction == "none":
        # Different places along the axis; others would have no one result.
        lines = np.argsort(
            rng.random((*wanted[: chosen % rank], *wanted[chosen % rank + 1 :], size))
        )
        taken = lines[..., : wanted[chosen]]
        indices = np.moveaxis(taken, -1, chosen)
        indices = indices - size * rng.integers(0, 2, wanted)
    else:
        indices = rng.integers(-size, size, wanted)
    data, updates = numbers(draw, [shape, wanted])
    attributes = {"axis": chosen, "reduction": reduction}
    return Case("ScatterElements", [data, indices, updates], attributes)


@st.composite
def scatter_nd(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1, min_side=1))
    depth = draw(st.integers(1, len(shape)))
    limits = shape[:depth]
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count = draw(st.integers(1, int(np.prod(limits))))
    reduction = draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    chosen = rng.choice(int(np.prod(limits)), count, replace=reduction != "none")
    indices = np.stack(np.unravel_index(chosen, limits), axis=-1)
    data, updates = numbers(draw, [shape, (count, *shape[depth:])])
    return Case("ScatterND", [data, indices, updates], {"reduction": reduction})


@st.composite
def slicing(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1, min_side=1))
    cut = axes(draw, len(shape), min_size=1)
    bound = st.integers(-5, 5) | st.sampled_from([2**31 - 1, -(2**31)])
    # Starts before the beginning, with a negative step, mean one thing to NumPy, another to ONNX.
    starts = [draw(st.integers(-shape[a], 5)) for a in cut]
    ends = [draw(bound) for _ in cut]
    steps = [draw(st.sampled_from([1, 1, 2, -1, -2, 3])) for _ in cut]
    vectors = [np.asarray(v, np.int64) for v in (starts, ends, cut, steps)]
    return Case("Slice", [*numbers(draw, [shape]), *vectors])


@st.composite
def padding(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1, min_side=2))
    mode = draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    widest = 1 if mode == "reflect" else 2
    low = -1 if mode == "constant" else 0
    pads = np.asarray([draw(st.integers(low, widest)) for _ in range(2 * len(shape))])
    if (shape + pads.reshape(2, -1).sum(0) < 1).any():
        pads = np.abs(pads)
    value = numbers(draw, [()]) if mode == "constant" and draw(st.booleans()) else []
    return Case("Pad", [*numbers(draw, [shape]), pads, *value], {"mode": mode})


@st.composite
def rearrangement(draw: Draw) -> Case:
    shape = draw(shapes(min_dims=1))
    rank, x = len(shape), numbers(draw, [shape])
    op = draw(
        st.sampled_from(["Transpose", "Expand", "Tile", "Unsqueeze", "Concat", "Split", "Flatten"])
    )
    if op == "Transpose":
        return Case(op, x, {"perm": draw(st.permutations(range(rank)))})
    if op == "Expand":
        wanted = draw(broadcastable_shapes(shape, max_dims=4, max_side=3))
        return Case(op, [*x, np.asarray(wanted, np.int64)])
    if op == "Tile":
        repeats = [draw(st.integers(1, 3)) for _ in shape]
        return Case(op, [*x, np.asarray(repeats)])
    if op == "Unsqueeze":
        count = draw(st.integers(1, 2))
        chosen = draw(st.permutations(range(rank + count)))[:count]
        signed = [a - (rank + count) * draw(st.booleans()) for a in chosen]
        return Case(op, [*x, np.asarray(signed)])
    along = axis(draw, rank)
    if op == "Flatten":
        return Case(op, x, {"axis": draw(st.integers(-rank, rank))})
    lengths = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    pieces = [tuple(n if i == along % rank else d for i, d in enumerate(shape)) for n in lengths]
    if op == "Concat":
        return Case(op, numbers(draw, pieces), {"axis": along})
    whole = tuple(sum(lengths) if i == along % rank else d for i, d in enumerate(shape))
    inputs = [*numbers(draw, [whole]), np.asarray(lengths)]
    return Case(op, inputs, {"axis": along}, outputs=len(lengths))
