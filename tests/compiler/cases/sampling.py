"""Reading images at computed places."""

from __future__ import annotations

from itertools import product

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import Array, spread


def _grid(shape: tuple[int, ...], reach: float) -> Array:
    """Points away from whole and half pixels of axes of 3, 4 or 5 pixels."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(-2, 3, shape) + rng.choice([0.2, 0.35, 0.7, 0.85], shape)
    return np.asarray(pixels / 2 * reach)


def _grid_sample() -> list[Case]:
    cases = []
    ways = [
        *product(["linear"], ["zeros", "border", "reflection"], [0, 1]),
        ("cubic", "zeros", 0),
        ("cubic", "border", 1),
        ("cubic", "reflection", 0),
        ("nearest", "zeros", 1),
        ("nearest", "reflection", 0),
    ]
    for mode, padding, align in ways:
        attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
        grid = _grid((1, 2, 2, 2), 0.9)
        # By a grid that is rounded the derivative is zero, or none at all.
        places = Fixed(grid) if mode == "nearest" else grid
        inputs = [spread((1, 2, 3, 4)), places]
        cases.append(Case("GridSample", inputs, attributes, dynamic=mode != "nearest"))
    inputs = [spread((2, 1, 2, 3, 2)), _grid((2, 2, 1, 1, 3), 0.8)]
    cases.append(Case("GridSample", inputs, {"padding_mode": "reflection"}))
    return cases


ROIS = np.asarray([[0.6, 0.7, 3.4, 4.1], [-2.3, 1.2, 2.6, 2.9], [1.1, -0.4, 6.2, 3.3]])
BATCH = np.asarray([1, 0, 1])


def _roi_align() -> list[Case]:
    cases = []
    x = spread((2, 2, 5, 4))
    ways = [
        ("avg", "half_pixel", 0),
        ("avg", "output_half_pixel", 2),
        ("max", "half_pixel", 2),
        ("max", "output_half_pixel", 0),
    ]
    for mode, transformation, ratio in ways:
        attributes = {
            "mode": mode,
            "coordinate_transformation_mode": transformation,
            "sampling_ratio": ratio,
            "output_height": 2,
            "output_width": 3,
            "spatial_scale": 0.9,
        }
        cases.append(Case("RoiAlign", [x, ROIS, BATCH], attributes))
    cases.append(Case("RoiAlign", [x, ROIS, BATCH]))
    return cases


def _max_roi_pool() -> list[Case]:
    rois = np.asarray([[1, 0, 0, 3, 4], [0, 1, 2, 3, 3], [1, 2, 1, 9, 9], [0, 6, 6, 8, 8]], float)
    x = spread((2, 2, 5, 4))
    return [
        Case("MaxRoiPool", [x, Fixed(rois)], {"pooled_shape": [2, 3]}),
        Case(
            "MaxRoiPool",
            [x, Fixed(rois)],
            {"pooled_shape": [1, 2], "spatial_scale": 0.6},
        ),
    ]


CASES: list[Case] = [*_grid_sample(), *_roi_align(), *_max_roi_pool()]
