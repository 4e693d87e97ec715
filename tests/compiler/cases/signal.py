"""Discrete Fourier transforms; complex numbers are pairs along the last axis."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import Array, spread


def scalar(number: int | None) -> Array | None:
    return None if number is None else np.asarray(number, np.int64)


def _trimmed(inputs: list[Any]) -> list[Any]:
    while inputs[-1] is None:
        inputs.pop()
    return inputs


def _dft() -> list[Case]:
    """Real and complex, odd and even, cut and padded, along each axis."""
    kinds = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (2, 1, 0), (1, 0, 1), (2, 1, 1)]
    cases = [
        Case(
            "DFT",
            _trimmed([spread((2, size, parts)), scalar(length), scalar(axis)]),
            {"inverse": inverse, "onesided": onesided},
            note=f"length={length},axis={axis}",
        )
        for (parts, inverse, onesided), (size, length) in product(
            kinds, [(4, None), (4, 7), (5, 2)]
        )
        for axis in ((None, 0) if (size, length) == (4, None) else (1,))
    ]
    cases.append(Case("DFT", [spread((3, 2)), None, scalar(0)], note="rank 2"))
    return cases


def _stft() -> list[Case]:
    window = spread((4,), 0.2, 1.1, seed=3)
    real, complex_ = spread((2, 9, 1)), spread((2, 9, 2))
    options: list[tuple[Array, list[Any], dict[str, int]]] = [
        (real, [scalar(2), window], {}),
        (real, [scalar(3), window, scalar(4)], {"onesided": 1}),
        (real, [scalar(2), window], {"onesided": 0}),
        (real, [scalar(3), None, scalar(5)], {}),
        (real, [np.asarray(2, np.int32), window], {}),
        (complex_, [scalar(2), window], {"onesided": 0}),
        (complex_, [scalar(5), Fixed(window)], {"onesided": 0}),
    ]
    return [
        Case("STFT", [signal, *rest], attributes, note=f"{rest[0].dtype} step {rest[0]}")
        for signal, rest, attributes in options
    ]


CASES: list[Case] = [*_dft(), *_stft()]
