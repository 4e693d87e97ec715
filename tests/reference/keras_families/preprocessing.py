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
    "smaller_nearest": _fixed("RandomZoom", height_factor=(0.4, 0.4), fill_mode="nearest"),
}
