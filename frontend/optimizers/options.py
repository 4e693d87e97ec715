"""The arguments that all optimizers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class OtherOptions(TypedDict, total=False):
    """The arguments that all optimizers take by name, but for weight_decay; see `Optimizer`."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class Options(OtherOptions, total=False):
    """The arguments that all optimizers take by name; see `Optimizer`."""

    weight_decay: float | None


def check_clips(clips: Mapping[str, float | None]) -> None:
    """Refuse several ways of clipping, and limits that are not positive."""
    given = {name: value for name, value in clips.items() if value is not None}
    if len(given) > 1:
        shown = " and ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"gradients are clipped in one way, not by {shown}")
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name} is positive, not {value}; None means no clipping")


def check_share(name: str, value: float) -> None:
    """Refuse what does not lie between 0 and 1."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} lies between 0 and 1, not at {value}")


def check_count(name: str, value: Any, least: int) -> None:
    """Refuse what is neither None nor a whole number of at least `least`."""
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or value < least
    ):
        raise ValueError(f"{name} is a whole number of at least {least}, or None; not {value!r}")


def check_rate(value: Any) -> Any:
    """Refuse a learning rate that is no number."""
    if isinstance(value, (bool, str)) or callable(value):
        raise TypeError(
            f"learning_rate is a number, not {value!r}, or an "
            "ot.optimizers.schedules.LearningRateSchedule: write a subclass with "
            "__call__(self, step) to compute it from the step"
        )
    return value
