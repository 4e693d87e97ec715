"""Cases of `ops.adaptive`, `ops.colors` and `ops.patches`."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample


def _adaptive(reduce: Callable[..., Any]) -> Any:
    """Window by window, axis by axis."""

    def oracle(x: Any, size: Any, data_format: str = "channels_last") -> Any:
        first, count = (1 if data_format == "channels_last" else 2), x.ndim - 2
        sizes = [size] * count if isinstance(size, int) else size
        for axis, wanted in enumerate(sizes, first):
            n = x.shape[axis]
            windows = [
                np.take(x, range(i * n // wanted, -(-(i + 1) * n // wanted)), axis)
                for i in range(wanted)
            ]
            x = np.stack([reduce(w, axis) for w in windows], axis)
        return x

    return oracle


def pooling() -> Iterator[Case]:
    for name, oracle in (
        ("adaptive_average_pool", _adaptive(np.mean)),
        ("adaptive_max_pool", _adaptive(np.max)),
    ):
        x = given(sample((2, 5, 7, 2)), "float32")
        yield Case(name, [x, (2, 3)], oracle, gradient=True)
        yield Case(name, [x, 4], oracle)
        first = {"data_format": "channels_first"}
        yield Case(name, [x, (3, 1)], oracle, first, gradient=True)
        yield Case(name, [given(sample((2, 5, 3)), "float32"), 3], oracle)
        yield Case(name, [given(sample((1, 3, 4, 2, 2)), "float32"), (2, 3, 2)], oracle)


def _by_pixel(convert: Callable[..., Any]) -> Any:
    def oracle(x: Any, data_format: str = "channels_last") -> Any:
        axis = -1 if data_format == "channels_last" else -3
        pixels = np.moveaxis(x, axis, -1)
        found = np.apply_along_axis(lambda p: convert(*p), -1, pixels)
        return np.moveaxis(found, -1, axis)

    return oracle


def colors() -> Iterator[Case]:
    last = given(sample((2, 3, 4, 3), 0.05, 0.95), "float32")
    first = given(sample((2, 3, 4, 5), 0.05, 0.95), "float32")
    options = {"data_format": "channels_first"}
    gray = _by_pixel(lambda r, g, b: [0.2989 * r + 0.587 * g + 0.114 * b])
    for name, oracle in (
        ("image.rgb_to_grayscale", gray),
        ("image.rgb_to_hsv", _by_pixel(colorsys.rgb_to_hsv)),
        ("image.hsv_to_rgb", _by_pixel(colorsys.hsv_to_rgb)),
    ):
        yield Case(name, [last], oracle, gradient=True)
        yield Case(name, [first], oracle, options)
        edges = fixed([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1], [0.5, 0.5, 0.2]]], "float32")
        yield Case(name, [edges], oracle, note="edges")
    yield Case("image.rgb_to_grayscale", [given(sample((2, 3, 4, 1)), "float32")], lambda x: x)
    whole = given(integers((2, 3, 3), 0, 256), "uint8")
    yield Case("image.rgb_to_grayscale", [whole], lambda x: np.floor(gray(x) + 1e-4))


def borders() -> Iterator[Case]:
    x = given(sample((2, 5, 6, 2)), "float32")
    first = given(sample((2, 2, 5, 6)), "float32")
    crop, pad = "image.crop_images", "image.pad_images"
    cut = {"top_cropping": 1, "bottom_cropping": 0, "left_cropping": 2, "right_cropping": 1}
    yield Case(crop, [x], lambda x, **_: x[:, 1:, 2:-1], cut, gradient=True)
    wanted = {"top_cropping": 1, "target_height": 3, "right_cropping": 1, "target_width": 4}
    yield Case(crop, [x], lambda x, **_: x[:, 1:4, 1:5], wanted)
    channels = {**wanted, "data_format": "channels_first"}
    yield Case(crop, [first], lambda x, **_: x[:, :, 1:4, 1:5], channels)
    yield Case(crop, [given(x.array[0], "int32")], lambda x, **_: x[1:, 2:-1], cut)
    more = {"top_padding": 1, "bottom_padding": 2, "left_padding": 0, "target_width": 8}
    widths = ((0, 0), (1, 2), (0, 2), (0, 0))
    yield Case(pad, [x], lambda x, **_: np.pad(x, widths), more, gradient=True)
    channels = {**more, "data_format": "channels_first"}
    yield Case(pad, [first], lambda x, **_: np.pad(x, ((0, 0), *widths[:3])), channels)


def _patches(
    x: Any, size: Any, strides: Any = None, dilation_rate: int = 1, padding: str = "valid", **_: Any
) -> Any:
    """Place by place, of images with channels last."""
    rank = x.ndim - 2
    sizes, steps = (np.broadcast_to(given, rank) for given in (size, strides or size))
    reach = (sizes - 1) * dilation_rate + 1
    inside = np.array(x.shape[1:-1])
    counts = (inside - reach) // steps + 1
    if padding == "same":
        counts = -(-inside // steps)
        missing = np.maximum((counts - 1) * steps + reach - inside, 0)
        widths = [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)]
        x = np.pad(x, widths)
    found = np.empty((len(x), *counts, int(np.prod(sizes)) * x.shape[-1]))
    for place in np.ndindex(*counts):
        begins = np.array(place) * steps
        window = [slice(b, b + r, dilation_rate) for b, r in zip(begins, reach, strict=True)]
        found[(slice(None), *place)] = x[(slice(None), *window)].reshape(len(x), -1)
    return found


def patches() -> Iterator[Case]:
    name, volumes = "image.extract_patches", "image.extract_patches_3d"
    x = given(sample((2, 5, 6, 2)), "float32")
    yield Case(name, [x, (2, 3)], _patches, gradient=True)
    yield Case(name, [x, 3], _patches, {"strides": 1, "padding": "same"}, gradient=True)
    yield Case(name, [x, 2], _patches, {"strides": (1, 2), "dilation_rate": 2})
    first = given(sample((2, 2, 5, 6)), "float32")
    turned = {"data_format": "channels_first"}
    yield Case(
        name,
        [first, 2],
        lambda x, size, **_: np.moveaxis(_patches(np.moveaxis(x, 1, -1), size), -1, 1),
        turned,
    )
    alone = fixed(sample((4, 4, 1)), "float32")
    yield Case(name, [alone, 2], lambda x, size: _patches(x[None], size)[0])
    x = given(sample((2, 3, 4, 4, 1)), "float32")
    yield Case(volumes, [x, 2], _patches, {"padding": "same"}, gradient=True)
    yield Case(volumes, [x, (1, 2, 3)], _patches, {"strides": 1})


CASES = few_compiled([*pooling(), *colors(), *borders(), *patches()])
