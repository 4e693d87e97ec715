"""Hypothesis strategies for what slides a window over an image: convolutions and pooling.

Of one to three dimensions, with every attribute that the operators have: groups, strides,
dilations, pads that differ at the two ends, auto_pad, output_padding, output_shape, ceil_mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.compiler.cases import Case
from tests.conformance.random_cases import Draw, numbers

AUTO_PADS = ["SAME_UPPER", "SAME_LOWER", "VALID"]


def _vector(draw: Draw, rank: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(rank)]


def _window(draw: Draw, rank: int, largest: int, pads: bool = True) -> dict[str, Any]:
    """Attributes of a window, whose own size is `kernel_shape`."""
    kernel = _vector(draw, rank, 1, largest)
    given: dict[str, Any] = {"kernel_shape": kernel}
    if draw(st.booleans()):
        given["strides"] = _vector(draw, rank, 1, 3)
    if draw(st.booleans()):
        given["dilations"] = _vector(draw, rank, 1, 3)
    how = draw(st.integers(0, 3))
    if how == 0:
        given["auto_pad"] = draw(st.sampled_from(AUTO_PADS))
    elif how > 1 and pads:
        given["pads"] = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    return given


def _sizes(draw: Draw, given: dict[str, Any]) -> tuple[int, ...]:
    """Of an image in which the window fits at least once, whatever pads there are."""
    kernel = given["kernel_shape"]
    dilations = given.get("dilations") or [1] * len(kernel)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    more = 4 if len(kernel) == 1 else 2
    return tuple(draw(st.integers(extent, extent + more)) for extent in extents)


def _rank(draw: Draw) -> int:
    return draw(st.sampled_from([1, 1, 2, 2, 2, 3]))


@st.composite
def convolution(draw: Draw) -> Case:
    rank = _rank(draw)
    given = _window(draw, rank, largest=3 if rank < 3 else 2)
    group, ins, outs = (draw(st.integers(1, 3 if rank < 3 else 2)) for _ in range(3))
    sizes, kernel = _sizes(draw, given), given["kernel_shape"]
    batch = draw(st.integers(0, 2))
    shapes = [(batch, group * ins, *sizes), (group * outs, ins, *kernel)]
    if draw(st.booleans()):
        shapes.append((group * outs,))
    if draw(st.booleans()):
        del given["kernel_shape"]
    if group > 1 or draw(st.booleans()):
        given["group"] = group
    return Case("Conv", numbers(draw, shapes), given)


@st.composite
def transposed_convolution(draw: Draw) -> Case:
    rank = _rank(draw)
    given = _window(draw, rank, largest=3 if rank < 3 else 2)
    kernel = given["kernel_shape"]
    strides, dilations = (given.get(k) or [1] * rank for k in ("strides", "dilations"))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    same = given.get("auto_pad", "").startswith("SAME")
    if same and any(s > e for s, e in zip(strides, extents, strict=True)):
        del given["auto_pad"]  # refused: ONNX and ONNX Runtime disagree
        same = False
    if draw(st.booleans()) and not same:
        limits = zip(strides, dilations, strict=True)
        given["output_padding"] = [draw(st.integers(0, max(s, d) - 1)) for s, d in limits]
    sizes = tuple(draw(st.integers(2, 4)) for _ in range(rank))
    if "pads" not in given and draw(st.integers(0, 2)) == 0:
        more = given.get("output_padding") or [0] * rank
        whole = [
            s * (n - 1) + m + e for s, n, m, e in zip(strides, sizes, more, extents, strict=True)
        ]
        # onnx's shape inference takes none below the input's size.
        lowest = [max(w - 2, n) for w, n in zip(whole, sizes, strict=True)]
        given["output_shape"] = [draw(st.integers(low, low + 3)) for low in lowest]
    group, ins, outs = (draw(st.integers(1, 3 if rank < 3 else 2)) for _ in range(3))
    shapes = [(draw(st.integers(0, 2)), group * ins, *sizes), (group * ins, outs, *kernel)]
    if draw(st.booleans()):
        shapes.append((group * outs,))
    if group > 1 or draw(st.booleans()):
        given["group"] = group
    if not same and draw(st.booleans()):
        del given["kernel_shape"]
    return Case("ConvTranspose", numbers(draw, shapes), given)


@st.composite
def pooling(draw: Draw, op: str) -> Case:
    """Windows that overlap, lie side by side or leave gaps, and may reach over the end."""
    rank = _rank(draw)
    given = _window(draw, rank, largest=3)
    if draw(st.booleans()):
        given["strides"] = list(given["kernel_shape"])
    if draw(st.booleans()) and "auto_pad" not in given:  # onnx takes VALID for either rounding
        given["ceil_mode"] = 1
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 2)), *_sizes(draw, given))
    outputs = 1
    if op == "AveragePool":
        given["count_include_pad"] = int(draw(st.booleans()))
    elif op == "LpPool":
        given["p"] = draw(st.integers(1, 3))
    elif draw(st.booleans()):
        outputs = 2
        given["storage_order"] = int(draw(st.booleans()))
    (x,) = numbers(draw, [shape], 0.1 if op == "LpPool" else -2, 2)
    signs = np.random.default_rng(x.size).choice([-1, 1], x.shape)
    return Case(op, [x * signs if op == "LpPool" else x], given, outputs=outputs, smooth=False)


@st.composite
def columns(draw: Draw) -> Case:
    """Col2Im: windows that fit the image, pads included."""
    rank = draw(st.integers(1, 3))
    given = _window(draw, rank, largest=2)
    given.pop("auto_pad", None)
    kernel, image = given.pop("kernel_shape"), None
    image = _sizes(draw, {**given, "kernel_shape": kernel})
    strides, dilations = (given.get(k) or [1] * rank for k in ("strides", "dilations"))
    pads = given.get("pads") or [0] * 2 * rank
    counts = [
        (image[i] + pads[i] + pads[rank + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(rank)
    ]
    channels = draw(st.integers(1, 2)) * int(np.prod(kernel))
    (x,) = numbers(draw, [(draw(st.integers(1, 2)), channels, int(np.prod(counts)))])
    return Case("Col2Im", [x, np.asarray(image), np.asarray(kernel)], given)


@st.composite
def global_pooling(draw: Draw) -> Case:
    op = draw(st.sampled_from(["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"]))
    shape = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(3, 5))))
    given = {"p": draw(st.integers(1, 4))} if op == "GlobalLpPool" else {}
    return Case(op, numbers(draw, [shape], 0.1, 2), given, smooth=False)
