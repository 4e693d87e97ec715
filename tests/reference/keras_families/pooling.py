"""Pooling layers and operations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, numpy, prefixed, training

#: The sizes that the layers of each rank are tried on.
SIZES = {1: (7,), 2: (6, 7), 3: (4, 5, 6)}


def _image(rank: int, data_format: str, seed: int = 0) -> Any:
    sizes = SIZES[rank]
    return array((2, *sizes, 3) if data_format == "channels_last" else (2, 3, *sizes), seed)


def _layer(k: Any, kind: str, rank: int, settings: dict[str, Any]) -> Arrays:
    layer = getattr(k.layers, f"{kind}{rank}D")(**settings)
    x = _image(rank, settings.get("data_format", "channels_last"))
    return training(k, layer, x)


WINDOWS: dict[str, dict[str, Any]] = {
    "default": {"pool_size": 2},
    "overlapping": {"pool_size": 3, "strides": 1},
    "same": {"pool_size": 2, "padding": "same"},
    "same overlapping": {"pool_size": 3, "strides": 2, "padding": "same"},
    "channels first": {"pool_size": 2, "strides": 2, "data_format": "channels_first"},
}
GLOBAL: dict[str, dict[str, Any]] = {
    "default": {},
    "kept": {"keepdims": True},
    "channels first": {"data_format": "channels_first", "keepdims": True},
}


def _adaptive(kind: str, rank: int, **settings: Any) -> Program:
    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, f"Adaptive{kind}Pooling{rank}D")(**settings)
        return training(k, layer, _image(rank, settings.get("data_format", "channels_last")))

    return run


ADAPTIVE: dict[str, Program] = {
    f"Adaptive{kind}Pooling{rank}D, {name}": _adaptive(kind, rank, **settings)
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
    for name, settings in {
        "one": {"output_size": 1},
        "uneven": {"output_size": (4, 3, 2)[:rank]},
        "channels first": {"output_size": 2, "data_format": "channels_first"},
    }.items()
    # There, Keras on TensorFlow ends with a division by zero.
    if (kind, name) != ("Max", "one")
}


def _ties(k: Any) -> Arrays:
    """Many equal numbers, as after a Relu."""
    found = {}
    for name, settings in WINDOWS.items():
        x = np.maximum(_image(2, settings.get("data_format", "channels_last"), 3), 0)
        x = np.round(x).astype(np.float32)
        found.update(prefixed(name, training(k, k.layers.MaxPooling2D(**settings), x)))
    return found


def _rectangles(k: Any) -> Arrays:
    x = _image(2, "channels_last")
    layers = {
        "max": k.layers.MaxPooling2D((2, 3), strides=(1, 2)),
        "average": k.layers.AveragePooling2D((3, 2), strides=(2, 3), padding="same"),
        "max, gaps": k.layers.MaxPooling2D((1, 2), strides=(2, 3)),
        "average, gaps": k.layers.AveragePooling2D((2, 1), strides=3, padding="same"),
    }
    found = {}
    for name, layer in layers.items():
        found.update(prefixed(name, training(k, layer, x)))
    return found


def _masked(k: Any) -> Arrays:
    x = k.ops.convert_to_tensor(_image(1, "channels_last"))
    mask = k.ops.convert_to_tensor(np.arange(7)[None] < np.asarray([[3], [7]]))
    return {"output": numpy(k.layers.GlobalAveragePooling1D()(x, mask=mask))}


def _operations(k: Any) -> Arrays:
    found = {}
    for rank in SIZES:
        x = k.ops.convert_to_tensor(_image(rank, "channels_last"))
        for name in ("max_pool", "average_pool"):
            pool = getattr(k.ops, name)
            found[f"{name}/{rank}"] = numpy(pool(x, 2))
            found[f"{name}/{rank}/same"] = numpy(pool(x, 3, 2, "same"))
    return found


def _model(k: Any) -> Arrays:
    model = k.Sequential(
        [
            k.layers.MaxPooling2D(),
            k.layers.Dense(4, activation="tanh"),
            k.layers.AveragePooling2D(2, padding="same"),
            k.layers.GlobalAveragePooling2D(),
            k.layers.Dense(2),
        ]
    )
    return training(k, model, _image(2, "channels_last"))


def _programs() -> dict[str, Program]:
    programs: dict[str, Program] = {}
    for rank in SIZES:
        for kind in ("MaxPooling", "AveragePooling"):
            for name, settings in WINDOWS.items():
                program = partial(_layer, kind=kind, rank=rank, settings=settings)
                programs[f"{kind}{rank}D {name}"] = program
        for kind in ("GlobalMaxPooling", "GlobalAveragePooling"):
            for name, settings in GLOBAL.items():
                program = partial(_layer, kind=kind, rank=rank, settings=settings)
                programs[f"{kind}{rank}D {name}"] = program
    return programs


PROGRAMS: dict[str, Program] = {
    **_programs(),
    **ADAPTIVE,
    "ties": _ties,
    "rectangles": _rectangles,
    "masked": _masked,
    "operations": _operations,
    "model": _model,
}
