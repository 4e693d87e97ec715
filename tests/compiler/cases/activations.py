"""Activation functions, away from their kinks (`test_conventions.py` is about those)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import spread

X = spread((2, 5), -4.9, 5.1)

PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "Relu": [{}],
    "LeakyRelu": [{}, {"alpha": 0.3}],
    "ThresholdedRelu": [{}, {"alpha": 2.0}],
    "Elu": [{}, {"alpha": 0.5}],
    "Selu": [{}, {"alpha": 0.5, "gamma": 2.0}],
    "Sigmoid": [{}],
    "Tanh": [{}],
    "HardSigmoid": [{}, {"alpha": 0.5, "beta": 0.25}],
    "HardSwish": [{}],
    "Softplus": [{}],
    "Softsign": [{}],
    "Mish": [{}],
    "Gelu": [{}, {"approximate": "tanh"}],
    "Shrink": [{}, {"lambd": 1.5, "bias": 1.0}],
}


CASES: list[Case] = [
    # Celu takes float32 only: a wide step, where the function is nearly straight, and a coarse
    # comparison.
    *[
        Case("Celu", [X.astype(np.float32)], attributes, step=1e-2, tolerance=1e-3)
        for attributes in ({}, {"alpha": 2.0})
    ],
    *[Case(op, [X], attributes) for op, all_ in PARAMETERS.items() for attributes in all_],
    *[
        Case("PRelu", [spread((2, 3, 4)), spread(slope, 0.1, 0.6)])
        for slope in [(2, 3, 4), (4,), (3, 1), (1, 3, 1), (1,), ()]
    ],
]
