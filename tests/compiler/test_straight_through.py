"""Gradients that pass rounding on request, against the formulas of fake quantization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxtape.compiler import differentiate
from tests.compiler.graphs import Array, Evaluator, new_graph

X = np.asarray([[-9.0, -0.61, 0.02], [0.26, 0.77, 40.0]], np.float32)
G = np.asarray([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)


def fake_quantized(x: Array, scale: Array, zero: Array, low: int, high: int) -> tuple[Array, ...]:
    """arXiv:1902.08153: by x where it fits; by the scale round(x/s) - x/s, or the bound's steps."""
    steps = np.rint(x / scale)
    fits = (steps + zero >= low) & (steps + zero <= high)
    kept = np.clip(steps + zero, low, high) - zero
    return kept * scale, G * fits, G * (kept - np.where(fits, x / scale, 0))


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_axis", [False, True])
def test_quantized_and_dequantized(per_axis: bool, dtype: Any, symbolic: bool) -> None:
    graph, b = new_graph()
    scale = np.asarray([0.1, 0.05, 0.2] if per_axis else 0.1, np.float32)
    zero = np.asarray([3, 0, 7] if per_axis else 5, dtype)
    x = b.input("x", np.dtype(np.float32), ("n", "m") if symbolic else X.shape)
    s = b.input("s", np.dtype(np.float32), scale.shape)
    z = b.constant(zero)
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", x, s, z, axis=1), s, z, axis=1)
    found = differentiate(graph, [y], [x, s], [b.constant(G)], straight_through=True)
    gradients = [g for g in found if g is not None]
    value, dx, ds = Evaluator(graph, [y, *gradients])({"x": X, "s": scale})
    limits = np.iinfo(dtype)
    expected = fake_quantized(X, scale, zero.astype(float), limits.min, limits.max)
    np.testing.assert_allclose(value, expected[0], atol=1e-6)
    np.testing.assert_allclose(dx, expected[1], rtol=1e-6)
    by_scale = expected[2].sum(0) if per_axis else expected[2].sum()
    np.testing.assert_allclose(ds, by_scale, rtol=1e-4, atol=1e-4)
    assert (expected[1] == 0).any()  # something saturates


def test_blocks() -> None:
    graph, b = new_graph()
    wide = np.concatenate([X, X[:, :1]], axis=1)
    scale = np.asarray([[0.1, 0.3], [0.2, 0.5]], np.float32)
    x = b.input("x", np.dtype(np.float32), wide.shape)
    s = b.input("s", np.dtype(np.float32), scale.shape)
    blocks = {"axis": 1, "block_size": 2}
    z = b.constant(np.zeros((2, 2), np.int8))
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", x, s, z, **blocks), s, z, **blocks)
    found = differentiate(graph, [y], [x, s], straight_through=True)
    dx, ds = Evaluator(graph, [g for g in found if g is not None])({"x": wide, "s": scale})
    steps = wide / np.repeat(scale, 2, axis=1)
    fits = np.abs(np.rint(steps)) <= 127
    np.testing.assert_array_equal(dx, fits)
    parts = np.clip(np.rint(steps), -128, 127) - np.where(fits, steps, 0)
    np.testing.assert_allclose(ds, parts.reshape(2, 2, 2).sum(-1), rtol=1e-4, atol=1e-4)


def test_scale_that_the_data_decide() -> None:
    """DynamicQuantizeLinear: nothing saturates; the scale, (max - min) / 255, depends on x too."""
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.float32), X.shape)
    q, scale, zero = b.op_multi("DynamicQuantizeLinear", x, outputs=3)
    y = b.op("DequantizeLinear", q, scale, zero)
    (dx,) = differentiate(graph, [y], [x], [b.constant(G)], straight_through=True)
    assert dx is not None
    step, found = Evaluator(graph, [scale, dx])({"x": X})
    by_scale = (G * (np.rint(X / step) - X / step)).sum() / 255
    expected = G.copy()
    expected[0, 0] -= by_scale
    expected[1, 2] += by_scale
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rounding() -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.float32), X.shape)
    y = b.op("Mul", b.op("Round", x), x)
    (dx,) = differentiate(graph, [y], [x], straight_through=True)
    (plain,) = differentiate(graph, [y], [x])
    found, without = Evaluator(graph, [dx, plain])({"x": X})
    np.testing.assert_allclose(found, np.rint(X) + X, rtol=1e-6)
    np.testing.assert_allclose(without, np.rint(X), rtol=1e-6)


def test_nothing_passes_unasked() -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.float32), X.shape)
    s, z = b.constant(np.float32(0.1)), b.constant(np.int8(0))
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", x, s, z), s, z)
    assert differentiate(graph, [y], [x]) == [None]
