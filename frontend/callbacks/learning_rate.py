"""Changing the learning rate between epochs; no step is compiled again for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxtape.callbacks.callback import Callback, Logs
from onnxtape.callbacks.monitor import Mode, MonitorCallback


def _rate(model: Any) -> float:
    """The current learning rate, as a float32 has it."""
    return float(np.asarray(model.optimizer.learning_rate))


def _places(schedule: Callable[..., float]) -> int:
    """How many of the epoch and the rate the schedule takes: Keras's first schedules had one."""
    try:
        inspect.signature(schedule).bind(0, 0.0)
    except TypeError:
        return 1
    except ValueError:  # Some functions written in C have no signature.
        pass
    return 2


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of every epoch.

    Args:
        schedule: takes the epoch, from 0, and, where it has a place for it, the current rate;
            returns the new rate.
        verbose: 1 prints each rate.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        given = (epoch, _rate(self.model))
        rate = self.schedule(*given[: _places(self.schedule)])
        if not isinstance(rate, (float, np.floating)):
            raise ValueError(
                f"LearningRateScheduler's schedule returns a float, not {rate!r} of type "
                f"{type(rate).__name__}"
            )
        self.model.optimizer.learning_rate = float(rate)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = _rate(self.model)


class ReduceLROnPlateau(MonitorCallback):
    """Reduce the learning rate when a number has not got better for some epochs.

    Args:
        monitor, mode, min_delta: see `MonitorCallback`.
        factor: what the rate is multiplied by, below 1.
        patience: how many epochs without improvement are waited for.
        verbose: 1 prints each reduction.
        cooldown: how many epochs after a reduction do not count.
        min_lr: the least rate.

    Raises:
        ValueError: `factor` is not below 1.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau's factor is below 1, not {factor}")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best = None
        self.cooldown_counter = self.wait = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        old = _rate(self.model)
        if logs is not None:
            logs["learning_rate"] = old
        current = self.value_in(logs)
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and old > np.float32(self.min_lr):
                rate = max(old * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                if self.verbose > 0:
                    print(
                        f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}."
                    )
                self.cooldown_counter = self.cooldown
                self.wait = 0

    def in_cooldown(self) -> bool:
        """Whether a reduction was too recent to judge."""
        return self.cooldown_counter > 0
