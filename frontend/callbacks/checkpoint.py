"""Saving the model while it is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from onnxtape.callbacks.callback import Logs
from onnxtape.callbacks.monitor import Mode, MonitorCallback
from onnxtape.saving.models import SUFFIX, check_model_suffix
from onnxtape.state import save_checkpoint
from onnxtape.training.weights import SUFFIX as CHECKPOINT_SUFFIX
from onnxtape.training.weights import check_suffix


class ModelCheckpoint(MonitorCallback):
    """Save the model at the ends of epochs, or every so many batches.

    The file holds the whole model (`ot.models.load_model` reads it), or the weights alone
    (`model.load_weights`).

    Args:
        filepath: the file, which ends in ".onnxtape", or in ".safetensors" for weights; may hold
            the epoch, the batch and numbers of the logs, as in
            "{epoch:02d}-{val_loss:.2f}.onnxtape". Epochs and batches count from 1 here. A whole
            model under a name in ".safetensors" is a checkpoint of model and optimizer:
            `ot.restore_checkpoint(path, {"model": model, "optimizer": model.optimizer})`.
        monitor, mode: see `MonitorCallback`.
        verbose: 1 prints what is saved.
        save_best_only: save only when the number got better.
        save_weights_only: whether the file holds the weights alone.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: what has to be beaten first.

    Raises:
        ValueError: another kind of file, or another `save_freq`.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: Mode = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        _check_name(os.fspath(filepath), save_weights_only)
        check_frequency(save_freq)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self._counter = BatchCounter(save_freq)
        self._epoch = 0

    def needs_batch_logs(self, batch: int) -> bool:
        return self.save_freq != "epoch" and self._counter.is_next(batch)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._counter.count(batch):
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        path = self._path(epoch, batch, logs)
        if not self._is_wanted(epoch, logs, path):
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(SUFFIX):
            self.model.save(path)
        elif self.save_weights_only:
            self.model.save_weights(path)
        else:
            optimizer = self.model.optimizer
            save_checkpoint(path, {"model": self.model, "optimizer": optimizer})
        self._say(f"\nEpoch {epoch + 1}: finished saving model to {path}")

    def _path(self, epoch: int, batch: int | None, logs: Logs) -> str:
        places: dict[str, Any] = {"epoch": epoch + 1, **logs}
        if batch is not None:
            places.setdefault("batch", batch + 1)
        try:
            return self.filepath.format(**places)
        except KeyError as missing:
            raise KeyError(
                f"ModelCheckpoint's filepath '{self.filepath}' asks for {missing}, but there are "
                f"{', '.join(places)}"
            ) from None

    def _is_wanted(self, epoch: int, logs: Logs, path: str) -> bool:
        if not self.save_best_only:
            self._say(f"\nEpoch {epoch + 1}: saving model to {path}")
            return True
        current = self.value_in(logs)
        if current is None:
            return True
        before = "None" if self.best is None else f"{self.best:.5f}"
        if not self.is_improvement(current, self.best):
            self._say(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {before}")
            return False
        self._say(
            f"\nEpoch {epoch + 1}: {self.monitor} improved from {before} to {current:.5f}, "
            f"saving model to {path}"
        )
        self.best = current
        return True

    def _say(self, text: str) -> None:
        if self.verbose > 0:
            print(text)


def _check_name(filepath: str, save_weights_only: bool) -> None:
    if save_weights_only:
        check_suffix(filepath)
    elif not filepath.endswith(CHECKPOINT_SUFFIX):
        check_model_suffix(filepath)


def check_frequency(save_freq: Any) -> None:
    """Require "epoch" or a number of batches.

    Raises:
        ValueError: something else.
    """
    if save_freq == "epoch":
        return
    if isinstance(save_freq, bool) or not isinstance(save_freq, int) or save_freq < 1:
        raise ValueError(f"save_freq is 'epoch' or a number of batches, not {save_freq!r}")


class BatchCounter:
    """Says when so many batches have passed, across epochs."""

    def __init__(self, frequency: Literal["epoch"] | int) -> None:
        self._frequency = frequency if isinstance(frequency, int) else None
        self._seen = 0
        self._last = -1

    def _passed(self, batch: int) -> int:
        """How many since the last call; batches count from 0 in each epoch."""
        return batch + 1 if batch <= self._last else batch - self._last

    def is_next(self, batch: int) -> bool:
        """Whether `count` would say so of this batch."""
        return self._frequency is not None and self._seen + self._passed(batch) >= self._frequency

    def count(self, batch: int) -> bool:
        """Count the batches up to this one; whether the number is reached, to begin anew."""
        reached = self.is_next(batch)
        self._seen = 0 if reached else self._seen + self._passed(batch)
        self._last = batch
        return reached
