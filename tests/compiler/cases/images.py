"""Resizing, cropping and rearranging images."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import spread

TRANSFORMATIONS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)


def _floats(*numbers: float) -> Any:
    return np.asarray(numbers, np.float32)


def _resize_case(
    shape: tuple[int, ...],
    scales: tuple[float, ...] | None = None,
    sizes: tuple[int, ...] | None = None,
    roi: tuple[float, ...] | None = None,
    note: str = "",
    **attributes: Any,
) -> Case:
    inputs: list[Any] = [spread(shape), None if roi is None else Fixed(_floats(*roi))]
    inputs.append(None if scales is None else Fixed(_floats(*scales)))
    note = f"{note}{scales or sizes}".replace(" ", "")
    if sizes is not None:
        inputs.append(np.asarray(sizes, np.int64))
    return Case("Resize", inputs, attributes, note=note)


def _resize() -> list[Case]:
    cases = []
    for mode, transformation in product(("nearest", "linear", "cubic"), TRANSFORMATIONS):
        attributes = {"mode": mode, "coordinate_transformation_mode": transformation}
        if mode == "cubic":
            cases.append(_resize_case((1, 1, 5, 3), None, (1, 1, 3, 4), **attributes))
        else:
            cases.append(_resize_case((1, 1, 4, 5), (1, 1, 1.5, 0.6), **attributes))
    cases += [
        _resize_case((1, 1, 4, 5), (1, 1, 2, 0.7), nearest_mode=rounding)
        for rounding in ("round_prefer_ceil", "floor", "ceil")
    ]
    for mode in ("linear", "cubic"):
        cases += [
            _resize_case((1, 1, 6, 5), (1, 1, 0.5, 0.6), mode=mode, antialias=1),
            _resize_case((1, 1, 4, 5), (0.6, 1.5), mode=mode, axes=[3, 2]),
        ]
    crop = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    cases += [
        _resize_case((1, 1, 6), (1, 1, 2.5), mode="linear"),
        _resize_case((1, 1, 2, 3, 2), (1, 1, 2, 1.5, 2), mode="linear"),
        _resize_case((1, 1, 3, 4), (1, 1, 2, 2), mode="cubic", cubic_coeff_a=-0.5),
        _resize_case((1, 1, 4, 5), (1, 1, 1.5, 0.6), mode="cubic", exclude_outside=1),
        _resize_case((1, 1, 3), (1, 1, 3), mode="nearest"),
        _resize_case((1, 1, 2, 1, 3), (1, 1, 2, 3, 1), mode="nearest"),
        _resize_case((1, 1, 3, 2), (1, 1, 1, 1), note="same"),
        _resize_case((2, 3), (1.5, 2), mode="linear"),
        _resize_case((1, 4, 3, 1), (1, 1.5, 2, 1), mode="linear", note="channels last"),
        _resize_case((1, 1, 5, 4), None, (3, 6), (0.2, 0.1, 0.7, 0.8), axes=[2, 3], **crop),
        _resize_case((1, 1, 5, 4), None, (1, 1, 3, 6), (0, 0, -0.2, 0.3, 1, 1, 0.8, 1.4), **crop),
        _resize_case(
            (1, 1, 5, 4),
            None,
            (3, 6),
            (-0.2, 0.3, 0.8, 1.4),
            axes=[2, 3],
            extrapolation_value=7.0,
            **crop,
        ),
    ]
    for policy in ("not_larger", "not_smaller"):
        attributes = {"keep_aspect_ratio_policy": policy, "axes": [2, 3], "mode": "linear"}
        cases.append(_resize_case((1, 2, 4, 5), None, (6, 9), **attributes))
    return cases


def _repeated() -> list[Case]:
    """Nearest by whole factors, in single precision."""
    x = np.asarray(spread((1, 2, 3, 2)), np.float32)
    scales = Fixed(_floats(1, 1, 2, 3))
    ways = [
        {},
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        {"coordinate_transformation_mode": "asymmetric"},
        {"nearest_mode": "floor"},
    ]
    return [
        Case("Resize", [x, None, scales], way, note="repeated", step=0.01, tolerance=1e-4)
        for way in ways
    ]


def _center_crop_pad() -> list[Case]:
    cases = []
    for sizes, axes in [
        ((3, 6), None),
        ((4, 4), None),
        ((7, 2), None),
        ((6,), [1]),
        ((2,), [-2]),
        ((4, 4), [1, 0]),
    ]:
        attributes = {} if axes is None else {"axes": axes}
        inputs = [spread((5, 3)), np.asarray(sizes)]
        cases.append(Case("CenterCropPad", inputs, attributes, note=f"{sizes}".replace(" ", "")))
    return cases


CASES: list[Case] = [
    *_resize(),
    *_repeated(),
    *[
        Case("DepthToSpace", [spread((2, 12, 2, 3))], {"blocksize": 2, "mode": mode})
        for mode in ("DCR", "CRD")
    ],
    Case("DepthToSpace", [spread((1, 9, 2, 1))], {"blocksize": 3}),
    Case("SpaceToDepth", [spread((2, 3, 4, 6))], {"blocksize": 2}),
    *_center_crop_pad(),
    *[
        Case("AffineGrid", [spread((2, 2, 3)), np.asarray([2, 1, 3, 4])], {"align_corners": align})
        for align in (0, 1)
    ],
    Case("AffineGrid", [spread((1, 3, 4)), np.asarray([1, 2, 2, 3, 2])]),
]
