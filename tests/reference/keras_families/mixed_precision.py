"""Mixed precision in float16: dtypes, trainings with a scaled loss, and what its overflow skips.

float16 rounds differently in other kernels, so numbers agree to about three digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, numpy

N = 24


def _under(policy: str, program: Callable[[Any], Arrays]) -> Program:
    """The program under a policy, which is put back afterwards."""

    def run(k: Any) -> Arrays:
        before = k.mixed_precision.dtype_policy()
        k.mixed_precision.set_dtype_policy(policy)
        try:
            return program(k)
        finally:
            k.mixed_precision.set_dtype_policy(before)

    return run


def _x() -> Any:
    return array((N, 5), 1)


def _classes() -> Any:
    return np.argmax(_x()[:, :3], axis=1).astype(np.int32)


def _model(k: Any) -> Any:
    model = k.Sequential(
        [
            k.Input((5,)),
            k.layers.Dense(8, activation="relu"),
            k.layers.LayerNormalization(),
            k.layers.Dense(8, activation="tanh"),
            k.layers.BatchNormalization(),
            k.layers.Dense(3, dtype="float32"),
        ]
    )
    fill(model, 3)
    return model


def _kind(x: Any) -> Any:
    """A dtype's size, which two libraries can compare."""
    name = getattr(x, "name", x)
    return np.array({"float16": 2, "float32": 4}[str(name)])


def _dtypes(k: Any) -> Arrays:
    """What layers say of themselves, and what they give."""
    model = _model(k)
    found: Arrays = {}
    for i, layer in enumerate(model.layers):
        found[f"{i}/compute"] = _kind(layer.compute_dtype)
        found[f"{i}/variable"] = _kind(layer.variable_dtype)
        found[f"{i}/dtype"] = _kind(layer.dtype)
        found[f"{i}/kernel"] = _kind(layer.weights[0].dtype)
    first = k.layers.Dense(4)
    found["hidden"] = numpy(first(_x()))[:0]
    found["model"] = numpy(model(_x()))[:0]
    single = k.layers.Dense(4, dtype="float16")
    found["float16"] = numpy(single(_x()))[:0]
    found["float16/kernel"] = _kind(single.kernel.dtype)
    for name in ("Embedding", "Softmax", "LayerNormalization", "BatchNormalization"):
        layer = k.layers.Embedding(7, 3) if name == "Embedding" else getattr(k.layers, name)()
        given = _classes() if name == "Embedding" else _x()
        found[name] = numpy(layer(given))[:0]
    return found


def _trained(k: Any, scaled: Any, epochs: int = 4) -> Arrays:
    model = _model(k)
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    # So small that no gradient is near the largest float16, where rounding would decide.
    model.compile(scaled, loss, loss_weights=0.01, metrics=["accuracy"])
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": epochs}
    history = model.fit(_x(), _classes(), **options).history
    found: Arrays = {"loss": np.array(history["loss"], np.float32)}
    for i, weight in enumerate(model.weights):
        found[f"weight.{i}"] = numpy(weight)
    optimizer = model.optimizer
    found["scale"] = numpy(optimizer.dynamic_scale)
    found["steps"] = numpy(optimizer.step_counter)
    found["iterations"] = np.array(int(optimizer.iterations))
    found["variables"] = np.array(len(optimizer.variables))
    return found


def _fit(k: Any) -> Arrays:
    """`compile` puts the scaling around the optimizer by itself."""
    return _trained(k, k.optimizers.Adam(1e-2))


STEPS = 20


def _images() -> Any:
    return array((N, 8, 8, 2), 2)


def _sequences() -> Any:
    return array((N, 6, 5), 4)


def _words() -> Any:
    return np.argmax(array((N, 6, 11), 5), axis=-1).astype(np.int32)


def _network(k: Any) -> Any:
    x = inputs = k.Input((8, 8, 2))
    for width in (4, 6):
        x = k.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = k.layers.BatchNormalization()(x)
        x = k.layers.Activation("relu")(x)
        x = k.layers.MaxPooling2D()(x)
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(inputs, k.layers.Dense(3, dtype="float32")(x))


def _block(k: Any) -> Any:
    inputs = k.Input((6,), dtype="int32")
    x = k.layers.Embedding(11, 8)(inputs)
    y = k.layers.LayerNormalization()(x)
    x = k.layers.Add()([x, k.layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)])
    y = k.layers.Dense(16, activation="gelu")(k.layers.LayerNormalization()(x))
    x = k.layers.Add()([x, k.layers.Dense(8)(y)])
    x = k.layers.GlobalAveragePooling1D()(k.layers.LayerNormalization()(x))
    return k.Model(inputs, k.layers.Dense(3, dtype="float32")(x))


def _recurrent(k: Any) -> Any:
    layers = [k.Input((6, 5)), k.layers.LSTM(7, return_sequences=True), k.layers.GRU(4)]
    return k.Sequential([*layers, k.layers.Dense(3, dtype="float32")])


def _followed(
    model_of: Callable[[Any], Any],
    data: Callable[[], Any],
    optimizer_of: Callable[[Any], Any],
    spoiled: int | None = None,
) -> Program:
    """The loss of each of 20 steps on one batch; in one of them, with an infinity in it."""

    def run(k: Any) -> Arrays:
        model = model_of(k)
        fill(model, 3)
        scaled = k.optimizers.LossScaleOptimizer(
            optimizer_of(k), initial_scale=1024.0, dynamic_growth_steps=6
        )
        model.compile(scaled, k.losses.SparseCategoricalCrossentropy(from_logits=True))
        found: dict[str, list[Any]] = {"loss": [], "scale": [], "steps": [], "iterations": []}
        for i in range(STEPS):
            x = data()
            if i == spoiled:
                x[0] = np.inf
            history = model.fit(x, _classes(), batch_size=N, shuffle=False, verbose=0).history
            found["loss"] += history["loss"] if i != spoiled else []
            found["scale"].append(float(numpy(scaled.dynamic_scale)))
            found["steps"].append(int(numpy(scaled.step_counter)))
            found["iterations"].append(int(numpy(scaled.inner_optimizer.iterations)))
        return {name: np.array(values, np.float32) for name, values in found.items()}

    return run


def _growing(k: Any) -> Arrays:
    inner = k.optimizers.SGD(0.05, momentum=0.9)
    return _trained(k, k.optimizers.LossScaleOptimizer(inner, 64.0, dynamic_growth_steps=3))


def _overflowing(k: Any) -> Arrays:
    """Every step is skipped, and halves the scale."""
    return _trained(k, k.optimizers.LossScaleOptimizer(k.optimizers.Adam(1e-2), 2.0**40), 1)


PROGRAMS: dict[str, Program] = {
    "dtypes": _under("mixed_float16", _dtypes),
    "fit": _under("mixed_float16", _fit),
    "growing": _under("mixed_float16", _growing),
    "overflowing": _under("mixed_float16", _overflowing),
    **{
        name: _under("mixed_float16", _followed(*program))
        for name, program in {
            "network": (_network, _images, lambda k: k.optimizers.Adam(1e-2)),
            "network, spoiled": (_model, _x, lambda k: k.optimizers.SGD(0.1, momentum=0.9), 7),
            "block": (_block, _words, lambda k: k.optimizers.AdamW(1e-2)),
            "recurrent": (_recurrent, _sequences, lambda k: k.optimizers.RMSprop(1e-2)),
            "clipped": (_network, _images, lambda k: k.optimizers.SGD(0.1, global_clipnorm=0.05)),
            "averaged": (_model, _x, lambda k: k.optimizers.Adam(1e-2, use_ema=True)),
            "accumulated": (
                *(_model, _x),
                lambda k: k.optimizers.Adam(1e-2, gradient_accumulation_steps=2),
            ),
        }.items()
    },
}
