"""The base of callbacks that watch one number."""

from __future__ import annotations

from typing import Any, Literal

from onnxtape import context
from onnxtape.callbacks.callback import Callback, Logs
from onnxtape.naming import suggestion

Mode = Literal["auto", "min", "max"]


class MonitorCallback(Callback):
    """A callback that watches whether one of the epoch's numbers gets better.

    Args:
        monitor: its name in the logs.
        mode: whether smaller ("min") or larger ("max") is better; "auto" knows it of losses and of
            metrics that say so.
        baseline: what has to be beaten first.
        min_delta: the smallest change that counts.

    Raises:
        ValueError: another mode.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: Mode = "auto",
        baseline: float | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode is 'auto', 'min' or 'max', not {mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)
        self._has_warned = False
        self._larger_is_better: bool | None = None if mode == "auto" else mode == "max"

    def is_improvement(self, value: float, reference: float | None) -> bool:
        """Whether `value` is better than `reference` by more than `min_delta`."""
        if reference is None:
            return True
        if self._larger_is_better is None:
            self._larger_is_better = self._direction()
        if self._larger_is_better:
            return value - self.min_delta > reference
        return value + self.min_delta < reference

    def _direction(self) -> bool:
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            return False
        for metric in getattr(self.model, "metrics", ()):
            parts = getattr(metric, "listed", None)
            for shown, part in parts() if parts else [(metric.name, metric)]:
                direction = getattr(part, "_direction", None)
                if shown == name and direction is not None:
                    return bool(direction == "up")
        raise ValueError(
            f"{type(self).__name__} cannot tell whether a larger or a smaller '{self.monitor}' is "
            "better: say mode='max' or mode='min'"
        )

    def value_in(self, logs: Logs | None) -> Any:
        """The watched number; None, with one warning, where it is not in the logs."""
        value = (logs or {}).get(self.monitor)
        if value is None and not self._has_warned:
            self._has_warned = True
            context.warn_user(
                f"{type(self).__name__} watches '{self.monitor}', which is not in the logs"
                + suggestion(self.monitor, logs or {}).replace("it has", "they have")
                + ("; val_ names need validation_data" if self.monitor.startswith("val_") else "")
            )
        return value
