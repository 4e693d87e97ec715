"""The progress bar of `fit`, `evaluate` and `predict`, as Keras prints it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxtape.callbacks.callback import Callback, Logs

_WIDTH = 20
#: Seconds between two updates.
_INTERVAL = 0.05
_BOLD, _GREEN, _WHITE, _PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[37m", "\x1b[0m"


class ProgressBar:
    """One line that is written again and again.

    Args:
        target: how many steps there are; None if that is not known.
        verbose: 1 a bar, 2 one line at the end, 0 nothing.
    """

    def __init__(self, target: int | None, verbose: int = 1) -> None:
        self.target = target
        self.verbose = verbose
        self._start = time.perf_counter()
        self._after_first: float | None = None
        self._updated = float("-inf")
        self._width = 0
        self._colour = sys.stdout.isatty()

    @property
    def is_due(self) -> bool:
        """Whether an update now would be shown."""
        return self.verbose == 1 and time.perf_counter() - self._updated >= _INTERVAL

    def update(self, current: int, values: Mapping[str, Any], *, final: bool = False) -> None:
        """Show that `current` steps are done.

        Args:
            values: what to show after the bar.
            final: end the line.
        """
        per_step = self._seconds_per_step(current)
        if self.verbose == 2 and final:
            count = self._count(current)
            seconds = f"{time.perf_counter() - self._start:.0f}s"
            self._write(f"{count} - {seconds} - {_per_step(per_step)}{_values(values)}\n")
        if self.verbose != 1 or not (final or self.is_due):
            return
        parts = [(_BOLD, self._count(current))]
        if self.target:
            done = int(_WIDTH * current / self.target)
            parts += [("", " "), (_GREEN, "━" * done), (_WHITE, "━" * (_WIDTH - done))]
        left = time.perf_counter() - self._start
        if self.target and not final:
            left = per_step * (self.target - current)
        shown = f"{left:.0f}s" if final or not self.target else _remaining(left)
        parts += [("", " "), (_BOLD, shown), ("", f" {_per_step(per_step)}{_values(values)}")]
        width = sum(len(text) for _, text in parts)
        line = "".join(f"{c}{t}{_PLAIN}" if c and t and self._colour else t for c, t in parts)
        # What a longer line left behind is written over.
        self._write(f"\r{line}{' ' * (self._width - width)}" + ("\n" if final else ""))
        self._width = width
        self._updated = time.perf_counter()

    def _count(self, current: int) -> str:
        if not self.target:
            return f"{current:7d}/Unknown"
        return f"{current:{len(str(self.target))}d}/{self.target}"

    def _seconds_per_step(self, current: int) -> float:
        """The first step is left out: it compiles."""
        if current == 0:
            return 0.0
        now = time.perf_counter()
        if self._after_first is not None and current > 1:
            return (now - self._after_first) / (current - 1)
        if current == 1:
            self._after_first = now
        return (now - self._start) / current

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _per_step(seconds: float) -> str:
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.0f}s/step"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.0f}ms/step"
    return f"{seconds * 1e6:.0f}us/step"


def _remaining(seconds: float) -> str:
    whole = int(seconds)
    if whole > 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if whole > 60 else f"{whole}s"


def _values(values: Mapping[str, Any]) -> str:
    shown = ""
    for name, value in values.items():
        mean = float(np.mean(value))
        shown += f" - {name}: {mean:.4f}" if abs(mean) > 1e-3 else f" - {name}: {mean:.4e}"
    return shown


class ProgbarLogger(Callback):
    """Prints the progress of an epoch; `verbose=1` and 2 of `fit` add it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self._bar: ProgressBar | None = None
        self._verbose = 1
        self._epochs = 1
        self._target: int | None = None
        self._in_fit = False

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        verbose = params.get("verbose", 1)
        self._verbose = 1 if verbose in ("auto", True) else int(verbose)
        self._epochs = params.get("epochs", 1)
        self._target = params.get("steps")

    def needs_batch_logs(self, batch: int) -> bool:
        return self._bar is not None and self._bar.is_due

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._in_fit = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._begin()
        if self._verbose and self._epochs > 1:
            print(f"Epoch {epoch + 1}/{self._epochs}")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._end(logs)

    # Validation in `fit` is silent.

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._begin()

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._step(batch, logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._end(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._begin()

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step(batch, None)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._end(None)

    def _begin(self) -> None:
        self.seen = 0
        self._bar = ProgressBar(self._target, self._verbose)

    def _step(self, batch: int, logs: Logs | None) -> None:
        self.seen = batch + 1
        if self._bar is not None:
            self._bar.update(self.seen, logs or {})

    def _end(self, logs: Logs | None) -> None:
        if self._bar is None:
            return
        if self._target is None and self.seen:
            self._target = self._bar.target = self.seen
        self._bar.update(self.seen, logs or {}, final=True)
        self._bar = None
