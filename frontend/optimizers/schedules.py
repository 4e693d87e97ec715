"""Learning rates that depend on the step, with Keras's names, arguments and numbers.

A schedule is evaluated inside the compiled step, from the optimizer's count of calls: a few scalar
operations, no new trace. All of them compute in float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B, convert_to_tensor
from onnxtape.lookup import Configurable, by_name, find
from onnxtape.tensor import Tensor


class LearningRateSchedule(Configurable):
    """A learning rate as a function of the step; subclasses write `__call__`.

    A subclass computes with `ot.ops`, not with Python's numbers, since a step is traced only once.
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate.

        Args:
            step: how often the optimizer was applied before: an int, tensor or variable.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, step) method")


class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps).

    Args:
        staircase: divide without a remainder.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> Tensor:
        p = _periods(step, self.decay_steps, self.staircase)
        decayed = B.op("Pow", B.scalar(self.decay_rate, FLOAT32), p)
        return B.op("Mul", decayed, float(self.initial_learning_rate))


class InverseTimeDecay(LearningRateSchedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps).

    Args:
        staircase: divide the step without a remainder.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> Tensor:
        p = _periods(step, self.decay_steps, self.staircase)
        divisor = B.op("Add", B.op("Mul", p, float(self.decay_rate)), 1.0)
        return B.op("Div", float(self.initial_learning_rate), divisor)


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i] up to and including step boundaries[i], and then the last of the values.

    Args:
        boundaries: steps, in ascending order.
        values: one more than there are boundaries.
    """

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ) -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"{len(boundaries)} boundaries separate {len(boundaries) + 1} values, "
                f"not {len(values)}"
            )
        if any(a > b for a, b in itertools.pairwise(boundaries)):
            raise ValueError(f"boundaries are in ascending order, not {list(boundaries)}")
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def __call__(self, step: Any) -> Tensor:
        count = convert_to_tensor(step)
        boundaries = np.asarray(self.boundaries).astype(count.dtype)
        values = B.constant(np.asarray(self.values, FLOAT32))
        passed = B.cast(B.op("Greater", count, boundaries), np.dtype(np.int64))
        return B.op("Gather", values, B.op("ReduceSum", passed, keepdims=0))


class PolynomialDecay(LearningRateSchedule):
    """(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power
    + end_learning_rate, and end_learning_rate after decay_steps.

    Args:
        cycle: begin anew instead, each time with as many decay_steps more.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def __call__(self, step: Any) -> Tensor:
        count = _float(step)
        steps: Any = float(self.decay_steps)
        if self.cycle:
            steps = B.op("Mul", B.op("Max", B.op("Ceil", B.op("Div", count, steps)), 1.0), steps)
        # Rounding must not bring the rest below 0, which has no real powers.
        rest = B.op("Max", B.op("Sub", 1.0, B.op("Div", count, steps)), 0.0)
        span = float(self.initial_learning_rate) - float(self.end_learning_rate)
        decayed = B.op("Mul", B.op("Pow", rest, float(self.power)), span)
        return B.op("Add", decayed, float(self.end_learning_rate))


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial learning rate to `alpha` times it, over `decay_steps`.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016.

    Args:
        alpha: what is left at the end, as a share.
        warmup_target: first rise linearly from initial_learning_rate to this rate, which the cosine
            then begins at.
        warmup_steps: how long that takes; `decay_steps` follow after them.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Tensor:
        count = _float(step)
        start = float(self.initial_learning_rate)
        warms = self.warmup_target is not None and self.warmup_steps > 0
        top = start if self.warmup_target is None else float(self.warmup_target)
        cosine_steps = B.op("Sub", count, float(self.warmup_steps)) if warms else count
        fraction = B.op("Min", B.op("Div", cosine_steps, float(self.decay_steps)), 1.0)
        decayed = B.op("Mul", _cosine(fraction, self.alpha), top)
        if not warms:
            return decayed
        slope = (top - start) / float(self.warmup_steps)
        warming = B.op("Add", B.op("Mul", count, slope), start)
        return B.op("Where", B.op("Less", count, float(self.warmup_steps)), warming, decayed)


class CosineDecayRestarts(LearningRateSchedule):
    """`CosineDecay` that begins anew after each period.

    Args:
        first_decay_steps: the length of the first period.
        t_mul: each period is so many times as long as the one before.
        m_mul: each period begins at so many times the rate of the one before.
        alpha: what is left at the end of a period, as a share of the initial rate.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = _positive("first_decay_steps", first_decay_steps)
        self.t_mul = _positive("t_mul", t_mul)
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def __call__(self, step: Any) -> Tensor:
        periods = B.op("Div", _float(step), float(self.first_decay_steps))
        if self.t_mul == 1.0:
            restarts = B.op("Floor", periods)
            fraction = B.op("Sub", periods, restarts)
        else:
            restarts, fraction = self._geometric(periods)
        height = B.op("Pow", B.scalar(self.m_mul, FLOAT32), restarts)
        decayed = _cosine(fraction, self.alpha, height)
        return B.op("Mul", decayed, float(self.initial_learning_rate))

    def _geometric(self, periods: Tensor) -> tuple[Tensor, Tensor]:
        """The number of whole periods, 1 + t + t^2 + ... first ones long, and the part of the next.

        After n of them, x = 1 + (t - 1) * periods has come to t^n.
        """
        t = float(self.t_mul)
        base = B.scalar(t, FLOAT32)
        x = B.op("Add", B.op("Mul", periods, t - 1.0), 1.0)
        # The logarithms' rounding must not move a restart: the nearest number is checked.
        nearest = B.op("Round", B.op("Mul", B.op("Log", x), 1.0 / math.log(t)))
        reached = B.op("Pow", base, nearest)
        early = B.op("Less", x, reached) if t > 1.0 else B.op("Greater", x, reached)
        restarts = B.op("Sub", nearest, B.cast(early, FLOAT32))
        scale = B.op("Pow", base, restarts)
        fraction = B.op("Div", B.op("Sub", B.op("Div", x, scale), 1.0), t - 1.0)
        return restarts, fraction


_BY_NAME = by_name(
    (
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        CosineDecay,
        CosineDecayRestarts,
    )
)


def get(identifier: Any) -> Any:
    """A schedule from its configuration, `{"class_name": ..., "config": {...}}`, or itself."""
    return find(identifier, _BY_NAME, LearningRateSchedule, "learning rate schedule")


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict[str, Any]:
    """The configuration that `get` makes an equal schedule of."""
    return {
        "class_name": type(learning_rate_schedule).__name__,
        "config": learning_rate_schedule.get_config(),
    }


def _float(step: Any) -> Tensor:
    return convert_to_tensor(step, FLOAT32)


def _periods(step: Any, decay_steps: float, staircase: bool) -> Tensor:
    periods = B.op("Div", _float(step), float(decay_steps))
    return B.op("Floor", periods) if staircase else periods


def _cosine(fraction: Tensor, alpha: float, height: Tensor | None = None) -> Tensor:
    """Half a cosine wave from `height` (1) down to 0, then scaled to end at `alpha`."""
    cosine = B.op("Cos", B.op("Mul", fraction, math.pi))
    half = B.op("Mul", B.op("Add", cosine, 1.0), 0.5)
    if height is not None:
        half = B.op("Mul", half, height)
    return B.op("Add", B.op("Mul", half, 1.0 - alpha), float(alpha))


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} is positive, not {value}")
    return value
