"""Image operators in NumPy where ONNX's reference evaluator lacks or rounds them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


class GridSample(OpRun):
    """The original rounds coordinates to float32, and clamps those of cubic taps too early."""

    def _run(
        self, x: Any, grid: Any, mode: str = "", padding_mode: str = "", align_corners: int = 0
    ) -> Any:
        batch = np.arange(len(x)).reshape(-1, *[1] * (grid.ndim - 2))
        axes = []
        for axis, size in enumerate(x.shape[2:]):
            place = grid[..., x.ndim - 3 - axis] + 1
            place = place / 2 * (size - 1) if align_corners else (place * size - 1) / 2
            place = np.rint(place) if mode == "nearest" else place
            first = np.floor(place)
            taps = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}[mode]
            axes.append([(first + k, _weight(place - first - k, mode)) for k in taps])
        total: Any = 0.0
        for combination in itertools.product(*axes):
            weight: Any = 1.0
            places: list[Any] = []
            for size, (at, along) in zip(x.shape[2:], combination, strict=True):
                edges = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
                kept = np.rint(_inside(at, size, edges, padding_mode))
                found = (kept >= 0) & (kept < size)
                places.append(np.where(found, kept, 0).astype(int))
                weight = weight * along * found
            # (batch, points..., channels)
            total = total + weight[..., None] * x[(batch, slice(None), *places)]
        return (np.moveaxis(total, -1, 1).astype(x.dtype),)


def _inside(place: Any, size: int, edges: tuple[float, float], padding: str) -> Any:
    """Clamped to the pixels, or reflected at the edges as often as it takes."""
    if padding == "border":
        return np.clip(place, 0, size - 1)
    while padding == "reflection" and ((place < edges[0]) | (place > edges[1])).any():
        place = np.where(place < edges[0], 2 * edges[0] - place, place)
        place = np.where(place > edges[1], 2 * edges[1] - place, place)
    return place


def _weight(distance: Any, mode: str, a: float = -0.75) -> Any:
    """Of a pixel at this distance; cubic: https://ieeexplore.ieee.org/document/1163711."""
    d = np.abs(distance)
    if mode == "cubic":
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, far)
    return 1 - d if mode == "linear" else np.ones_like(d)


class AffineGrid(OpRun):
    """The original rounds to float32."""

    def _run(self, theta: Any, size: Any, align_corners: int = 0) -> Any:
        axes = []
        for count in size[2:]:
            steps = np.arange(count)
            axes.append(
                2 * steps / (count - 1) - 1 if align_corners else (2 * steps + 1) / count - 1
            )
        grid = np.meshgrid(*axes, indexing="ij")
        points = np.stack([*reversed(grid), np.ones_like(grid[0])], axis=-1)
        lead = points.reshape(1, -1, points.shape[-1])
        moved = lead @ np.swapaxes(theta, 1, 2)
        return (moved.reshape(len(theta), *points.shape[:-1], -1).astype(theta.dtype),)


class MaxRoiPool(OpRun):
    """There is no original. After Fast R-CNN (arXiv:1504.08083), as ONNX Runtime's kernel."""

    def _run(self, x: Any, rois: Any, pooled_shape: Any, spatial_scale: float = 1.0) -> Any:
        result = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
        for r, (image, *edges) in enumerate(rois):
            left, top, right, bottom = np.floor(np.asarray(edges) * spatial_scale + 0.5).astype(int)
            for place in np.ndindex(*pooled_shape):
                window: list[Any] = [int(image), slice(None)]
                for axis, (low, high) in enumerate([(top, bottom), (left, right)]):
                    step = max(high - low + 1, 1) / pooled_shape[axis]
                    ends = np.floor(place[axis] * step), np.ceil((place[axis] + 1) * step)
                    window.append(slice(*(int(max(e + low, 0)) for e in ends)))
                found = x[tuple(window)]
                if found.size:
                    result[(r, slice(None), *place)] = found.max(axis=(1, 2))
        return (result,)


CORRECTED = [AffineGrid, GridSample, MaxRoiPool]
