"""Pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import Array, spread

#: The sizes of the image, and windows over it.
WINDOWS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((6,), {"kernel_shape": [2], "strides": [2]}),
    ((7,), {"kernel_shape": [3], "pads": [1, 0]}),
    ((4, 6), {"kernel_shape": [2, 3], "strides": [2, 3]}),
    ((5, 7), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ((5, 4), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ((6, 5), {"kernel_shape": [2, 2], "dilations": [3, 2], "strides": [1, 2]}),
    ((5, 6), {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((5, 5), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ((6, 5), {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ((5, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((5, 6), {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": "SAME_LOWER"}),
    ((5, 6), {"kernel_shape": [3, 2], "strides": [3, 2], "auto_pad": "VALID"}),
    ((4, 2, 4), {"kernel_shape": [2, 1, 2], "strides": [2, 1, 2]}),
    ((3, 4, 3), {"kernel_shape": [2, 3, 1], "pads": [0, 1, 0, 1, 0, 0]}),
]


def _note(sizes: tuple[int, ...], **attributes: Any) -> str:
    return "x".join(map(str, sizes))


def _max_pool() -> list[Case]:
    cases = [Case("MaxPool", [spread((2, 2, *sizes))], windows) for sizes, windows in WINDOWS]
    for storage_order in (0, 1):
        windows = {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "storage_order": storage_order}
        cases.append(Case("MaxPool", [spread((2, 2, 3, 4))], windows, outputs=2))
    return cases


def _single(x: Array) -> Array:
    return np.asarray(x, np.float32)


#: In single precision the windows that lie side by side have rules of their own.
SINGLE = {"step": 0.01, "tolerance": 1e-4}


def _side_by_side() -> list[Case]:
    return [
        Case(op, [_single(spread((2, 2, *sizes)))], windows, note="single", **SINGLE)
        for op in ("MaxPool", "AveragePool")
        for sizes, windows in WINDOWS[: 4 if op == "MaxPool" else 3]
        if windows["kernel_shape"] == windows.get("strides")
    ]


def _average_pool() -> list[Case]:
    return [
        Case("AveragePool", [spread((2, 2, *sizes))], {**windows, "count_include_pad": count})
        for sizes, windows in WINDOWS
        for count in ((0, 1) if "pads" in windows else (0,))
    ]


def _lp_pool() -> list[Case]:
    x = spread((2, 1, 5, 4), -2.0, 2.1)
    cases = [
        Case("LpPool", [spread((1, 2, *sizes), -2.0, 2.1)], windows, note="norms")
        for sizes, windows in WINDOWS[1::3]
    ]
    for p in (1, 3):
        windows = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1], "p": p}
        cases.append(Case("LpPool", [x], windows, note=f"p={p}"))
        cases.append(Case("GlobalLpPool", [x], {"p": p}))
    cases.append(Case("GlobalLpPool", [x]))
    cases.append(Case("GlobalLpPool", [spread((2, 3, 4))]))
    return cases


def _global() -> list[Case]:
    shapes = [(2, 3, 4), (2, 3, 1, 1), (1, 2, 3, 2, 2)]
    return [
        *[Case("GlobalAveragePool", [spread(shape)]) for shape in shapes],
        *[Case("GlobalMaxPool", [spread(shape)]) for shape in shapes],
    ]


def _max_unpool() -> list[Case]:
    x = spread((1, 2, 2, 2))
    indices = np.asarray([[[[1, 2], [8, 14]], [[16, 19], [28, 31]]]])
    windows = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return [Case("MaxUnpool", [x, indices], windows)]


CASES: list[Case] = [
    *_max_pool(),
    *_side_by_side(),
    *_average_pool(),
    *_lp_pool(),
    *_global(),
    *_max_unpool(),
]
