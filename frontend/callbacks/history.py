"""What `fit` returns."""

from __future__ import annotations

from typing import Any

from onnxtape.callbacks.callback import Callback, Logs


class History(Callback):
    """Keeps the logs of all epochs; every `fit` has one, and returns it.

    Attributes:
        history: a list of numbers for each name in the logs.
        epoch: the numbers of the epochs, from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.history, self.epoch = {}, []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
