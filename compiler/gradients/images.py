"""Gradients of resizing, cropping and rearranging images."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import same_dim
from onnxtape.compiler.gradients.separable import identity, multiply_back
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient, refuse

B = Builder[Any]
N = Record[Any]

refuse(
    "Upsample",
    because="ONNX took it away with opset 10; onnx.version_converter makes a Resize of it",
)


@gradient("Resize")
def resize(b: B, n: N, g: Any) -> list[Any]:
    """By X. Each axis is resized by itself and linearly, whatever the mode."""
    return [_resized_back(b, n, g), _refuse_coordinates, _refuse_coordinates, None]


def _refuse_coordinates() -> NoReturn:
    raise Refusal("its gradient is by X only, not by roi and scales; use GridSample for that")


def _resized_back(b: B, n: N, g: Any) -> Any:
    x = n.required(0)
    rank = b.known_rank(x, "Resize's gradient")
    axes = [int(a) % rank for a in n.attribute("axes") or range(rank)]
    factors = _repeats(b, n, rank)
    if factors is not None:
        # What was repeated is summed: the average of the window times its size.
        mean = b.op("AveragePool", g, kernel_shape=factors, strides=factors)
        return b.refine_shape(b.op("Mul", mean, float(math.prod(factors))), b.shape(x))
    for i, axis in enumerate(axes):
        if _is_kept(b, n, axis, i):
            continue
        matrix = _resized_identity(b, n, axes, i)
        matrix = b.refine_shape(matrix, (b.dim(x, axis), b.dim(n.outputs[0], axis)))
        g = multiply_back(b, g, axis, matrix)
    return b.refine_shape(g, b.shape(x))


def _repeats(b: B, n: N, rank: int) -> list[int] | None:
    """How often each pixel is repeated along the axes after the second; None for other resizing.

    In half-pixel coordinates a copy is always closest to its original; counted from the corner,
    originals are found by rounding down.
    """
    transformation = n.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = n.attribute("nearest_mode", "round_prefer_floor")
    halves = transformation in ("half_pixel", "half_pixel_symmetric")
    if n.attribute("mode", "nearest") != "nearest" or not 3 <= rank <= 5:
        return None
    if not (halves and rounding.startswith("round")) and (transformation, rounding) != (
        "asymmetric",
        "floor",
    ):
        return None
    scales = None if n.input(2) is None else b.constant_value(n.required(2))
    named = n.attribute("axes") or range(rank)
    by_axis = dict.fromkeys(range(rank), 1.0)
    if scales is not None and scales.size:
        by_axis.update(zip([int(a) % rank for a in named], scales.tolist(), strict=True))
    else:
        for axis in range(rank):
            before, after = b.dim(n.required(0), axis), b.dim(n.outputs[0], axis)
            if isinstance(before, int) and isinstance(after, int) and before:
                by_axis[axis] = after / before
            elif not same_dim(before, after):
                return None
    whole = all(scale >= 1 and scale == int(scale) for scale in by_axis.values())
    if not whole or by_axis[0] != 1 or by_axis[1] != 1:
        return None
    return [int(by_axis[axis]) for axis in range(2, rank)]


def _is_kept(b: B, n: N, axis: int, i: int) -> bool:
    """Whether nothing happens along the i-th resized axis."""
    if n.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    scales = None if n.input(2) is None else b.constant_value(n.required(2))
    if scales is not None and scales.size:
        return bool(scales[i] == 1)
    return same_dim(b.dim(n.required(0), axis), b.dim(n.outputs[0], axis))


def _resized_identity(b: B, n: N, axes: list[int], i: int) -> Any:
    """What the node makes of the identity along its i-th axis: (input size, output size)."""
    x, roi, scales, sizes = n.required(0), n.input(1), n.input(2), n.input(3)
    # A number put in beyond the image does not depend on the image: the default, zero, is right.
    dropped = ("axes", "extrapolation_value")
    attributes = {k: v for k, v in n.attributes.items() if k not in dropped}
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return _resized_in_proportion(b, n, axes, i)
    rows = b.op("Unsqueeze", identity(b, x, axes[i]), [0, 1])
    size = b.dim_tensor(x, axes[i])
    if roi is not None and attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        begin, end = (_entry(b, roi, j) for j in (i, i + len(axes)))
        zeros, ones = (np.full(3, number, b.dtype(roi)) for number in (0, 1))
        roi = b.op("Concat", zeros, begin, ones, end, axis=0)
    else:
        roi = None
    if sizes is not None:
        sizes = b.op("Concat", [1, 1], size, _entry(b, sizes, i), axis=0)
        result = b.op("Resize", rows, roi, None, sizes, **attributes)
    else:
        scales = b.op("Concat", np.ones(3, np.float32), _entry(b, scales, i), axis=0)
        result = b.op("Resize", rows, roi, scales, **attributes)
    return b.op("Squeeze", result, [0, 1])


def _resized_in_proportion(b: B, n: N, axes: list[int], i: int) -> Any:
    """The same where the sizes along all axes decide the common scale.

    The identity's rows take the place of the channels, and repeat along the other resized axes.
    """
    x = n.required(0)
    rank = b.known_rank(x, "Resize's gradient")
    if n.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Refusal("keep_aspect_ratio_policy has no rule together with tf_crop_and_resize")
    if 0 in axes or 1 in axes:
        raise Refusal("keep_aspect_ratio_policy needs axes without the batch and the channels")
    size, spatial = b.dim_tensor(x, axes[i]), range(2, rank)
    places = [axis - 1 for axis in spatial if axis != axes[i]]
    rows = b.op("Unsqueeze", b.op("Unsqueeze", identity(b, x, axes[i]), places), [0])
    whole = b.op("Concat", [1], size, *[b.dim_tensor(x, axis) for axis in spatial], axis=0)
    resized = b.op("Resize", b.op("Expand", rows, whole), *n.inputs[1:], **n.attributes)
    for axis in reversed(spatial):
        if axis != axes[i]:
            resized = b.op("Gather", resized, b.constant(np.int64(0)), axis=axis)
    return b.op("Squeeze", resized, [0])


def _entry(b: B, vector: Any, index: int) -> Any:
    return b.op("Slice", vector, [index], [index + 1], [0])


@gradient("DepthToSpace")
def depth_to_space(b: B, n: N, g: Any) -> list[Any]:
    block = n.attribute("blocksize")
    back = b.op("SpaceToDepth", g, blocksize=block)
    if n.attribute("mode", "DCR") == "CRD":
        # SpaceToDepth puts a block's places before the channels.
        channels = b.dim_tensor(g, 1)
        parts = b.op("Concat", [0, block * block], channels, [-1], axis=0)
        swapped = b.op("Transpose", b.op("Reshape", back, parts), perm=[0, 2, 1, 3])
        back = b.reshape_like(swapped, n.required(0))
    return [back]


@gradient("SpaceToDepth")
def space_to_depth(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("DepthToSpace", g, blocksize=n.attribute("blocksize"))]


@gradient("CenterCropPad")
def center_crop_pad(b: B, n: N, g: Any) -> list[Any]:
    """What was cropped is padded and the other way round; both round the margin before alike."""
    x, axes = n.required(0), n.attribute("axes")
    sizes = b.shape_tensor(x)
    if axes is not None:
        rank = b.known_rank(x, "CenterCropPad's gradient")
        sizes = b.op("Gather", sizes, [int(a) % rank for a in axes])
    return [b.refine_shape(b.op("CenterCropPad", g, sizes, axes=axes), b.shape(x)), None]


@gradient("AffineGrid")
def affine_grid(b: B, n: N, g: Any) -> list[Any]:
    """The grid is the identity's grid, with ones appended, times theta transposed."""
    theta, size = n.required(0), n.required(1)
    rank = b.known_rank(g, "AffineGrid's gradient") - 2
    unit = b.constant(np.eye(rank, rank + 1, dtype=b.dtype(theta)))
    plain = b.op(
        "AffineGrid",
        b.expand_like(unit, theta),
        size,
        align_corners=n.attribute("align_corners", 0),
    )
    points, moved = (b.op("Reshape", grid, [0, -1, rank]) for grid in (plain, g))
    cotangents = b.op("Transpose", moved, perm=[0, 2, 1])
    shift = b.op("ReduceSum", cotangents, [2])
    return [b.op("Concat", b.op("MatMul", cotangents, points), shift, axis=2), None]
