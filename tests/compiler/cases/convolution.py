"""Convolutions, of one to three dimensions.

Both Conv and ConvTranspose take a kernel of shape (maps, image channels / group, ...), the maps
being what Conv makes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import spread


def conv(image: Any, kernel: Any, note: str = "", bias: bool = False, **attributes: Any) -> Case:
    inputs = [spread(image, -1, 1), spread(kernel, -1, 1.2)]
    if bias:
        inputs.append(spread(kernel[:1], -1, 1))
    return Case("Conv", inputs, attributes, note=note)


def conv_transpose(
    maps: Any, kernel: Any, note: str = "", bias: bool = False, **attributes: Any
) -> Case:
    inputs = [spread(maps, -1, 1), spread(kernel, -1, 1.2)]
    if bias:
        inputs.append(spread((kernel[1] * attributes.get("group", 1),), -1, 1))
    return Case("ConvTranspose", inputs, attributes, note=note)


def deform_conv(
    image: Any, kernel: Any, places: Any, bias: bool = False, mask: bool = False, **attributes: Any
) -> Case:
    count = attributes.get("offset_group", 1) * kernel[2] * kernel[3]
    # Thirds, so that no place is whole and none is near enough for a difference to step over.
    moves = np.random.default_rng(5).integers(-4, 5, (image[0], 2 * count, *places)) * 2 + 1
    inputs: list[Any] = [spread(image, -1, 1), spread(kernel, -1, 1.2), moves / 6 + 0.03]
    inputs.append(spread(kernel[:1], -1, 1) if bias else None)
    inputs.append(spread((image[0], count, *places), 0.2, 1) if mask else None)
    while inputs[-1] is None:
        inputs.pop()
    # The rule wants to know the kernel.
    return Case("DeformConv", inputs, {**attributes, "kernel_shape": list(kernel[2:])})


def _conv() -> list[Case]:
    return [
        conv((2, 2, 5), (3, 2, 3)),
        conv((2, 1, 9), (2, 1, 2), "small kernel"),
        conv((2, 2, 5), (3, 2, 3), bias=True, pads=[1, 2], strides=[2]),
        conv((1, 2, 7), (2, 2, 3), dilations=[2], pads=[1, 0]),
        conv((1, 2, 8), (2, 2, 2), dilations=[3], strides=[2]),
        conv((2, 1, 6), (2, 1, 2), "a rest", strides=[3]),
        conv((2, 2, 3), (2, 2, 1)),
        conv((2, 2, 4), (2, 2, 1), strides=[2]),
        conv((1, 1, 3), (2, 1, 2), "more pads than kernel", pads=[3, 2]),
        conv((1, 2, 2), (2, 2, 4), "more kernel than image", pads=[2, 1]),
        conv((2, 4, 4), (4, 2, 3), group=2, pads=[1, 1], bias=True),
        conv((1, 4, 5), (2, 2, 2), group=2, strides=[2]),
        conv((2, 3, 4), (3, 1, 3), "depthwise", group=3, pads=[1, 1]),
        conv((2, 2, 5), (2, 1, 2), "depthwise", group=2, strides=[2]),
        conv((2, 2, 4), (4, 1, 2), "depthwise", group=2),
        conv((1, 2, 4, 3), (2, 2, 3, 2), bias=True, pads=[1, 0, 2, 1], strides=[2, 1]),
        conv((1, 1, 5, 5), (2, 1, 2, 3), dilations=[2, 1], strides=[1, 2]),
        conv((1, 1, 3, 2, 3), (2, 1, 2, 2, 2), pads=[0, 1, 0, 1, 0, 0], strides=[1, 1, 2]),
        conv((1, 2, 5), (2, 2, 2), auto_pad="VALID"),
        *[
            conv((1, 2, 5, 4), (1, 2, *kernel), auto_pad=mode, strides=strides)
            for mode in ("SAME_UPPER", "SAME_LOWER")
            for kernel, strides in (((3, 2), [2, 1]), ((2, 3), [1, 1]), ((1, 2), [2, 3]))
        ],
        conv((1, 2, 5), (2, 2, 2), auto_pad="SAME_UPPER", kernel_shape=[2]),
        conv((0, 2, 5), (2, 2, 3), "empty", bias=True),
    ]


def _conv_transpose() -> list[Case]:
    kernel = {"kernel_shape": [3]}
    return [
        conv_transpose((2, 2, 4), (2, 3, 3), bias=True),
        conv_transpose((2, 2, 3), (2, 2, 3), strides=[2], pads=[1, 0], output_padding=[1]),
        conv_transpose((1, 2, 3), (2, 1, 2), "gaps", strides=[3], output_padding=[2]),
        conv_transpose((1, 2, 4), (2, 2, 3), dilations=[2], pads=[1, 2]),
        conv_transpose((1, 4, 3), (4, 2, 2), group=2, bias=True),
        conv_transpose((1, 3, 3), (3, 1, 3), "depthwise", group=3, strides=[2], pads=[1, 1]),
        conv_transpose(
            (1, 1, 3, 2), (1, 2, 2, 3), strides=[1, 2], pads=[0, 1, 1, 1], output_padding=[0, 1]
        ),
        conv_transpose((1, 1, 2, 2, 2), (1, 2, 2, 1, 2), strides=[2, 1, 1], bias=True),
        conv_transpose((1, 2, 3), (2, 2, 3), auto_pad="VALID", strides=[2]),
        *[
            conv_transpose((1, 2, 3), (2, 2, 3), auto_pad=mode, strides=strides, **kernel)
            for mode in ("SAME_UPPER", "SAME_LOWER")
            for strides in ([1], [2])
        ],
        *[
            conv_transpose((1, 2, 3), (2, 1, 3), auto_pad=mode, strides=[2], output_shape=[size])
            for mode, size in (("NOTSET", 6), ("NOTSET", 8), ("SAME_UPPER", 6), ("SAME_LOWER", 6))
        ],
        conv_transpose((0, 2, 3), (2, 2, 3), "empty"),
        conv_transpose((0, 4, 3), (4, 2, 3), "empty", group=2),
        *[
            replace(case, portable=False)  # ONNX Runtime refuses the operator itself.
            for case in (
                # More room at the end than a stride: no kernel reaches it.
                conv_transpose(
                    (1, 2, 4), (2, 1, 3), dilations=[2], pads=[2, 1], output_padding=[1]
                ),
                conv_transpose(
                    (1, 2, 3), (2, 1, 2), dilations=[3], pads=[0, 1], output_padding=[2]
                ),
                conv_transpose((1, 2, 3), (2, 1, 3), strides=[2], output_shape=[10]),
                conv_transpose((1, 1, 2, 3), (1, 1, 2, 1), dilations=[3, 1], output_shape=[8, 3]),
            )
        ],
    ]


def _col2im() -> list[Case]:
    def case(columns: Any, image: list[int], block: list[int], **attributes: Any) -> Case:
        inputs = [spread(columns), np.asarray(image), np.asarray(block)]
        return Case("Col2Im", inputs, attributes, note=f"{image}-{block}".replace(" ", ""))

    return [
        case((2, 4, 4), [3, 3], [2, 2]),
        case((1, 6, 6), [3, 4], [1, 3], pads=[0, 1, 0, 1], strides=[1, 2], dilations=[1, 1]),
        case((1, 4, 8), [5, 4], [2, 2], dilations=[2, 1], pads=[1, 0, 0, 0], strides=[1, 2]),
        case((2, 3, 3), [5], [3]),
    ]


def _deform_conv() -> list[Case]:
    grouped: Any = {"mask": True, "group": 2, "offset_group": 2, "dilations": [2, 1]}
    return [
        deform_conv((1, 1, 3, 3), (1, 1, 2, 2), (4, 2), pads=[1, 0, 1, 0]),
        deform_conv((2, 2, 3, 2), (2, 2, 1, 2), (2, 1), bias=True, mask=True, strides=[2, 1]),
        deform_conv((1, 4, 3, 3), (2, 2, 2, 1), (1, 3), **grouped),
    ]


CASES: list[Case] = [*_conv(), *_conv_transpose(), *_col2im(), *_deform_conv()]
