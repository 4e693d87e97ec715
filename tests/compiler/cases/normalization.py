"""Normalizations."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import spread

SCALE, BIAS = spread((4,), 0.5, 2.0, seed=1), spread((4,), seed=2)


def _layer() -> list[Case]:
    cases = []
    for shape, axis, bias in (
        ((3, 4), None, True),
        ((2, 3, 4), -1, True),
        ((2, 3, 4), 1, True),
        ((2, 3, 4), -2, False),
        ((2, 3), 0, False),
        ((5,), 0, True),
        ((0, 4), -1, True),
    ):
        normalized = shape[(-1 if axis is None else axis) :]
        inputs = [spread(shape), spread(normalized, 0.5, 2.0, seed=1)]
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        smooth = 0 not in shape
        with_bias = [*inputs, spread(normalized, seed=2)] if bias else inputs
        cases.append(Case("LayerNormalization", with_bias, {**attributes, "epsilon": 1e-3},
                          smooth=smooth))  # fmt: skip
        cases.append(Case("RMSNormalization", inputs, {**attributes, "epsilon": 1e-3}, opset=23,
                          smooth=smooth))  # fmt: skip
    cases.append(Case("RMSNormalization", [spread((2, 3, 4)), SCALE], opset=26, note="opset 26"))
    cases.append(Case("LayerNormalization", [spread((2, 4)), Fixed(SCALE)], opset=26))
    return cases


def _batch() -> list[Case]:
    cases = []
    for shape in ((4, 3), (2, 3, 2), (1, 3, 2, 2)):
        x, channels = spread(shape), (3,)
        inputs = [x, spread(channels, 0.5, 2.0), spread(channels), spread(channels, -0.5, 0.5)]
        inputs.append(spread(channels, 0.7, 1.5, seed=3))
        attributes = {"epsilon": 1e-3}
        cases.append(Case("BatchNormalization", inputs, attributes))
        for momentum in (0.8, 0.0):
            training = {**attributes, "training_mode": 1, "momentum": momentum}
            cases.append(Case("BatchNormalization", inputs, training, outputs=3))
    return cases


CASES: list[Case] = [
    *_layer(),
    *_batch(),
    *[
        Case("InstanceNormalization", [spread(shape), SCALE, BIAS], {"epsilon": 1e-3})
        for shape in ((2, 4, 3), (1, 4, 2, 2))
    ],
    *[
        Case(
            "GroupNormalization",
            [spread(shape), SCALE, BIAS],
            {"num_groups": groups, "epsilon": 1e-3},
        )
        for shape, groups in (((2, 4, 2), 1), ((3, 4), 2), ((1, 4, 2, 2), 2))
    ],
    Case("GroupNormalization", [spread((1, 4, 3)), SCALE, BIAS], {"num_groups": 4}),
    # Its schema's function body holds a float32 constant, so it takes no other floats.
    *[
        Case(
            "MeanVarianceNormalization",
            [spread(shape).astype(np.float32)],
            attributes,
            smooth=False,
            step=1e-2,
            tolerance=2e-3,
        )
        for shape, attributes in (
            ((2, 3, 2, 2), {"axes": [0, 2, 3]}),
            ((2, 3, 4), {"axes": [0, 2]}),
            ((4, 3), {"axes": [-1]}),
        )
    ],
    *[
        Case("LpNormalization", [spread((2, 3, 4))], {"p": p, "axis": axis})
        for p, axis in product((1, 2), (-1, 0, 1))
    ],
    Case("LpNormalization", [spread((3, 4))]),
    *[
        Case(
            "LRN",
            [spread((2, 5, 2, 2))],
            {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.5},
            portable=size % 2 == 1,
        )
        for size in (1, 2, 3, 5)
    ],
    Case("LRN", [spread((2, 5, 3, 1))], {"size": 3}),
]
