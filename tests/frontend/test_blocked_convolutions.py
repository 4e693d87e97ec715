"""Convolutions in ONNX Runtime's blocked layout: the same numbers, in the graph that runs alone.

The judge is the same step run eagerly, operator by operator in the plain layout; gradients of
convolutions have oracles of their own in `tests/compiler`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.runtime.blocked_layout import block_size

NCHWC = "com.microsoft.nchwc"

pytestmark = pytest.mark.skipif(
    not block_size(), reason="ONNX Runtime has no blocked layout on this processor"
)


def blocked(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == NCHWC)


def spread(shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, shape).astype(np.float32)


def compare(step: Any, *inputs: Any, reads: tuple[ot.Variable, ...]) -> None:
    """One step, eagerly and compiled, gives the same results and leaves the same variables."""
    start = [v.numpy() for v in reads]
    expected = [np.asarray(x) for x in step(*inputs)] + [v.numpy() for v in reads]
    for variable, value in zip(reads, start, strict=True):
        variable.assign(value)
    compiled = ot.function(step, fallback="error")
    found = [np.asarray(x) for x in compiled(*inputs)] + [v.numpy() for v in reads]
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5 * max(1.0, np.abs(y).max()))


def descent(apply: Any, w: ot.Variable) -> Any:
    """A step of w along its gradient; returns the loss and the gradient by the image."""

    def step(x: Any, target: Any) -> Any:
        x = ops.convert_to_tensor(x)
        with ot.GradientTape() as tape:
            tape.watch(x)
            loss = ops.mean(ops.square(apply(x, w) - target))
        by_w, by_x = tape.gradient(loss, [w, x])
        w.assign_sub(0.1 * by_w)
        return loss, by_x

    return step


def compare_descent(apply: Any, image: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    """Compare a step of descent from an image and a kernel of these shapes."""
    w, x = ot.Variable(spread(kernel, 1)), spread(image, 2)
    target = spread(tuple(apply(x, w).shape), 3)
    compare(descent(apply, w), x, target, reads=(w,))


CONV = {
    "3x3": ((16, 9, 9, 16), (3, 3, 16, 32), {"padding": "same"}),
    "valid": ((16, 9, 8, 32), (3, 2, 32, 16), {}),
    "stride 2": ((32, 10, 10, 16), (3, 3, 16, 16), {"padding": "same", "strides": 2}),
    "stride 2, odd": ((16, 9, 9, 16), (3, 3, 16, 16), {"padding": "same", "strides": 2}),
    "an end that strides leave unseen": ((16, 10, 11, 16), (3, 3, 16, 16), {"strides": (2, 3)}),
    "1x1, stride 2": ((16, 8, 8, 16), (1, 1, 16, 32), {"strides": 2}),
    "4x4, stride 2": ((16, 12, 12, 16), (4, 4, 16, 16), {"padding": "same", "strides": 2}),
    "dilated": ((16, 12, 12, 16), (3, 3, 16, 16), {"padding": "same", "dilation_rate": 2}),
    "few channels in": ((16, 8, 8, 3), (3, 3, 3, 16), {"padding": "same"}),
    "one channel in": ((16, 8, 8, 1), (3, 3, 1, 16), {"padding": "same"}),
    "three blocks in": ((16, 8, 8, 48), (3, 3, 48, 16), {"padding": "same"}),
    "five blocks in": ((16, 8, 8, 80), (3, 3, 80, 16), {"padding": "same"}),
    "eight blocks in, two in the batch": (
        (32, 8, 8, 128),
        (4, 4, 128, 16),
        {"padding": "same", "strides": 2},
    ),
    "many blocks, dilated": (
        (16, 12, 12, 128),
        (3, 3, 128, 16),
        {"padding": "same", "dilation_rate": 2},
    ),
    "many blocks, dilated down": ((16, 9, 9, 128), (3, 2, 128, 16), {"dilation_rate": (2, 1)}),
    "many blocks, an end unseen": ((32, 10, 11, 128), (3, 3, 128, 16), {"strides": (2, 3)}),
    "equal sizes all over": ((16, 16, 16, 16), (16, 16, 16, 16), {"padding": "same"}),
}


@pytest.mark.parametrize("name", CONV)
def test_a_convolution_and_its_gradients(name: str, ran: list[ir.Model]) -> None:
    image, kernel, options = CONV[name]
    compare_descent(lambda x, w: ops.conv(x, w, **options), image, kernel)
    assert blocked(ran[0])["Conv"] >= 2
    # Neither products nor convolutions in the plain layout are left but those of few channels.
    plain = Counter(n.op_type for n in ran[0].graph if not n.domain)
    assert plain["MatMul"] + plain["Gemm"] == 0
    assert not any(node.domain == "onnxtape" for node in ran[0].graph)


TRANSPOSED = {
    "stride 2": ((16, 5, 5, 16), (4, 4, 32, 16), {"strides": 2, "padding": "same"}),
    "stride 2, 3x3": ((16, 5, 6, 16), (3, 3, 16, 16), {"strides": 2, "padding": "same"}),
    "stride 3 by 2": ((16, 4, 4, 32), (5, 4, 16, 32), {"strides": (3, 2), "padding": "same"}),
    "stride 1": ((16, 6, 6, 16), (3, 3, 16, 16), {"padding": "same"}),
    "valid": ((16, 5, 5, 16), (4, 4, 16, 16), {"strides": 2}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_a_transposed_convolution_and_its_gradients(name: str, ran: list[ir.Model]) -> None:
    image, kernel, options = TRANSPOSED[name]
    compare_descent(lambda x, w: ops.conv_transpose(x, w, **options), image, kernel)
    assert not any(node.op_type == "ConvTranspose" for node in ran[0].graph)
    assert blocked(ran[0])["Conv"] >= 3


def test_what_does_not_fill_blocks_stays_as_it_is(ran: list[ir.Model]) -> None:
    for channels, batch in ((24, 16), (10, 16)):
        w = ot.Variable(spread((3, 3, channels, 12), 1))
        x = spread((batch, 6, 6, channels), 2)
        step = descent(lambda x, w: ops.conv(x, w, padding="same"), w)
        compare(step, x, spread((batch, 6, 6, 12), 3), reads=(w,))
        assert not blocked(ran.pop())


def test_any_batch_size(ran: list[ir.Model]) -> None:
    """Images of zeros fill up the blocks of a batch of any size."""
    w = ot.Variable(spread((3, 3, 16, 16), 1))
    step = descent(lambda x, w: ops.conv(x, w, padding="same"), w)
    compiled = ot.function(step, fallback="error")
    for batch in (16, 5, 17, 0):
        x, target = spread((batch, 6, 6, 16), batch), spread((batch, 6, 6, 16), 3)
        start = w.numpy()
        expected = [np.asarray(v) for v in step(x, target)]
        after = w.numpy()
        w.assign(start)
        for found, value in zip(compiled(x, target), expected, strict=True):
            np.testing.assert_allclose(np.asarray(found), value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(w.numpy(), after, rtol=1e-4, atol=1e-5)
    assert len(ran) == 2
    assert blocked(ran[1])["Conv"] == 3


def test_any_batch_size_of_many_channels() -> None:
    w = ot.Variable(spread((3, 3, 128, 16), 1))
    step = descent(lambda x, w: ops.conv(x, w, padding="same"), w)
    images, maps = (ot.TensorSpec((None, 6, 6, c), "float32") for c in (128, 16))
    compiled = ot.function(step, input_signature=[images, maps], fallback="error")
    for batch in (16, 5, 33, 0):
        x, target = spread((batch, 6, 6, 128), batch), spread((batch, 6, 6, 16), 3)
        start = w.numpy()
        step(x, target)
        after = w.numpy()
        w.assign(start)
        compiled(x, target)
        np.testing.assert_allclose(w.numpy(), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [12, 20])
def test_a_known_batch_that_fills_no_blocks(batch: int, ran: list[ir.Model]) -> None:
    w = ot.Variable(spread((3, 3, 16, 32), 1))
    step = descent(lambda x, w: ops.conv(x, w, strides=2, padding="same"), w)
    compare(step, spread((batch, 8, 6, 16), 2), spread((batch, 4, 3, 32), 3), reads=(w,))
    assert blocked(ran[0])["Conv"] == 6


def test_of_few_images_the_gradient_is_made_of_products(ran: list[ir.Model]) -> None:
    w = ot.Variable(spread((3, 3, 16, 16), 1))
    step = descent(lambda x, w: ops.conv(x, w, padding="same"), w)
    compare(step, spread((2, 6, 6, 16), 2), spread((2, 6, 6, 16), 3), reads=(w,))
    assert blocked(ran[0])["Conv"] == 2


def test_a_bias_and_what_follows(ran: list[ir.Model]) -> None:
    """Layers, two in a row: nothing but the activation lies between their convolutions."""
    model = ot.Sequential(
        [
            ot.Input((8, 8, 16)),
            ot.layers.Conv2D(16, 3, padding="same", activation="relu", bias_initializer="ones"),
            ot.layers.Conv2D(32, 3, padding="same", bias_initializer="ones"),
            ot.layers.Conv2DTranspose(16, 4, 2, padding="same", bias_initializer="ones"),
        ]
    )

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ops.mean(ops.square(model(x)))
        gradients = tape.gradient(loss, model.trainable_weights)
        return [loss, *gradients]

    compare(step, spread((16, 8, 8, 16), 1), reads=())
    assert blocked(ran[0])["Conv"] > 6


def test_channels_first_kernels_of_other_frameworks(ran: list[ir.Model]) -> None:
    """Kernels kept as ONNX has them, (outs, ins, height, width)."""
    w = ot.Variable(spread((32, 16, 3, 3), 1))

    def apply(x: Any, w: Any) -> Any:
        turned = ops.transpose(w, (2, 3, 1, 0))
        return ops.conv(x, turned, padding="same")

    compare(descent(apply, w), spread((16, 6, 6, 16), 2), spread((16, 6, 6, 32), 3), reads=(w,))
    assert blocked(ran[0])["Conv"] >= 3


def test_a_gradient_of_a_gradient(ran: list[ir.Model]) -> None:
    w = ot.Variable(spread((3, 3, 16, 16), 1))

    def step(x: Any) -> Any:
        x = ops.convert_to_tensor(x)
        with ot.GradientTape() as outer:
            with ot.GradientTape() as inner:
                inner.watch(x)
                y = ops.sum(ops.tanh(ops.conv(x, w, padding="same")))
            penalty = ops.mean(ops.square(inner.gradient(y, x)))
        return penalty, outer.gradient(penalty, w)

    compare(step, spread((16, 6, 6, 16), 2), reads=())
    assert blocked(ran[0])["Conv"] > 3


def test_the_exported_graph_has_standard_operators_only(tmp_path: Any) -> None:
    w = ot.Variable(spread((3, 3, 16, 16), 1), name="w")
    step = descent(lambda x, w: ops.conv(x, w, padding="same"), w)
    compiled = ot.function(step, fallback="error")
    x, target = spread((16, 6, 6, 16), 2), spread((16, 6, 6, 16), 3)
    compiled(x, target)
    model = compiled.get_concrete_function(x, target).model
    assert {node.domain for node in model.graph.node} == {""}
    assert [i.domain for i in model.opset_import] == [""]


def test_infinite_pixels_do_not_reach_the_padding() -> None:
    """Padding is a convolution by ones: infinity times one, and no zero that it could meet."""
    w = ot.Variable(spread((3, 3, 16, 16), 1))

    @ot.function(fallback="error")
    def by_kernel(x: Any, g: Any) -> Any:
        with ot.GradientTape() as tape:
            y = ops.sum(ops.conv(x, w, padding="same") * g)
        return tape.gradient(y, w)

    x, g = spread((16, 6, 6, 16), 2), np.zeros((16, 6, 6, 16), np.float32)
    x[0, 0, 0, 3] = np.inf
    g[0, 0, 0] = 1.0
    found = np.asarray(by_kernel(x, g))
    # Place (0, 0) of the maps meets pixel (0, 0) at the kernel's middle, in channel 3 only.
    assert np.isinf(found[1, 1, 3]).all()
    others = np.delete(found, 3, axis=2)
    assert np.isfinite(others).all()
