"""Pooling and images: who wins ties, what refuses, and what is known of shapes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder, differentiate
from onnxtape.compiler.errors import GradientError
from onnxtape.compiler.gradients.separable import repeated_planes
from onnxtape.compiler.registry import refusals
from tests.compiler.graphs import FLOAT64, INT64, Array, Evaluator, new_graph
from tests.compiler.reference_pooling import windows

FLOAT32 = np.dtype(np.float32)


def gradient(op: str, x: Array, g: Array, **attributes: Any) -> tuple[Array, Counter[str]]:
    """The operator's gradient by x, and how often the backward pass has each operator."""
    graph, b = new_graph()
    source = b.input("x", x.dtype, x.shape)
    cotangent = b.input("g", g.dtype, g.shape)
    y = b.op(op, source, **attributes)
    count = len(list(graph))
    (found,) = differentiate(graph, [y], [source], [cotangent])
    assert found is not None
    used = Counter(node.op_type for node in list(graph)[count:])
    return Evaluator(graph, [found])({"x": x, "g": g})[0], used


def first_maxima(x: Array, g: Array, **attributes: Any) -> Array:
    """What PyTorch does: everything to the first maximum of a window."""
    numbers = np.arange(x.size).reshape(x.shape)
    winners = windows(x, attributes, outside=-np.inf).argmax(-1)[..., None]
    places = np.take_along_axis(windows(numbers, attributes), winners, -1)[..., 0]
    result = np.zeros(x.size, x.dtype)
    np.add.at(result, places.ravel(), g.ravel())
    return result.reshape(x.shape)


TIES: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("side by side", {"kernel_shape": [2, 2], "strides": [2, 2]}, (2, 3, 4, 6)),
    ("with a margin", {"kernel_shape": [2, 3], "strides": [2, 3]}, (1, 2, 5, 7)),
    (
        "overlapping",
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        (1, 2, 6, 5),
    ),
    ("a line", {"kernel_shape": [3], "strides": [3]}, (2, 2, 9)),
    ("a block", {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}, (1, 1, 4, 4, 2)),
    ("unequal sizes", {"kernel_shape": [2, 1, 3], "strides": [2, 1, 3]}, (2, 2, 4, 2, 6)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("attributes", "shape"), [pytest.param(*t[1:], id=t[0]) for t in TIES])
def test_the_first_of_equal_maxima_gets_all(
    attributes: dict[str, Any], shape: tuple[int, ...], dtype: Any
) -> None:
    rng = np.random.default_rng(1)
    # As after a Relu: most windows hold several zeros, or several ones.
    x = rng.integers(0, 2, shape).astype(dtype)
    g = rng.normal(size=windows(x, attributes).shape[:-1]).astype(dtype)
    found, _ = gradient("MaxPool", x, g, **attributes)
    np.testing.assert_array_equal(found, first_maxima(x, g, **attributes))


def test_windows_side_by_side_need_no_indices() -> None:
    """MaxPool with indices takes ONNX Runtime six times as long as without."""
    x, g = np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 1, 2, 2), np.float32)
    for op in ("MaxPool", "AveragePool"):
        _, used = gradient(op, x, g, kernel_shape=[2, 2], strides=[2, 2])
        assert used["Resize"]
        assert not used["ScatterElements"]
        assert not used["MatMul"]


def test_blocks_are_repeated_two_sizes_at_a_time() -> None:
    """ONNX Runtime's Resize takes ten times as long along three."""
    graph, b = new_graph()
    planes = b.input("planes", FLOAT32, (3, 1, 2, 4, 5))
    repeated = repeated_planes(b, planes, [2, 1, 3])
    assert b.shape(repeated) == (3, 1, 4, 4, 15)
    ranks = [len(b.shape(n.outputs[0]) or ()) for n in graph if n.op_type == "Resize"]
    assert ranks == [4, 4]


def test_global_max_pool_gives_all_to_the_first() -> None:
    x = np.asarray([[[[1.0, 2.0], [2.0, 0.0]], [[3.0, 3.0], [3.0, 3.0]]]])
    found, _ = gradient("GlobalMaxPool", x, np.asarray([[[[5.0]], [[7.0]]]]))
    np.testing.assert_array_equal(found, [[[[0, 5], [0, 0]], [[7, 0], [0, 0]]]])


def _sources(b: GraphBuilder, *shapes: tuple[int, ...]) -> list[ir.Value]:
    return [b.input(f"x{i}", FLOAT32, shape) for i, shape in enumerate(shapes)]


def _max_unpool(b: GraphBuilder) -> tuple[ir.Value, ir.Value]:
    (x,) = _sources(b, (1, 1, 2, 2))
    indices = b.constant(np.asarray([[[[0, 3], [12, 15]]]]))
    sizes = b.constant(np.asarray([1, 1, 5, 5]))
    windows = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return b.op("MaxUnpool", x, indices, sizes, **windows), x


def _resize_by_scales(b: GraphBuilder) -> tuple[ir.Value, ir.Value]:
    x, scales = _sources(b, (1, 1, 2), (3,))
    return b.op("Resize", x, None, scales), scales


def _resize_in_proportion(b: GraphBuilder) -> tuple[ir.Value, ir.Value]:
    (x,) = _sources(b, (1, 2, 3, 4))
    sizes = b.constant(np.asarray([2, 3, 5, 6]))
    return b.op("Resize", x, None, None, sizes, keep_aspect_ratio_policy="not_larger"), x


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_max_unpool, r"MaxUnpool.*runtimes disagree.*leave output_shape out, and Pad"),
        (_resize_by_scales, r"Resize.*gradient is by X only, not by roi and scales"),
        (_resize_in_proportion, r"keep_aspect_ratio_policy needs axes without the batch"),
    ],
)
def test_refusals(make: Any, reason: str) -> None:
    graph, b = new_graph()
    target, source = make(b)
    with pytest.raises(GradientError, match=reason):
        differentiate(graph, [target], [source])


def test_max_unpool_with_the_default_output_shape() -> None:
    graph, b = new_graph()
    (x,) = _sources(b, (1, 1, 2, 2))
    indices = b.constant(np.asarray([[[[1, 2], [12, 15]]]]))
    sizes = b.constant(np.asarray([1, 1, 4, 4]))
    y = b.op("MaxUnpool", x, indices, sizes, kernel_shape=[2, 2], strides=[2, 2])
    g = b.input("g", FLOAT32, (1, 1, 4, 4))
    (found,) = differentiate(graph, [y], [x], [g])
    assert found is not None
    cotangent = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    feeds = {"x0": np.zeros((1, 1, 2, 2), np.float32), "g": cotangent}
    np.testing.assert_array_equal(Evaluator(graph, [found])(feeds)[0], [[[[1, 2], [12, 15]]]])


def test_upsample_says_what_to_do() -> None:
    assert "version_converter makes a Resize" in refusals()["Upsample"]


def test_symbolic_pooled_sizes() -> None:
    _, b = new_graph()
    x = b.input("x", FLOAT64, ("n", 2, "h", 6))
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    assert b.shape(b.op("MaxPool", x, **window, ceil_mode=1)) != (("n", 2, "h", 3))
    assert (b.shape(b.op("AveragePool", x, **window)) or ())[3] == 3
    same = b.op("MaxPool", x, kernel_shape=[3, 3], auto_pad="SAME_UPPER")
    assert b.shape(same) == ("n", 2, "h", 6)


def test_the_grid_of_a_computed_size_has_a_rank() -> None:
    _, b = new_graph()
    theta, size = b.input("theta", FLOAT64, ("n", 2, 3)), b.input("size", INT64, (4,))
    shape = b.shape(b.op("AffineGrid", theta, size)) or ()
    assert (shape[0], len(shape), shape[3]) == ("n", 4, 2)


def test_sizes_in_proportion_are_not_guessed() -> None:
    """The library rounds down where ONNX rounds to the nearest."""
    _, b = new_graph()
    x = b.input("x", FLOAT64, (1, 1, 4, 5))
    sizes = b.constant(np.asarray([6, 9]))
    policy = {"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3], "mode": "linear"}
    shape = b.shape(b.op("Resize", x, None, None, sizes, **policy)) or ()
    assert shape[:2] == (1, 1)
    assert not any(isinstance(d, int) for d in shape[2:])


def test_what_regions_and_unpooling_make() -> None:
    _, b = new_graph()
    x, rois = b.input("x", FLOAT64, ("n", "c", "h", 6)), b.input("rois", FLOAT64, ("r", 4))
    batch = b.input("batch", INT64, ("r",))
    aligned = b.op("RoiAlign", x, rois, batch, output_height=2, output_width=3)
    assert b.shape(aligned) == ("r", "c", 2, 3)
    columns = b.input("columns", FLOAT64, ("r", 5))
    assert b.shape(b.op("MaxRoiPool", x, columns, pooled_shape=[2, 2])) == ("r", "c", 2, 2)
    small = b.input("small", FLOAT64, ("n", 1, 2, 3))
    indices = b.input("indices", INT64, ("n", 1, 2, 3))
    windows = {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 1, 0, 0]}
    assert b.shape(b.op("MaxUnpool", small, indices, **windows)) == ("n", 1, 4, 6)
