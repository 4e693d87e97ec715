"""Learning rate schedules, at steps in and around their periods."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, numpy

STEPS = [0, 1, 2, 3, 4, 5, 9, 10, 11, 19, 20, 21, 29, 30, 31, 49, 50, 69, 70, 71, 150, 151, 1000]

CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "exponential": ("ExponentialDecay", (0.1, 10, 0.5), {}),
    "exponential_staircase": ("ExponentialDecay", (0.1, 10, 0.96), {"staircase": True}),
    "inverse_time": ("InverseTimeDecay", (0.1, 10, 0.5), {}),
    "inverse_time_staircase": ("InverseTimeDecay", (0.1, 10, 2.0), {"staircase": True}),
    "piecewise": ("PiecewiseConstantDecay", ([5, 20, 30], [1.0, 0.5, 0.25, 0.1]), {}),
    "piecewise_floats": ("PiecewiseConstantDecay", ([5.0, 20.5], [1.0, 0.5, 0.25]), {}),
    "piecewise_one": ("PiecewiseConstantDecay", ([10], [0.3, 0.03]), {}),
    "polynomial": ("PolynomialDecay", (0.1, 30), {}),
    "polynomial_options": ("PolynomialDecay", (0.1, 30, 0.01), {"power": 2.0}),
    "polynomial_root": ("PolynomialDecay", (0.1, 30, 0.0, 0.5), {}),
    "polynomial_cycle": ("PolynomialDecay", (0.1, 10, 0.01), {"power": 1.5, "cycle": True}),
    "cosine": ("CosineDecay", (0.1, 30), {}),
    "cosine_alpha": ("CosineDecay", (0.1, 30, 0.1), {}),
    "cosine_warmup": ("CosineDecay", (0.0, 30), {"warmup_target": 0.2, "warmup_steps": 20}),
    "cosine_warmup_alpha": (
        "CosineDecay", (0.05, 30), {"alpha": 0.3, "warmup_target": 0.2, "warmup_steps": 4}),
    "cosine_no_warmup": ("CosineDecay", (0.05, 30), {"warmup_target": 0.2}),
    "restarts": ("CosineDecayRestarts", (0.1, 10), {}),
    "restarts_equal": ("CosineDecayRestarts", (0.1, 10), {"t_mul": 1.0, "m_mul": 0.5}),
    "restarts_options": (
        "CosineDecayRestarts", (0.1, 10, 3.0), {"m_mul": 0.8, "alpha": 0.1}),
}  # fmt: skip


def make(k: Any, case: str) -> Any:
    name, args, options = CASES[case]
    return getattr(k.optimizers.schedules, name)(*args, **options)


def _program(case: str) -> Program:
    def run(k: Any) -> Arrays:
        schedule = make(k, case)
        variable = k.Variable(0, dtype="int64", trainable=False)
        rates, from_variable = [], []
        for step in STEPS:
            rates.append(numpy(schedule(step)))
            variable.assign(step)
            from_variable.append(numpy(schedule(variable)))
        again = type(schedule).from_config(schedule.get_config())
        return {
            "rates": np.array(rates),
            "from_variable": np.array(from_variable),
            "again": numpy(again(7)),
            "config": np.array(repr(sorted(schedule.get_config().items()))),
        }

    return run


PROGRAMS: dict[str, Program] = {case: _program(case) for case in CASES}
