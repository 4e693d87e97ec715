"""Scales of quantized numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import Array, spread

Q = np.arange(-8, 16, dtype=np.int8).reshape(2, 3, 4)
SCALE = np.asarray(0.3, np.float32)
ZEROS = np.asarray([1, -2, 0], np.int8)


def float32(shape: tuple[int, ...], low: float, high: float) -> Array:
    return spread(shape, low, high).astype(np.float32)


def _case(
    op: str, inputs: list[Any], attributes: Any = None, note: str = "", **options: Any
) -> Case:
    """Differences of what is linear are exact whatever the step."""
    return Case(op, inputs, attributes or {}, note=note, step=1e-2, tolerance=1e-3, **options)


CASES: list[Case] = [
    _case("DequantizeLinear", [Q, SCALE]),
    _case("DequantizeLinear", [Q, SCALE[None]]),
    _case("DequantizeLinear", [np.asarray(5, np.int8), SCALE], note="scalar"),
    _case("DequantizeLinear", [Q, SCALE, np.asarray(3, np.int8)]),
    *[
        _case("DequantizeLinear", [Q.transpose(order), float32((3,), 0.2, 1.0), ZEROS], attributes)
        for order, attributes in (
            ((0, 1, 2), {}),
            ((1, 0, 2), {"axis": 0}),
            ((0, 2, 1), {"axis": -1}),
        )
    ],
    *[
        _case(
            "DequantizeLinear",
            [Q, float32((2, 3, 2), 0.2, 1.0), *zeros],
            {"axis": 2, "block_size": 2},
        )
        for zeros in ([], [np.arange(12, dtype=np.int8).reshape(2, 3, 2)])
    ],
    *[
        _case(
            "DynamicQuantizeLinear",
            [float32((2, 3), low, high)],
            outputs=3,
            note=f"{low} to {high}",
        )
        for low, high in ((-1.0, 2.0), (0.5, 2.0), (-2.0, -0.5))
    ],
]
