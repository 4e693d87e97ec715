"""Dropout."""

from __future__ import annotations

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import spread


def _cases() -> list[Case]:
    x, on, off = spread((4, 5)), np.asarray(True), np.asarray(False)
    rate, seed = Fixed(np.asarray(0.3)), {"seed": 7}
    cases = [
        Case("Dropout", [x, rate, on], seed, outputs=outputs, note="training", portable=False)
        for outputs in (1, 2)
    ]
    cases.append(Case("Dropout", [x, rate, off], note="inference"))
    cases.append(Case("Dropout", [x, rate], note="inference by default"))
    cases.append(Case("Dropout", [x, None, on], seed, note="half", portable=False))
    return cases


CASES: list[Case] = _cases()
