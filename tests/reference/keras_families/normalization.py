"""The layers of frontend/layers/normalization.py, and the operations below them."""

from __future__ import annotations

from typing import Any

from tests.reference.keras_families.common import (
    Arrays,
    Program,
    array,
    fill,
    gradients,
    numpy,
    training,
)

MODEL = (4, 3, 2, 6)


def _layer(name: str, shape: tuple[int, ...], **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        return training(k, getattr(k.layers, name)(**options), array(shape, 1))

    return run


def _frozen_batch(k: Any) -> Arrays:
    """A layer that is not trainable rests, whatever it is told."""
    layer = k.layers.BatchNormalization()
    layer.trainable = False
    return training(k, layer, array((5, 3), 1), steps=1)


def _batch_masked(shape: tuple[int, ...], **options: Any) -> Program:
    """Statistics without what a mask leaves out."""

    def run(k: Any) -> Arrays:
        class Masked(k.layers.Layer):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.inner = k.layers.BatchNormalization(**options)

            def call(self, x: Any, training: bool = False) -> Any:
                mask = k.ops.convert_to_tensor(array(shape[:-1], 5) > -0.5)
                return self.inner(x, training=training, mask=mask)

        return training(k, Masked(), array(shape, 1))

    return run


def _batch_in_a_model(k: Any) -> Arrays:
    """Moving statistics follow the steps of a model."""
    k_layers = k.layers
    model = k.Sequential(
        [
            k.Input((4,)),
            k_layers.Dense(5),
            k_layers.BatchNormalization(momentum=0.6),
            k_layers.Activation("relu"),
            k_layers.Dense(2),
        ]
    )
    return training(k, model, array((6, 4), 1))


def _operations(k: Any) -> Arrays:
    x, c = array((3, 4, 5), 1), array((5,), 2, 0.5, 1.5)
    rows = array((4, 5), 3)
    of = k.ops
    found: Arrays = {}
    calls: dict[str, Any] = {
        "layer": lambda t: of.layer_normalization(t, c, c * 2),
        "layer_plain": lambda t: of.layer_normalization(t, axis=[1, 2], epsilon=1e-3),
        "layer_two": lambda t: of.layer_normalization(t, rows, rows * 2, axis=[1, 2]),
        "rms": lambda t: of.rms_normalization(t, c),
        "rms_plain": lambda t: of.rms_normalization(t, axis=1, epsilon=1e-2),
        "batch": lambda t: of.batch_normalization(t, c, c * 2, -1, c * 3, c * 4, 1e-2),
        "batch_plain": lambda t: of.batch_normalization(t, c[:4], c[:4] * 2, 1),
        "normalize": lambda t: of.normalize(t),
        "normalize_1": lambda t: of.normalize(t, axis=1, order=1),
        "normalize_3": lambda t: of.normalize(t, axis=0, order=3),
        "mean": lambda t: of.moments(t, [0, 2])[0],
        "variance": lambda t: of.moments(t, [1], keepdims=True)[1],
    }
    for name, call in calls.items():
        t = of.convert_to_tensor(x)
        found[name] = numpy(call(t))
        weights = array(found[name].shape, 4)
        (gradient,) = gradients(k, lambda c=call, t=t, w=weights: of.sum(c(t) * w), [t])
        assert gradient is not None
        found[f"{name}.gradient"] = gradient
    return found


def _rests_by_default(k: Any) -> Arrays:
    layer = k.layers.BatchNormalization()
    x = array((5, 3), 1)
    layer(x)
    fill(layer, 2)
    return {"output": numpy(layer(x)), "mean": numpy(layer.moving_mean)}


PROGRAMS: dict[str, Program] = {
    "batch": _layer("BatchNormalization", (6, 3)),
    "batch_sequences": _layer("BatchNormalization", (2, 5, 3), momentum=0.7),
    "batch_images": _layer("BatchNormalization", MODEL, momentum=0.7, epsilon=1e-2),
    "batch_channels_first": _layer("BatchNormalization", MODEL, axis=1),
    "batch_axis_2": _layer("BatchNormalization", MODEL, axis=2),
    "batch_plain": _layer("BatchNormalization", (6, 3), center=False, scale=False),
    "batch_masked": _batch_masked((4, 5, 3), momentum=0.6),
    "batch_masked_plain": _batch_masked((6, 3), center=False, scale=False),
    "batch_renorm": _layer("BatchNormalization", (6, 3), renorm=True, momentum=0.7),
    "batch_renorm_clipped": _layer(
        "BatchNormalization",
        (2, 5, 3),
        renorm=True,
        renorm_momentum=0.5,
        renorm_clipping={"rmin": 0.5, "rmax": 1.5, "dmax": 0.3},
        scale=False,
    ),
    "batch_renorm_masked": _batch_masked((4, 5, 3), renorm=True, center=False),
    "batch_frozen": _frozen_batch,
    "batch_in_a_model": _batch_in_a_model,
    "batch_rests_by_default": _rests_by_default,
    "layer": _layer("LayerNormalization", (4, 6)),
    "layer_sequences": _layer("LayerNormalization", (2, 3, 6), epsilon=1e-2),
    "layer_axis_1": _layer("LayerNormalization", (2, 3, 6), axis=1),
    "layer_axes": _layer("LayerNormalization", (2, 3, 6), axis=[1, 2]),
    "layer_outer_axes": _layer("LayerNormalization", MODEL, axis=[1, 3]),
    "layer_plain": _layer("LayerNormalization", (4, 6), center=False, scale=False),
    "layer_no_center": _layer("LayerNormalization", (4, 6), center=False),
    "layer_no_scale": _layer("LayerNormalization", (4, 6), scale=False),
    "layer_rms": _layer("LayerNormalization", (4, 6), rms_scaling=True),
    "group": _layer("GroupNormalization", MODEL, groups=3),
    "group_1": _layer("GroupNormalization", MODEL, groups=1),
    "group_of_channels": _layer("GroupNormalization", (2, 5, 6), groups=-1),
    "group_channels_first": _layer("GroupNormalization", (2, 6, 5), groups=2, axis=1),
    "group_plain": _layer("GroupNormalization", (2, 6), groups=2, center=False, scale=False),
    "rms": _layer("RMSNormalization", (4, 6)),
    "rms_axes": _layer("RMSNormalization", (2, 3, 6), axis=[1, 2], epsilon=1e-2),
    "unit": _layer("UnitNormalization", (4, 6)),
    "unit_axes": _layer("UnitNormalization", (2, 3, 6), axis=[1, 2]),
    "operations": _operations,
}
