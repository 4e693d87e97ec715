"""The layers of frontend/layers/preprocessing.py, where chance has no part."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, numpy

TENTH = (0.1, 0.1)
IMAGES = array((3, 6, 4, 2), 3, 0.0, 1.0)


def _adapted(**options: Any) -> Program:
    def run(k: Any) -> Arrays:
        layer = k.layers.Normalization(**options)
        layer.adapt(array((7, 3, 2), 1))
        x = k.ops.convert_to_tensor(array((4, 3, 2), 2))
        found: Arrays = {"output": numpy(layer(x)), "weights": np.array(len(layer.weights))}
        found["inverse"] = numpy(_inverse(k, layer, **options)(x))
        return found

    return run


def _inverse(k: Any, layer: Any, **options: Any) -> Any:
    other = k.layers.Normalization(invert=True, **options)
    other.build((None, 3, 2))
    other.set_weights(layer.get_weights())
    if k.__name__ == "keras":
        other.finalize_state()
    return other


def _given(k: Any) -> Arrays:
    x = k.ops.convert_to_tensor(array((4, 3, 2), 2))
    layers = {
        "scalar": k.layers.Normalization(mean=1.0, variance=4.0),
        "vector": k.layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 0.0]),
        "matrix": k.layers.Normalization((1, 2), np.ones((3, 2)), np.full((3, 2), 2.0)),
        "one": k.layers.Normalization(None, 1.0, 2.0, invert=True),
    }
    return {name: numpy(layer(x)) for name, layer in layers.items()}


def _in_a_model(k: Any) -> Arrays:
    """Adapted on batches, then the first layer of a model."""
    layer = k.layers.Normalization()
    batches = [array((4, 5), i) for i in range(3)]
    layer.adapt(np.concatenate(batches))
    model = k.Sequential([k.Input((5,)), layer, k.layers.Rescaling(2.0)])
    return {"output": numpy(model(k.ops.convert_to_tensor(batches[0])))}


def _fixed(name: str, **options: Any) -> Program:
    """By a fixed angle: the two ends of what chance may choose are one."""

    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, name)(**options)
        return {
            "trained": numpy(layer(k.ops.convert_to_tensor(IMAGES), training=True)),
            "rested": numpy(layer(k.ops.convert_to_tensor(IMAGES), training=False)),
        }

    return run


def _large(name: str, **options: Any) -> Program:
    """Numbers of pixels up to 255."""

    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, name)(**options)
        found: Arrays = {}
        for what, images in (("batch", IMAGES * 255), ("one", IMAGES[0] * 255)):
            for training in (True, False):
                x = k.ops.convert_to_tensor(images)
                found[f"{what}.{training}"] = numpy(layer(x, training=training))
        return found

    return run


def _sizes(name: str, *settings: dict[str, Any]) -> Program:
    """At rest, and in training where the images are not larger."""

    def run(k: Any) -> Arrays:
        found: Arrays = {}
        for i, options in enumerate(settings):
            layer = getattr(k.layers, name)(**options)
            x = k.ops.convert_to_tensor(IMAGES)
            found[f"{i}"] = numpy(layer(x))
            found[f"{i}.one"] = numpy(layer(x[0]))
            if name == "RandomCrop":
                found[f"{i}.rest"] = numpy(layer(x, training=False))
        return found

    return run


def _encodings(k: Any) -> Arrays:
    found: Arrays = {}
    rows = np.array([[0, 2, 2], [1, 3, 0]])
    weights = np.array([[0.5, 1.0, 2.0], [1.0, 0.0, 3.0]], np.float32)
    for mode in ("one_hot", "multi_hot", "count"):
        layer = k.layers.CategoryEncoding(num_tokens=4, output_mode=mode)
        for name, x in {"rows": rows, "column": rows[:, :1], "row": rows[0]}.items():
            found[f"{mode}.{name}"] = numpy(layer(x))
    layer = k.layers.CategoryEncoding(num_tokens=4, output_mode="count")
    found["weighted"] = numpy(layer(rows, count_weights=weights))
    return found


def _bins(k: Any) -> Arrays:
    found: Arrays = {}
    x = np.array([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, -0.1]], np.float32)
    for mode in ("int", "one_hot", "multi_hot", "count"):
        layer = k.layers.Discretization(bin_boundaries=[0.0, 1.0, 2.0], output_mode=mode)
        found[mode] = numpy(layer(x))
    for bins, epsilon, count in ((4, 0.01, 7), (3, 0.1, 1000), (10, 0.01, 5000)):
        layer = k.layers.Discretization(num_bins=bins, epsilon=epsilon)
        layer.adapt(array((count,), bins))
        found[f"adapted.{bins}"] = np.array(layer.bin_boundaries)
        found[f"adapted.{bins}.int"] = numpy(layer(x))
    layer = k.layers.Discretization(num_bins=5, epsilon=0.02)
    layer.adapt([array((400,), i) for i in range(3)])
    found["adapted.batches"] = np.array(layer.bin_boundaries)
    return found


def _patches(k: Any) -> Arrays:
    found: Arrays = {}
    images, volumes = array((2, 7, 6, 3), 5), array((2, 5, 4, 6, 2), 6)
    settings: list[tuple[Any, dict[str, Any]]] = [
        (images, {"size": 2}),
        (images, {"size": (3, 2)}),
        (images, {"size": 3, "strides": 1}),
        (images, {"size": (2, 3), "strides": (2, 1), "padding": "same"}),
        (images, {"size": 2, "strides": 1, "dilation_rate": 2}),
        (images, {"size": 4, "padding": "same"}),
        (images[0], {"size": 3}),
        (volumes, {"size": (2, 2, 3)}),
        (volumes, {"size": (2, 3, 3), "strides": 1, "padding": "same"}),
    ]
    for i, (x, options) in enumerate(settings):
        found[f"{i}"] = numpy(k.ops.image.extract_patches(x, **options))
    found["3d"] = numpy(k.ops.image.extract_patches_3d(volumes, 2))
    return found


PROGRAMS: dict[str, Program] = {
    "adapted": _adapted(),
    "adapted_axes": _adapted(axis=(1, 2)),
    "adapted_first": _adapted(axis=1),
    "adapted_all": _adapted(axis=None),
    "given": _given,
    "in_a_model": _in_a_model,
    "rotated_quarter": _fixed("RandomRotation", factor=(0.25, 0.25)),
    "rotated": _fixed("RandomRotation", factor=TENTH),
    "rotated_nearest": _fixed("RandomRotation", factor=TENTH, fill_mode="nearest"),
    "rotated_constant": _fixed("RandomRotation", factor=TENTH, fill_mode="constant"),
    "moved": _fixed("RandomTranslation", height_factor=(0.5, 0.5), width_factor=(-0.3, -0.3)),
    "moved_constant": _fixed(
        "RandomTranslation", height_factor=TENTH, width_factor=TENTH, fill_mode="constant"
    ),
    "larger": _fixed("RandomZoom", height_factor=(-0.3, -0.3)),
    "smaller": _fixed("RandomZoom", height_factor=(0.4, 0.4), width_factor=TENTH),
    "contrast_none": _large("RandomContrast", factor=0.0),
    "contrast_more": _large("RandomContrast", factor=(-0.4, 0.4), value_range=(20, 200)),
    "brighter": _large("RandomBrightness", factor=(0.4, 0.4)),
    "darker": _large("RandomBrightness", factor=(-0.2, -0.2), value_range=[0, 200]),
    "cropped": _sizes(
        "CenterCrop",
        {"height": 3, "width": 2},
        {"height": 6, "width": 1},
        {"height": 8, "width": 4},
        {"height": 3, "width": 9},
    ),
    "cropped_first": _sizes(
        "CenterCrop", {"height": 3, "width": 1, "data_format": "channels_first"}
    ),
    "cropped_anywhere": _sizes(
        "RandomCrop",
        {"height": 6, "width": 4},
        {"height": 9, "width": 3},
        {"height": 7, "width": 8},
    ),
    "encodings": _encodings,
    "bins": _bins,
    "patches": _patches,
    "smaller_nearest": _fixed("RandomZoom", height_factor=(0.4, 0.4), fill_mode="nearest"),
}
