"""Layers that crop, pad and resize, and `ops.image`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, gradients, numpy, training

SIZES = {1: (5,), 2: (4, 5), 3: (3, 4, 5)}

LAYERS: dict[str, list[dict[str, Any]]] = {
    "Cropping1D": [{}, {"cropping": (0, 2)}, {"cropping": 2}],
    "Cropping2D": [{}, {"cropping": 1}, {"cropping": (1, 2)}, {"cropping": ((0, 1), (2, 0))}],
    "Cropping3D": [{}, {"cropping": (1, 0, 2)}, {"cropping": ((0, 1), (2, 0), (0, 0))}],
    "ZeroPadding1D": [{}, {"padding": (0, 2)}],
    "ZeroPadding2D": [{}, {"padding": (1, 2)}, {"padding": ((0, 1), (2, 0))}],
    "ZeroPadding3D": [{}, {"padding": ((0, 1), (2, 0), (1, 1))}],
    "UpSampling1D": [{}, {"size": 3}],
    "UpSampling2D": [{}, {"size": (1, 3)}, {"interpolation": "bilinear"}],
    "UpSampling3D": [{}, {"size": (2, 1, 3)}],
    "Resizing": [
        {"height": 6, "width": 3},
        {"height": 2, "width": 9, "interpolation": "nearest"},
        {"height": 3, "width": 2, "antialias": True},
        {"height": 6, "width": 4, "crop_to_aspect_ratio": True},
        {"height": 6, "width": 4, "pad_to_aspect_ratio": True, "fill_value": 0.5},
        {"height": 3, "width": 8, "data_format": "channels_first"},
    ],
}


def _layer(k: Any, kind: str, settings: dict[str, Any]) -> Arrays:
    rank = int(kind[-2]) if kind.endswith("D") else 2
    first = settings.get("data_format") == "channels_first"
    sizes = SIZES[rank]
    layer = getattr(k.layers, kind)(**settings)
    return training(k, layer, array((2, 3, *sizes) if first else (2, *sizes, 3), 1))


def _first(k: Any) -> Arrays:
    """Channels first."""
    found: Arrays = {}
    for kind in ("Cropping", "ZeroPadding", "UpSampling"):
        for rank in (2, 3):
            layer = getattr(k.layers, f"{kind}{rank}D")(1, data_format="channels_first")
            found[f"{kind}{rank}D"] = numpy(layer(array((2, 3, *SIZES[rank]), 2)))
    return found


def _resize(k: Any, interpolation: str, antialias: bool) -> Arrays:
    found: Arrays = {}
    x = k.ops.convert_to_tensor(array((2, 6, 7, 2), 5))
    for size in [(9, 10), (12, 14), (3, 5), (4, 7), (2, 12), (6, 7), (1, 1)]:

        def call(size: tuple[int, int] = size) -> Any:
            return k.ops.image.resize(x, size, interpolation=interpolation, antialias=antialias)

        y = call()
        weights = array(y.shape, 6)
        (gradient,) = gradients(k, lambda: k.ops.sum(call() * weights), [x])  # noqa: B023
        name = "x".join(map(str, size))
        assert gradient is not None
        found[name], found[f"{name}.gradient"] = numpy(y), gradient
    return found


def _one_image(k: Any) -> Arrays:
    x = k.ops.convert_to_tensor(array((4, 6, 3), 7))
    y = k.ops.convert_to_tensor(array((3, 4, 6), 7))
    whole = k.ops.convert_to_tensor(np.arange(24, dtype=np.int32).reshape(1, 4, 6, 1))
    levels = (np.arange(24) * 77 % 256).astype(np.uint8).reshape(1, 4, 6, 1)
    pixels = k.ops.convert_to_tensor(levels)
    resize = k.ops.image.resize
    return {
        "last": numpy(resize(x, (3, 8))),
        "first": numpy(resize(y, (3, 8), data_format="channels_first")),
        "crop": numpy(resize(x, (5, 3), crop_to_aspect_ratio=True)),
        "pad": numpy(resize(x, (5, 3), pad_to_aspect_ratio=True, fill_value=-1.0)),
        "integers": numpy(resize(whole, (5, 3), interpolation="nearest")),
        "integers, bilinear": numpy(resize(whole, (5, 3))),
        "pixels, nearest": numpy(resize(pixels, (5, 3), interpolation="nearest")),
        "pixels, bicubic": numpy(resize(pixels, (7, 9), interpolation="bicubic", antialias=True)),
        "pixels, layer": numpy(k.layers.Resizing(3, 8)(pixels)),
        "numbers, layer": numpy(k.layers.Resizing(3, 8)(whole)),
        "pixels, pooled": numpy(k.layers.UpSampling2D(2)(pixels)),
    }


PROGRAMS: dict[str, Program] = {
    **{
        f"{kind} {i}": partial(_layer, kind=kind, settings=settings)
        for kind, ways in LAYERS.items()
        for i, settings in enumerate(ways)
    },
    "channels first": _first,
    "nearest": partial(_resize, interpolation="nearest", antialias=False),
    "bilinear": partial(_resize, interpolation="bilinear", antialias=False),
    "bilinear, antialias": partial(_resize, interpolation="bilinear", antialias=True),
    "bicubic": partial(_resize, interpolation="bicubic", antialias=False),
    "bicubic, antialias": partial(_resize, interpolation="bicubic", antialias=True),
    "one image": _one_image,
}
