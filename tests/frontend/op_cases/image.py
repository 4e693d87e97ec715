"""Cases of `ops.image`; the oracle weighs pixels by their distance in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, fixed, given, sample


def _cubic(d: Any, a: float = -0.5) -> Any:
    """https://ieeexplore.ieee.org/document/1163711"""
    far = np.where(d < 2, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a, 0)
    return np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, far)


def _matrix(size: int, new: int, interpolation: str, antialias: bool) -> Any:
    """What each new pixel takes of each old one: (new, size)."""
    centers = (np.arange(new) + 0.5) * size / new
    pixels = np.arange(size) + 0.5
    if interpolation == "nearest":
        return np.eye(size)[np.floor(centers).astype(int)]
    if interpolation == "bilinear" and not antialias:
        centers = np.clip(centers, 0.5, size - 0.5)
    reach = max(size / new, 1.0) if antialias else 1.0
    distance = np.abs(centers[:, None] - pixels) / reach
    weights = np.maximum(1 - distance, 0) if interpolation == "bilinear" else _cubic(distance)
    return weights / weights.sum(1, keepdims=True)


def resize(
    x: Any,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_value: float = 0.0,
    data_format: Any = None,
) -> Any:
    axes = (-2, -1) if data_format == "channels_first" else (-3, -2)
    if crop_to_aspect_ratio or pad_to_aspect_ratio:
        x = _in_proportion(x, size, axes, pad_to_aspect_ratio, fill_value)
    for axis, new in zip(axes, size, strict=True):
        matrix = _matrix(x.shape[axis], new, interpolation, antialias)
        x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def _in_proportion(x: Any, size: Any, axes: Any, pad: bool, fill_value: float) -> Any:
    sizes = [x.shape[a] for a in axes]
    for axis, other, new, other_new in ((0, 1, *size), (1, 0, *size[::-1])):
        wanted = int(sizes[other] * new / other_new)
        if pad and wanted > sizes[axis]:
            widths = [(0, 0)] * x.ndim
            widths[axes[axis]] = ((wanted - sizes[axis]) // 2,) * 2
            x = np.pad(x, widths, constant_values=fill_value)
        elif not pad and wanted < sizes[axis]:
            start = (sizes[axis] - wanted) // 2
            x = np.take(x, range(start, start + max(wanted, 1)), axes[axis])
    return x


def _cases() -> Iterator[Case]:
    x = given(sample((2, 4, 5, 2)), "float32")
    for interpolation in ("nearest", "bilinear", "bicubic"):
        for size in [(8, 10), (3, 7)]:
            options = {"interpolation": interpolation}
            yield Case("image.resize", [x, size], resize, options, gradient=True)
        for size in [(2, 3), (6, 3)]:
            options = {"interpolation": interpolation, "antialias": True}
            yield Case("image.resize", [x, size], resize, options, gradient=True)
    for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        for size in [(3, 8), (6, 2)]:
            options = {option: True}
            yield Case("image.resize", [x, size], resize, options, gradient=True)
    yield Case("image.resize", [fixed(sample((4, 3, 2)), "float32"), (2, 5)], resize, gradient=True)
    first = given(sample((2, 1, 3, 4)), "float32")
    options = {"data_format": "channels_first"}
    yield Case("image.resize", [first, (5, 3)], resize, options, gradient=True)


CASES: list[Case] = [*_cases()]
