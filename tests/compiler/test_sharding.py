"""Steps cut into parts of the batch: parts and rest together compute what the whole graph does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes.blocked.kernel_gradients import DOMAIN
from onnxtape.compiler.sharding import split
from onnxtape.compiler.sharding.placement import Shard, reshaped
from onnxtape.compiler.sharding.split import FIRST_SAMPLE, Split, part_name, split_batch
from tests.compiler.graphs import Array, model_of, new_graph

BATCH, PARTS = 12, 2
FLOAT = np.dtype(np.float32)
INT64 = np.dtype(np.int64)

Build = Callable[[GraphBuilder, Any, Any], Any]


def mean(b: GraphBuilder, x: Any) -> Any:
    return b.op("ReduceMean", x, [0], keepdims=0)


def recurrence(b: GraphBuilder, x: Any, w: Any) -> Any:
    """Steps side by side: (features, steps * batch), the batch inside of the steps."""
    column = b.op("MatMul", w, b.op("Transpose", x, perm=[1, 0]))
    first = b.op("ConstantOfShape", [5, BATCH], value=np.ones(1, np.float32))
    block = b.op("Concat", first, b.op("Tanh", column), b.op("Exp", column), axis=1)
    again = b.op_multi("Split", block, outputs=3, axis=1, num_outputs=3)
    total = b.op("Gemm", block, b.op("Relu", block), transB=1)
    return b.op("Add", total, b.op("Gemm", again[1], again[2], transB=1))


def scattered(b: GraphBuilder, x: Any, w: Any) -> Any:
    places = b.op("ArgMax", x, axis=1, keepdims=1)
    zeros = b.op("ConstantOfShape", [5, 5], value=np.zeros(1, np.float32))
    return b.op("ScatterND", zeros, places, x, reduction="add")


def picked(b: GraphBuilder, x: Any, w: Any) -> Any:
    places = b.op("ArgMax", x, axis=1, keepdims=1)
    found = b.op("GatherElements", b.op("LogSoftmax", x, axis=1), places, axis=1)
    filled = b.op("ScatterElements", np.zeros((BATCH, 5), np.float32), places, found, axis=1)
    return mean(b, b.op("Mul", filled, x))


def image(b: GraphBuilder, x: Any) -> Any:
    return b.op("Reshape", b.op("Concat", x, b.op("Exp", x), axis=1), [BATCH, 1, 2, 5])


def convolved(b: GraphBuilder, x: Any, w: Any) -> Any:
    kernel = b.op("Reshape", b.op("Slice", w, [0], [2], [0]), [2, 1, 1, 5])
    maps = b.op("Conv", image(b, x), kernel, pads=[0, 2, 0, 2])
    back = b.op("ConvTranspose", maps, kernel, np.ones(1, np.float32), strides=[2, 1])
    return mean(b, back)


def pooled(b: GraphBuilder, x: Any, w: Any) -> Any:
    rows = b.op("Reshape", image(b, x), [1, BATCH, 2, 5])
    largest = b.op("MaxPool", rows, kernel_shape=[1, 2])
    means = b.op("AveragePool", b.op("Pad", rows, [0, 0, 1, 1, 0, 0, 0, 0]), kernel_shape=[2, 3])
    joined = b.op("Concat", largest, means, axis=3)
    return b.op("ReduceSum", b.op("GlobalMaxPool", joined), [1])


def both(b: GraphBuilder, x: Any) -> Any:
    return b.op("Concat", x, b.op("Neg", x), axis=0)


def twice(b: GraphBuilder, x: Any, w: Any) -> Any:
    """Two images of each sample, one after the other, and numbers for all of them."""
    return mean(
        b, b.op("Mul", b.op("Exp", both(b, x)), np.arange(2 * BATCH, dtype=np.float32)[:, None])
    )


def resized(b: GraphBuilder, x: Any, w: Any) -> Any:
    larger = b.op("Resize", image(b, x), None, np.float32([1, 1, 2, 2]), mode="linear")
    smaller = b.op("Resize", larger, None, None, np.array([BATCH, 1, 2, 3]), mode="nearest")
    return mean(b, smaller)


#: For each sample two places in it, counted in the whole batch.
PLACES = np.stack([np.repeat(np.arange(BATCH), 2), np.tile([3, 0], BATCH)], -1).reshape(-1, 2, 2)


def by_places(b: GraphBuilder, x: Any, w: Any) -> Any:
    found = b.op("GatherND", x, PLACES)
    again = b.op("GatherND", x, np.full((BATCH, 2, 1), 4), batch_dims=1)
    return mean(b, b.op("Mul", found, again))


def into_rows(b: GraphBuilder, x: Any, w: Any) -> Any:
    zeros = b.op("ConstantOfShape", [4, BATCH, 5], value=np.zeros(1, np.float32))
    filled = b.op("ScatterND", zeros, np.array([[2], [0]]), b.op("Reshape", both(b, x), [2, -1, 5]))
    return b.op("ReduceSum", filled, [1])


CASES: dict[str, Build] = {
    "mean": lambda b, x, w: mean(b, x),
    "mean of everything": lambda b, x, w: b.op("ReduceMean", x, keepdims=0),
    "kept dimensions": lambda b, x, w: b.op("ReduceSum", x, [0], keepdims=1),
    "broadcast": lambda b, x, w: mean(b, b.op("Mul", x, b.op("ReduceMax", x, [1]))),
    "row constant": lambda b, x, w: mean(b, b.op("Add", x, np.arange(5, dtype=np.float32))),
    "constant of each sample": lambda b, x, w: mean(
        b, b.op("Mul", x, np.arange(BATCH, dtype=np.float32)[:, None])
    ),
    "layer": lambda b, x, w: b.op(
        "Gemm", x, b.op("Relu", b.op("MatMul", x, w)), transA=1, alpha=0.5
    ),
    "ones": lambda b, x, w: b.op("MatMul", np.ones(BATCH, np.float32), b.op("MatMul", x, w)),
    "stack of matrices": lambda b, x, w: mean(
        b, b.op("MatMul", b.op("Reshape", x, [BATCH, 5, 1]), b.op("Reshape", x, [BATCH, 1, 5]))
    ),
    "sum of products": lambda b, x, w: b.op(
        "Gemm", x, x, b.op("Gemm", x, b.op("Neg", x), transA=1), transA=1
    ),
    "products of all pairs": lambda b, x, w: b.op("Softmax", b.op("Gemm", x, x, transB=1), axis=1),
    "added matrix": lambda b, x, w: b.op("Gemm", x, x, w, transA=1),
    "positions": lambda b, x, w: b.op(
        "Gemm", b.op("Reshape", x, [BATCH * 5, 1]), b.op("Reshape", x, [-1, 1]), transA=1
    ),
    "heads": lambda b, x, w: mean(
        b, b.op("Transpose", b.op("Reshape", x, [1, BATCH, 1, 5]), perm=[1, 0, 3, 2])
    ),
    "two axes": lambda b, x, w: mean(b, b.op("Reshape", x, [3, BATCH // 3, 5])),
    "normalized": lambda b, x, w: mean(
        b, b.op("LayerNormalization", x, np.float32([1, 2, 3, 4, 5]), axis=-1)
    ),
    "over the batch": lambda b, x, w: b.op("Softmax", x, axis=0),
    "batch statistics": lambda b, x, w: mean(b, b.op("Abs", b.op("Sub", x, mean(b, x)))),
    "each sample": lambda b, x, w: b.op("MatMul", x, w),
    "gathered": lambda b, x, w: mean(b, b.op("Gather", w, b.op("ArgMax", x, axis=1), axis=0)),
    "column": lambda b, x, w: mean(b, b.op("Gather", x, np.array(2), axis=1)),
    "one hot": lambda b, x, w: mean(
        b, b.op("OneHot", b.op("ArgMax", x, axis=1), np.array(5), np.float32([0, 1]))
    ),
    "slice of features": lambda b, x, w: mean(b, b.op("Slice", x, [1], [4], [1])),
    "slice of samples": lambda b, x, w: mean(b, b.op("Slice", x, [1], [4], [0])),
    "repeated": lambda b, x, w: mean(b, b.op("Expand", x, [3, BATCH, 5])),
    "running sum": lambda b, x, w: mean(b, b.op("CumSum", x, np.array(1))),
    "running sum over samples": lambda b, x, w: b.op("CumSum", x, np.array(0)),
    "largest": lambda b, x, w: b.op("ReduceMax", x, [0], keepdims=0),
    "sum of sums": lambda b, x, w: b.op("Sub", mean(b, x), mean(b, b.op("Exp", x))),
    "sum and constant": lambda b, x, w: b.op("Add", mean(b, x), np.ones(5, np.float32)),
    "recurrence": recurrence,
    "scattered": scattered,
    "picked": picked,
    "convolved": convolved,
    "pooled": pooled,
    "places of maxima": lambda b, x, w: b.op_multi(
        "MaxPool", image(b, x), outputs=2, kernel_shape=[2, 2]
    )[1],
    "resized": resized,
    "padded samples": lambda b, x, w: mean(b, b.op("Pad", x, [1, 0, 0, 0])),
    "several for each sample": twice,
    "by places": by_places,
    "places of other samples": lambda b, x, w: mean(b, b.op("GatherND", x, PLACES[::-1].copy())),
    "into rows": into_rows,
    "views of a sum": lambda b, x, w: b.op(
        "Reshape", b.op("Transpose", b.op("Gemm", x, b.op("Exp", x), transA=1), perm=[1, 0]), [-1]
    ),
}


#: Where the first operator sees samples together, so that there is nothing to do in parts.
ALL_TOGETHER = {
    *("over the batch", "slice of samples", "running sum over samples", "largest", "two axes"),
    *("products of all pairs", "added matrix", "padded samples", "places of other samples"),
}


@pytest.fixture(autouse=True)
def whenever_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "_WORTHWHILE", math.inf)


def graph_of(build: Build, batch: int = BATCH) -> ir.Model:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT, (batch, 5)), b.input("w", FLOAT, (5, 5))
    made = b.op("Identity", build(b, x, w))
    made.name = "made"
    graph.outputs.append(made)
    return model_of(graph)


def evaluated(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    wanted = {value.name: feeds[value.name] for value in model.graph.inputs if value.name}
    names = [value.name or "" for value in model.graph.outputs]
    found: Any = ReferenceEvaluator(proto).run(None, wanted)
    return dict(zip(names, map(np.asarray, found), strict=True))


def in_parts(found: Split, feeds: dict[str, Array]) -> dict[str, Array]:
    """What the rest makes of what the parts make."""
    for part in range(PARTS):
        first = np.array([part * found.samples])
        made = evaluated(found.part, {**feeds, FIRST_SAMPLE: first})
        for value in found.part.graph.outputs:
            assert made[value.name or ""].shape == tuple(value.shape or ())
            feeds = {**feeds, part_name(value.name or "", part): made[value.name or ""]}
    return evaluated(found.rest, feeds)


@pytest.mark.parametrize("name", CASES)
def test_parts_and_rest_compute_what_the_whole_does(name: str) -> None:
    model = graph_of(CASES[name])
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.uniform(-1, 1, (BATCH, 5)).astype(np.float32),
        "w": rng.uniform(-1, 1, (5, 5)).astype(np.float32),
    }
    whole = evaluated(model, feeds)
    found = split_batch(model, ["x"], PARTS)
    if name in ALL_TOGETHER:
        assert found is None
        return
    assert found is not None
    assert {value.name for value in found.part.graph.inputs} >= {FIRST_SAMPLE, "x"}
    for key, value in in_parts(found, feeds).items():
        np.testing.assert_allclose(value, whole[key], rtol=1e-5, atol=1e-6)


def test_the_rest_has_nothing_left_of_what_the_parts_do() -> None:
    found = split_batch(graph_of(CASES["layer"]), ["x"], PARTS)
    assert found is not None
    assert [node.op_type for node in found.rest.graph] == ["Add", "Identity"]
    assert sorted(node.op_type for node in found.part.graph)[-3:] == ["MatMul", "Relu", "Slice"]
    assert found.samples == BATCH // PARTS


def test_views_of_sums_are_taken_in_the_parts() -> None:
    found = split_batch(graph_of(CASES["views of a sum"]), ["x"], PARTS)
    assert found is not None
    assert [node.op_type for node in found.rest.graph] == ["Add", "Identity"]


def test_a_marked_kernel_gradient_is_a_sum_over_the_parts() -> None:
    graph, b = new_graph()
    picture = b.op("Reshape", b.input("x", FLOAT, (BATCH, 50)), [BATCH, 2, 5, 5])
    node = ir.Node(DOMAIN, "KernelGradient", [picture, b.op("Exp", picture)])
    (made,) = node.outputs
    made.name, made.shape, made.type = "made", ir.Shape([2, 2, 3, 3]), picture.type
    graph.append(node)
    graph.outputs.append(made)
    found = split_batch(model_of(graph), ["x"], PARTS)
    assert found is not None
    assert [node.op_type for node in found.rest.graph] == ["Add"]
    assert "KernelGradient" in [node.op_type for node in found.part.graph]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batches_that_do_not_divide_stay_whole(batch: int) -> None:
    assert split_batch(graph_of(CASES["mean"], batch), ["x"], PARTS) is None


def test_random_numbers_and_unknown_sizes_stay_whole() -> None:
    noisy = graph_of(lambda b, x, w: mean(b, b.op("Add", x, b.op("RandomNormalLike", x))))
    assert split_batch(noisy, ["x"], PARTS) is None
    graph, b = new_graph()
    x = b.input("x", FLOAT, ("n", 5))
    graph.outputs.append(mean(b, x))
    assert split_batch(model_of(graph), ["x"], PARTS) is None


def test_large_operators_are_left_to_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    graph, b = new_graph()
    x, w = b.input("x", FLOAT, (1024, 1024)), b.input("w", FLOAT, (1024, 1024))
    for _ in range(20):
        x = b.op("Relu", b.op("MatMul", x, w))
    graph.outputs.append(mean(b, x))
    assert split_batch(model_of(graph), ["x"], PARTS) is None


def test_chains_of_small_operators_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    graph, b = new_graph()
    x, w = b.input("x", FLOAT, (32, 128)), b.input("w", FLOAT, (128, 128))
    for _ in range(200):
        x = b.op("Tanh", b.op("Mul", b.op("Add", b.op("MatMul", x, w), x), x))
    graph.outputs.append(mean(b, x))
    assert split_batch(model_of(graph), ["x"], PARTS) is not None


@pytest.mark.parametrize(
    ("shard", "before", "after", "expected"),
    [
        (Shard(0), (12, 5), (12, 5, 1), Shard(0)),
        (Shard(0), (12, 5), (60,), Shard(0, 1, 5)),
        (Shard(0, 1, 5), (60,), (12, 5), Shard(0)),
        (Shard(1), (4, 12, 3), (48, 3), Shard(0, 4)),
        (Shard(0, 4), (48, 3), (4, 12, 3), Shard(1)),
        (Shard(0, 4), (48, 3), (2, 2, 36), Shard(2, 1, 3)),
        (Shard(1), (1, 12), (12,), Shard(0)),
        (Shard(0), (12, 5), (3, 4, 5), None),
        (Shard(0), (12, 5), (1, 1, 12, 5), Shard(2)),
        (Shard(0), (12, 0), (0,), None),
    ],
)
def test_where_the_batch_is_in_another_shape(
    shard: Shard, before: tuple[int, ...], after: tuple[int, ...], expected: Shard | None
) -> None:
    assert reshaped(shard, before, after, 12) == expected
