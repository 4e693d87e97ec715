"""Convolution layers. Keras on TensorFlow has channels first on GPUs only: tested beside these."""

from __future__ import annotations

from typing import Any

from tests.reference.keras_families.common import Arrays, Program, array, training

LINE, SQUARE, VOLUME = (2, 7, 4), (2, 5, 6, 3), (1, 3, 4, 3, 2)

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "conv1d": ("Conv1D", {"filters": 3, "kernel_size": 3}, LINE),
    "conv1d_same": ("Conv1D", {"filters": 3, "kernel_size": 4, "padding": "same"}, LINE),
    "conv1d_causal": (
        "Conv1D",
        {"filters": 2, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
        LINE,
    ),
    "conv1d_strided": (
        "Conv1D",
        {"filters": 2, "kernel_size": 2, "strides": 3, "padding": "same", "use_bias": False},
        LINE,
    ),
    "conv2d": ("Conv2D", {"filters": 4, "kernel_size": 3, "activation": "relu"}, SQUARE),
    "conv2d_same": ("Conv2D", {"filters": 2, "kernel_size": (2, 3), "padding": "same"}, SQUARE),
    "conv2d_strided": (
        "Conv2D",
        {"filters": 2, "kernel_size": 3, "strides": (2, 3), "padding": "same"},
        SQUARE,
    ),
    "conv2d_valid_strided": ("Conv2D", {"filters": 2, "kernel_size": 2, "strides": 2}, SQUARE),
    "conv2d_dilated": (
        "Conv2D",
        {"filters": 2, "kernel_size": 2, "dilation_rate": (2, 1), "activation": "tanh"},
        SQUARE,
    ),
    "conv2d_groups": (
        "Conv2D",
        {"filters": 6, "kernel_size": 3, "groups": 3, "padding": "same"},
        SQUARE,
    ),
    "conv2d_1x1": ("Conv2D", {"filters": 5, "kernel_size": 1}, SQUARE),
    "conv3d": (
        "Conv3D",
        {"filters": 2, "kernel_size": 2, "strides": (1, 2, 1), "padding": "same"},
        VOLUME,
    ),
    "conv1d_transpose": ("Conv1DTranspose", {"filters": 3, "kernel_size": 3}, LINE),
    "conv1d_transpose_same": (
        "Conv1DTranspose",
        {"filters": 2, "kernel_size": 4, "strides": 2, "padding": "same"},
        LINE,
    ),
    "conv2d_transpose": (
        "Conv2DTranspose",
        {"filters": 2, "kernel_size": 3, "strides": 2, "activation": "sigmoid"},
        SQUARE,
    ),
    "conv2d_transpose_same": (
        "Conv2DTranspose",
        {"filters": 2, "kernel_size": (3, 2), "strides": (2, 1), "padding": "same"},
        SQUARE,
    ),
    "conv2d_transpose_gaps": (
        "Conv2DTranspose",
        {"filters": 2, "kernel_size": 2, "strides": 3},
        SQUARE,
    ),
    "conv2d_transpose_gaps_same": (
        "Conv2DTranspose",
        {"filters": 2, "kernel_size": 2, "strides": 3, "padding": "same"},
        SQUARE,
    ),
    "conv2d_transpose_more": (
        "Conv2DTranspose",
        {"filters": 2, "kernel_size": 3, "strides": 2, "output_padding": 1},
        SQUARE,
    ),
    "conv2d_transpose_more_same": (
        "Conv2DTranspose",
        {
            "filters": 2,
            "kernel_size": 3,
            "strides": 2,
            "padding": "same",
            "output_padding": (0, 1),
        },
        SQUARE,
    ),
    "conv3d_transpose": (
        "Conv3DTranspose",
        {"filters": 2, "kernel_size": 2, "strides": 2, "padding": "same"},
        VOLUME,
    ),
    "depthwise_conv1d": (
        "DepthwiseConv1D",
        {"kernel_size": 3, "padding": "same", "depth_multiplier": 2},
        LINE,
    ),
    "depthwise_conv2d": ("DepthwiseConv2D", {"kernel_size": 3, "activation": "relu"}, SQUARE),
    "depthwise_conv2d_strided": (
        "DepthwiseConv2D",
        {"kernel_size": 2, "strides": 2, "padding": "same", "depth_multiplier": 2},
        SQUARE,
    ),
    "separable_conv1d": (
        "SeparableConv1D",
        {"filters": 3, "kernel_size": 2, "depth_multiplier": 2},
        LINE,
    ),
    "separable_conv2d": (
        "SeparableConv2D",
        {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
        SQUARE,
    ),
}


def _program(kind: str, options: dict[str, Any], shape: tuple[int, ...]) -> Program:
    def run(k: Any) -> Arrays:
        return training(k, getattr(k.layers, kind)(**options), array(shape, 1))

    return run


def _network(k: Any) -> Arrays:
    """Two convolutions, a depthwise one and a dense layer."""
    layers = k.layers
    model = k.Sequential(
        [
            k.Input((6, 6, 2)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(3, 2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    return training(k, model, array((3, 6, 6, 2), 2))


PROGRAMS: dict[str, Program] = {
    **{name: _program(*case) for name, case in CASES.items()},
    "network": _network,
}
