"""Convolution layers: Keras's numbers, any sizes, both layouts, and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.engine import B
from tests.reference import parity

layers = ot.layers


@pytest.mark.parametrize("name", parity.names("convolution"))
def test_as_keras(name: str) -> None:
    parity.check("convolution", name, rtol=1e-4, atol=1e-5)


KINDS: list[tuple[Any, dict[str, Any], int]] = [
    (layers.Conv1D, {"filters": 4, "strides": 2, "padding": "same", "groups": 2}, 1),
    (layers.Conv1D, {"filters": 2, "padding": "causal"}, 1),
    (layers.Conv2D, {"filters": 3}, 2),
    (layers.Conv2D, {"filters": 3, "strides": (1, 2), "padding": "same"}, 2),
    (layers.Conv3D, {"filters": 2, "padding": "same"}, 3),
    (layers.Conv1DTranspose, {"filters": 2, "strides": 2, "padding": "same"}, 1),
    (layers.Conv2DTranspose, {"filters": 2, "strides": 3, "output_padding": 1}, 2),
    (layers.Conv3DTranspose, {"filters": 2}, 3),
    (layers.DepthwiseConv1D, {"depth_multiplier": 2}, 1),
    (layers.DepthwiseConv2D, {"strides": 2, "padding": "same"}, 2),
    (layers.SeparableConv1D, {"filters": 2, "strides": 2, "padding": "same"}, 1),
    (layers.SeparableConv2D, {"filters": 2, "dilation_rate": 2}, 2),
]
IDS = [f"{kind.__name__}-{i}" for i, (kind, _, _) in enumerate(KINDS)]


def sample(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def learn(layer: Any, x: Any) -> list[Any]:
    """The output and the gradients by inputs and weights."""
    with ot.GradientTape() as tape:
        x = ot.convert_to_tensor(x)
        tape.watch(x)
        y = layer(x)
        loss = ot.ops.sum(y * y * 0.5 + y)
    return [y, *tape.gradient(loss, [x, *layer.trainable_weights])]


@pytest.mark.parametrize(("kind", "options", "rank"), KINDS, ids=IDS)
def test_channels_first_is_channels_last_with_other_axes(
    kind: Any, options: dict[str, Any], rank: int
) -> None:
    last = kind(kernel_size=2, **options)
    first = kind(kernel_size=2, data_format="channels_first", **options)
    x = sample(2, *range(5, 5 + rank), 4)
    last(x)
    first(np.moveaxis(x, -1, 1))
    first.set_weights(last.get_weights())
    found = learn(first, np.moveaxis(x, -1, 1))
    for i, (a, b) in enumerate(zip(found, learn(last, x), strict=True)):
        a = np.moveaxis(a.numpy(), 1, -1) if i < 2 else a.numpy()
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "options", "rank"), KINDS, ids=IDS)
def test_one_trace_serves_images_of_every_size(
    kind: Any, options: dict[str, Any], rank: int
) -> None:
    layer = kind(kernel_size=3, **options)
    layer(sample(1, *range(5, 5 + rank), 4))
    spec = ot.TensorSpec((None,) * (rank + 1) + (4,), "float32")
    step = ot.function(lambda x: learn(layer, x), input_signature=[spec], fallback="error")
    for sizes in (range(5, 5 + rank), range(8, 8 - rank, -1)):
        x = sample(2, *sizes, 4)
        for a, b in zip(step(x), learn(layer, x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)
    assert step.trace_count == 1


def test_summaries_show_the_outputs_shapes() -> None:
    model = ot.Sequential(
        [
            ot.Input((28, 28, 1)),
            layers.Conv2D(32, 3),
            layers.Conv2DTranspose(8, 3, strides=2, padding="same"),
            layers.SeparableConv2D(4, 3, padding="same", strides=2),
        ]
    )
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    for shape in ("(None, 26, 26, 32)", "(None, 52, 52, 8)", "(None, 26, 26, 4)"):
        assert shape in text
    assert model.count_params() == (9 * 32 + 32) + (9 * 32 * 8 + 8) + (9 * 8 + 8 * 4 + 4)


def test_names_and_the_order_of_weights() -> None:
    layer = layers.SeparableConv1D(4, 2, depth_multiplier=3, name="parts")
    layer.build((None, 5, 2))
    assert [(w.path, w.shape) for w in layer.weights] == [
        ("parts/depthwise_kernel", (2, 2, 3)),
        ("parts/pointwise_kernel", (1, 6, 4)),
        ("parts/bias", (4,)),
    ]
    assert layers.Conv2D(1, 1).name.startswith("conv2d")
    assert layers.Conv1DTranspose(1, 1).name.startswith("conv1d_transpose")
    assert layers.DepthwiseConv2D(1).name.startswith("depthwise_conv2d")


def test_regularizers_and_integer_inputs() -> None:
    layer = layers.Conv1D(
        2, 1, kernel_initializer="ones", kernel_regularizer=lambda w: ot.ops.sum(w) * 0.5
    )
    np.testing.assert_array_equal(layer(np.array([[[1, 2]]])), [[[3.0, 3.0]]])
    assert [float(loss) for loss in layer.losses] == [2.0]


def test_every_weight_has_its_regularizer_and_constraint() -> None:
    deep = layers.SeparableConv1D(
        2,
        2,
        depthwise_regularizer="l1",
        pointwise_regularizer="l2",
        depthwise_constraint="non_neg",
        bias_constraint="max_norm",
    )
    convolutions = [
        kind(2, 2, kernel_regularizer="l2", kernel_constraint="non_neg", bias_constraint="max_norm")
        for kind in (layers.Conv1D, layers.Conv1DTranspose)
    ]
    for layer in (deep, *convolutions):
        layer.build((None, 5, 3))
        assert type(layer.weights[0].constraint).__name__ == "NonNeg"
        assert type(layer.weights[-1].constraint).__name__ == "MaxNorm"
    assert [type(w.regularizer).__name__ for w in deep.weights] == ["L1", "L2", "NoneType"]
    assert [type(c.weights[0].regularizer).__name__ for c in convolutions] == ["L2", "L2"]
    one = layers.DepthwiseConv2D(2, depthwise_constraint="non_neg", depthwise_regularizer="l1")
    one.build((None, 5, 5, 3))
    assert type(one.kernel.constraint).__name__ == "NonNeg"  # type: ignore[attr-defined]


def test_the_bias_is_part_of_the_operator() -> None:
    layer = layers.Conv2D(2, 3)
    layer(sample(1, 4, 4, 1))
    step = ot.function(lambda x: layer(x))
    step(sample(1, 4, 4, 1))
    model = step.get_concrete_function(sample(1, 4, 4, 1)).model
    assert "Add" not in [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("channels", [2, 32])
def test_no_images_at_all(channels: int) -> None:
    """Compiled, with kernels small and large against the images."""
    layer = layers.Conv2D(channels, 3, padding="same")
    layer(sample(1, 4, 4, channels))
    empty = sample(0, 4, 4, channels)
    for learned in (learn(layer, empty), ot.function(lambda x: learn(layer, x))(empty)):
        assert learned[0].shape == (0, 4, 4, channels)
        assert not np.any(learned[2].numpy())


def test_a_pad_of_some_axes_between_transposes() -> None:
    """ONNX Runtime's own optimizer fails on it as it stands."""

    def call(x: Any) -> Any:
        first = ot.ops.transpose(x, (0, 3, 1, 2))
        return ot.ops.transpose(B.op("Pad", first, [1, 0, 0, 2], None, [2, 3]), (1, 0, 2, 3))

    x = sample(2, 4, 5, 3)
    expected = np.pad(x, [(0, 0), (1, 0), (0, 2), (0, 0)]).transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(ot.function(call)(x), expected)


def test_a_compiled_step_is_channels_first_inside() -> None:
    """Transposes stay at the images, the kernels and, forward and backward, the features."""
    model = ot.Sequential(
        [
            ot.Input((8, 8, 2)),
            layers.Conv2D(3, 3, padding="same", activation="relu"),
            layers.Conv2D(4, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    optimizer = ot.optimizers.SGD(0.1)

    def body(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    spec = ot.TensorSpec((None, 8, 8, 2), "float32")
    step = ot.function(body, input_signature=[spec])
    nodes = step.get_concrete_function(sample(2, 8, 8, 2)).model.graph.node
    perms = [list(n.attribute[0].ints) for n in nodes if n.op_type == "Transpose"]
    features = [[0, 3, 1, 2], [3, 2, 0, 1], [3, 2, 0, 1], [0, 2, 3, 1], [0, 3, 1, 2]]
    # Each kernel's gradient takes the maps by columns, and puts its own axes in order.
    products = [[0, 3, 1, 2], [0, 3, 1, 2]]
    assert sorted(p for p in perms if len(p) == 4) == sorted(features + products)


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Conv2D(0, 3), "needs a positive number of filters, not 0"),
        (lambda: layers.Conv2D(4, 3, groups=3), "4 filters do not split into 3 groups"),
        (lambda: layers.Conv2D(4, 0), "kernel_size takes numbers from 1 on, not 0"),
        (
            lambda: layers.Conv2D(4, (3, 3, 3)),
            r"kernel_size takes one number or 2, not \(3, 3, 3\)",
        ),
        (lambda: layers.Conv2D(4, 3, strides=0), "strides takes numbers from 1 on"),
        (lambda: layers.Conv2D(4, 3, padding="full"), "padding is 'valid' or 'same', not 'full'"),
        (lambda: layers.Conv2D(4, 3, padding="causal"), "'valid' or 'same', not 'causal'"),
        (lambda: layers.Conv1D(4, 3, padding="full"), "'valid' or 'same' or 'causal'"),
        (lambda: layers.Conv2D(4, 3, strides=2, dilation_rate=2), "strides or dilations, not both"),
        (lambda: layers.Conv2D(4, 3, data_format="NHWC"), "'channels_first', not 'NHWC'"),
        (lambda: layers.Conv1DTranspose(4, 3, strides=2, output_padding=2), r"\(2,\) is not less"),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=0), "number of depth_multiplier"),
    ],
)
def test_arguments_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_inputs_that_are_refused() -> None:
    with pytest.raises(ot.errors.ShapeError, match=r"takes inputs of rank 4 .*not \(2, 5, 3\)"):
        layers.Conv2D(2, 3)(sample(2, 5, 3))
    with pytest.raises(ot.errors.ShapeError, match="3 input channels do not split into 2 groups"):
        layers.Conv1D(2, 3, groups=2)(sample(2, 5, 3))
    with pytest.raises(ot.errors.ShapeError, match=r"'small'.*\(3, 3\).*larger.*\(1, 2, 5, 1\)"):
        layers.Conv2D(2, 3, name="small")(sample(1, 2, 5, 1))
    with pytest.raises(ot.errors.ShapeError, match="channels is known"):
        layers.Conv1D(2, 3).build((None, 5, None))
    layer = layers.Conv1D(2, 3)
    layer(sample(2, 5, 3))
    with pytest.raises(ot.errors.ShapeError, match=r"built for inputs of 3 channels.*\(2, 5, 6\)"):
        layer(sample(2, 5, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ops: ops.conv(sample(1, 5, 3), sample(2, 2, 4)), r"takes 2 input .*have 3"),
        (
            lambda ops: ops.conv(sample(1, 5, 3), sample(2, 2, 3, 4)),
            "inputs and kernels of one rank",
        ),
        (lambda ops: ops.conv(sample(5, 3), sample(3, 4)), "inputs and kernels of one rank"),
        (
            lambda ops: ops.depthwise_conv(sample(1, 5, 3), sample(2, 2, 1)),
            "takes 2 input .*have 3",
        ),
        (
            lambda ops: ops.conv_transpose(sample(1, 5, 3), sample(2, 3, 2)),
            "takes 2 input .*have 3",
        ),
    ],
)
def test_operations_say_what_does_not_fit(call: Any, message: str) -> None:
    with pytest.raises(ot.errors.ShapeError, match=message):
        call(ot.ops)


def test_same_with_strides_and_dilations_needs_sizes() -> None:
    kernel = sample(3, 2, 1)

    def call(x: Any) -> Any:
        return ot.ops.conv(x, kernel, strides=2, padding="same", dilation_rate=2)

    assert call(sample(1, 7, 2)).shape == (1, 4, 1)
    with pytest.raises(ot.errors.ShapeError, match="needs inputs whose size is known"):
        call(ot.Input((None, 2)))


@pytest.mark.parametrize(
    ("data_format", "axes"),
    [
        ("channels_last", "(batch, height, width, channels)"),
        ("channels_first", "(batch, channels, height, width)"),
    ],
)
@pytest.mark.parametrize("kind", ["Conv2D", "MaxPooling2D"])
def test_the_axes_are_named_in_the_order_of_the_data_format(
    kind: str, data_format: str, axes: str
) -> None:
    arguments = {"filters": 1, "kernel_size": 2} if kind == "Conv2D" else {}
    layer = getattr(ot.layers, kind)(**arguments, data_format=data_format, name="c")
    with pytest.raises(ot.errors.ShapeError) as caught:
        layer(np.zeros((2, 5, 3), np.float32))
    assert f"{kind} 'c' takes inputs of rank 4 {axes}, not (2, 5, 3)" in str(caught.value)
