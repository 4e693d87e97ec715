"""Convolutions of random geometry: what their gradients are, and which way they are computed.

A convolution is linear in image and kernel, so a gradient is right if, for any image v,
<gradient, v> = <g, conv(v, w)>; the reference evaluator computes the right side.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.compiler import GradientError, GraphBuilder, ShapeError, differentiate
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.gradients import kernel_products
from tests.compiler.graphs import FLOAT64, Array, Evaluator, check_shapes, new_graph, spread


@st.composite
def geometries(draw: st.DrawFn) -> tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """An operator, the shapes of its input and its kernels, and attributes that fit."""
    op = draw(st.sampled_from(["Conv", "ConvTranspose"]))
    rank = draw(st.integers(1, 2))
    group = draw(st.integers(1, 3))
    per_group = st.integers(1, 2)
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    pads = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    attributes = {"group": group, "strides": strides, "dilations": dilations, "pads": pads}
    sizes = []
    for i in range(rank):
        reach = (kernel[i] - 1) * dilations[i] + 1
        lowest = reach - pads[i] - pads[i + rank]
        if op == "ConvTranspose":
            lowest = (pads[i] + pads[i + rank]) // strides[i] + 1
        sizes.append(max(1, lowest) + draw(st.integers(0, 3)))
    first, second = draw(per_group), draw(per_group)
    batch = draw(st.integers(1, 2))
    if op == "Conv":
        return op, (batch, group * second, *sizes), (group * first, second, *kernel), attributes
    attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    return op, (batch, group * first, *sizes), (group * first, second, *kernel), attributes


def gradients_of(
    op: str, x: Array, w: Array, attributes: dict[str, Any], x_shape: Shape
) -> tuple[ir.Graph, list[Array], Array, dict[str, Array]]:
    """The graph, the gradients by x and w, the output's cotangent, and all values."""
    graph, b = new_graph()
    image, kernel = b.input("x", FLOAT64, x_shape), b.input("w", FLOAT64, w.shape)
    y = b.op(op, image, kernel, **attributes)
    feeds = {"x": x, "w": w}
    actual = Evaluator(graph, [y])(feeds)[0]
    g = b.input("g", FLOAT64, b.shape(y) or ())
    feeds["g"] = np.random.default_rng(3).uniform(-1, 1, actual.shape)
    found = [v for v in differentiate(graph, [y], [image, kernel], [g]) if v is not None]
    values = Evaluator(graph, found).all_values(feeds)
    check_shapes(graph, values)
    return graph, [values[v.name or ""] for v in found], feeds["g"], values


@settings(max_examples=40, deadline=None, derandomize=True)
@given(geometry=geometries(), free=st.sampled_from(["nothing", "batch", "image"]))
def test_random_geometries(geometry: Any, free: str) -> None:
    op, x_shape, w_shape, attributes = geometry
    x, w = spread(x_shape, -1, 1), spread(w_shape, -1, 1, seed=1)
    named: dict[str, Shape] = {
        "nothing": x_shape,
        "batch": ("batch", *x_shape[1:]),
        "image": ("batch", x_shape[1], *(f"size{i}" for i in range(len(x_shape) - 2))),
    }
    _, (by_x, by_w), g, _ = gradients_of(op, x, w, attributes, named[free])
    assert (by_x.shape, by_w.shape) == (x_shape, w_shape)
    graph, b = new_graph()
    forward = b.op(op, b.input("x", FLOAT64, x_shape), b.input("w", FLOAT64, w_shape), **attributes)
    evaluate = Evaluator(graph, [forward])
    random = np.random.default_rng(4)
    for _ in range(3):
        v, u = random.normal(size=x_shape), random.normal(size=w_shape)
        expected = np.sum(g * evaluate({"x": v, "w": w})[0])
        np.testing.assert_allclose(np.sum(by_x * v), expected, rtol=1e-9, atol=1e-9)
        expected = np.sum(g * evaluate({"x": x, "w": u})[0])
        np.testing.assert_allclose(np.sum(by_w * u), expected, rtol=1e-9, atol=1e-9)


# Which way ---------------------------------------------------------------------------------------


def operators_for(x_shape: Shape, w_shape: Shape, wanted: str, **attributes: Any) -> Counter[str]:
    """The operators of the gradient by the image or by the kernel."""
    graph, b = new_graph()
    sources = {"x": b.input("x", FLOAT64, x_shape), "w": b.input("w", FLOAT64, w_shape)}
    y = b.op("Conv", sources["x"], sources["w"], **attributes)
    seed = b.input("g", FLOAT64, b.shape(y) or ())
    differentiate(graph, [y], [sources[wanted]], [seed])
    return Counter(node.op_type for node in graph) - Counter(["Conv"])


@pytest.mark.parametrize("batch", [8, "batch"])
def test_the_kernels_gradient_is_a_product_whatever_the_batch(batch: int | str) -> None:
    # Two Convs unfold the image along one axis and the maps along the other.
    few = operators_for((batch, 4, 16, 16), (4, 4, 3, 3), "w", pads=[1, 1, 1, 1])
    assert (few["MatMul"], few["Conv"], few["Slice"], few["Pad"]) == (1, 2, 0, 0)
    many = operators_for((batch, 32, 4, 4), (64, 32, 3, 3), "w", pads=[1, 1, 1, 1])
    assert (many["Gemm"], many["Conv"], many["Slice"], many["Pad"]) == (1, 2, 0, 0)
    # With strides only the image can move; where maps are much fewer, they do along both axes.
    strided = operators_for((batch, 4, 16, 16), (4, 4, 3, 3), "w", strides=[2, 2])
    assert (strided["MatMul"], strided["Conv"]) == (1, 1)
    one = operators_for((batch, 32, 16, 16), (1, 32, 3, 3), "w", pads=[1, 1, 1, 1])
    assert (one["MatMul"], one["Conv"]) == (1, 1)
    points = operators_for((batch, 8, 4, 4), (8, 8, 1, 1), "w")
    assert not points["Conv"]
    # Depthwise kernels slide over much, as products and sums; over little, and with strides, the
    # image is unfolded.
    depthwise = operators_for((batch, 64, 32, 32), (64, 1, 3, 3), "w", group=64)
    assert (depthwise["Mul"], depthwise["Slice"], depthwise["Conv"]) == (9, 9, 0)
    depthwise = operators_for((batch, 4, 8, 8), (4, 1, 3, 3), "w", group=4)
    assert (depthwise["MatMul"], depthwise["Conv"], depthwise["Slice"]) == (1, 1, 0)
    strided = operators_for((batch, 64, 64, 64), (64, 1, 3, 3), "w", group=64, strides=[2, 2])
    assert (strided["MatMul"], strided["Conv"], strided["Slice"]) == (1, 1, 0)


@pytest.mark.parametrize(
    "attributes", [{}, {"pads": [1, 0, 2, 1]}, {"pads": [2, 2, 2, 2], "dilations": [1, 2]}]
)
def test_depthwise_kernels_by_sums(
    attributes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = spread((2, 3, 6, 7), -1, 1), spread((3, 1, 3, 2), -1, 1, seed=1)

    def by_w() -> tuple[Array, bool]:
        graph, (_, found), _, _ = gradients_of("Conv", x, w, {"group": 3, **attributes}, x.shape)
        return found, not any(node.op_type == "MatMul" for node in graph)

    unfolded, by_sums = by_w()
    assert not by_sums
    monkeypatch.setattr(kernel_products, "_MOST_UNFOLDED", 0)
    summed, by_sums = by_w()
    assert by_sums
    np.testing.assert_allclose(summed, unfolded, rtol=1e-12, atol=1e-12)


def test_the_kernels_gradient_over_images_of_any_size_is_a_conv() -> None:
    found = operators_for(("n", 4, "height", "width"), (4, 4, 3, 3), "w", pads=[1, 1, 1, 1])
    assert found["Conv"] == 1
    assert not found["Slice"]


def test_the_images_gradient_is_a_conv_where_strides_are_1() -> None:
    for shape in ((8, 4, 16, 16), ("n", 4, "height", "width")):
        found = operators_for(shape, (4, 4, 3, 3), "x", pads=[1, 1, 1, 1])
        assert found["Conv"] == 1
        assert not found["ConvTranspose"]
        found = operators_for(shape, (4, 4, 3, 3), "x", strides=[2, 2])
        assert found["ConvTranspose"] == 1


# Refusals ----------------------------------------------------------------------------------------


def built(op: str, *shapes: Shape, **attributes: Any) -> tuple[GraphBuilder, ir.Value, ir.Value]:
    _, b = new_graph()
    inputs = [b.input(f"x{i}", FLOAT64, shape) for i, shape in enumerate(shapes)]
    return b, inputs[0], b.op(op, *inputs, **attributes)


def test_gaps_that_same_cannot_fill_are_refused() -> None:
    b, x, y = built("ConvTranspose", (1, 1, 3), (1, 1, 2), auto_pad="SAME_UPPER", strides=[3])
    assert not isinstance((b.shape(y) or ())[2], int)
    assert b.graph is not None
    with pytest.raises(GradientError, match=r"strides \[3\] larger than the kernel's extent \[2\]"):
        differentiate(b.graph, [y], [x])


def test_same_with_kernels_of_unknown_size_is_refused() -> None:
    b, x, y = built("ConvTranspose", (1, 1, 3), (1, 1, "k"), auto_pad="SAME_UPPER", strides=[2])
    assert b.graph is not None
    with pytest.raises(GradientError, match="needs a kernel whose size is known"):
        differentiate(b.graph, [y], [x])


def test_deformed_volumes_are_refused() -> None:
    b, x, y = built("DeformConv", (1, 1, 3, 3, 3), (1, 1, 2, 2, 2), (1, 24, 2, 2, 2))
    assert b.graph is not None
    with pytest.raises(GradientError, match="only images of two spatial dimensions"):
        differentiate(b.graph, [y], [x])


@pytest.mark.parametrize(
    ("op", "x", "w", "attributes", "message"),
    [
        ("Conv", (1, 3, 5), (4, 2, 3), {}, r"1 group\(s\) take images of 2 channels, not 3"),
        ("Conv", (1, 4, 5), (3, 2, 3), {"group": 2}, "3 kernels do not split into 2 groups"),
        ("Conv", (1, 2, 2), (4, 2, 3), {}, r"the kernel \(3,\) is larger than the padded image"),
        ("ConvTranspose", (1, 3, 5), (2, 4, 3), {}, "take 2 channels, not 3"),
        ("ConvTranspose", (1, 3, 5), (3, 4, 3), {"group": 2}, "3 kernels do not split into 2"),
    ],
)
def test_shapes_that_do_not_fit(
    op: str, x: Shape, w: Shape, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        built(op, x, w, **attributes)


def test_same_rounds_symbols_up() -> None:
    b, _, y = built("Conv", (1, 2, "n", "m"), (4, 2, 3, 3), auto_pad="SAME_UPPER", strides=[1, 2])
    assert b.shape(y) == (1, 4, "n", "floor((m + 1)/2)")
