"""Learning rate schedules; their numbers are compared with Keras's in test_optimizers_keras.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.optimizers import SGD, schedules


def test_a_schedule_of_ones_own() -> None:
    class Warmup(schedules.LearningRateSchedule):
        def __init__(self, top: float, steps: int) -> None:
            self.top, self.steps = top, steps

        def __call__(self, step: Any) -> Any:
            done = ot.ops.cast(step, "float32") / self.steps
            return self.top * ot.ops.minimum(done, 1.0)

    schedule = Warmup(0.5, 4)
    assert float(schedule(2)) == 0.25
    assert schedule.get_config() == {"top": 0.5, "steps": 4}
    optimizer, w = SGD(schedule), ot.Variable([0.0])
    step = ot.function(lambda: optimizer.apply([[1.0]], [w]), fallback="error")
    rates = []
    for _ in range(6):
        rates.append(float(optimizer.learning_rate))
        step()
    assert rates == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    np.testing.assert_allclose(w.numpy(), [-sum(rates)], rtol=1e-6)
    assert step.trace_count == 1
    with pytest.raises(ValueError, match=r"no learning rate schedule is called 'Warmup'; there"):
        SGD.from_config(optimizer.get_config())
    with pytest.raises(NotImplementedError, match=r"LearningRateSchedule has no __call__"):
        schedules.LearningRateSchedule()(0)


def test_restarts_are_on_time_however_logarithms_round() -> None:
    """Exactly at the end of a period the next one begins, at the top."""
    for t_mul in (1.5, 2.0, 3.0, 5.0):
        schedule = schedules.CosineDecayRestarts(1.0, 64, t_mul)
        start, length = 0, 64.0
        while length < 4000 and length == int(length):
            assert float(schedule(start)) == pytest.approx(1.0, abs=1e-6)
            start, length = start + int(length), length * t_mul
            assert float(schedule(start - 1)) < 0.01


def test_restarts_of_shorter_and_shorter_periods() -> None:
    schedule = schedules.CosineDecayRestarts(1.0, 64, 0.5)
    for step in range(64):
        expected = 0.5 * (1 + math.cos(math.pi * step / 64))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-5)
    for step in range(64, 96):
        expected = 0.5 * (1 + math.cos(math.pi * (step - 64) / 32))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-5)


def test_far_steps_have_rates() -> None:
    """Rounding never leads out of a power's domain."""
    schedule = schedules.PolynomialDecay(0.1, 7, 0.0, power=0.5, cycle=True)
    steps = np.arange(16_000_000, 16_002_000)
    assert np.isfinite(np.array([float(schedule(int(s))) for s in steps[::40]])).all()
    assert np.isfinite(float(schedules.CosineDecayRestarts(0.1, 7)(2**40)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), r"decay_steps is positive, not 0"),
        (lambda: schedules.InverseTimeDecay(0.1, -1, 0.5), r"decay_steps is positive, not -1"),
        (lambda: schedules.PolynomialDecay(0.1, 0), r"decay_steps is positive"),
        (lambda: schedules.CosineDecay(0.1, 0), r"decay_steps is positive"),
        (lambda: schedules.CosineDecayRestarts(0.1, 0), r"first_decay_steps is positive"),
        (lambda: schedules.CosineDecayRestarts(0.1, 1, 0.0), r"t_mul is positive"),
        (
            lambda: schedules.PiecewiseConstantDecay([1], [1.0]),
            r"1 boundaries separate 2 values, not 1",
        ),
        (
            lambda: schedules.PiecewiseConstantDecay([3, 1], [1.0, 2.0, 3.0]),
            r"ascending order, not \[3, 1\]",
        ),
        (
            lambda: schedules.get("exponential"),
            r"no learning rate schedule is called",
        ),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
