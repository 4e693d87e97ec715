"""Going on after an interruption."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from onnxtape.callbacks.callback import Callback, Logs
from onnxtape.callbacks.checkpoint import BatchCounter, check_frequency
from onnxtape.errors import CheckpointError
from onnxtape.state import restore_checkpoint, save_checkpoint
from onnxtape.variable import Variable


class BackupAndRestore(Callback):
    """Keep a backup of the training state, and go on from one that an interrupted `fit` left.

    The backup is one file, written whole or not at all: the model, the optimizer, the random
    stream, the number of finished epochs, and where the data was: the order in which arrays and
    `ot.data.Dataset`s are shuffled goes on, too.

    Args:
        backup_dir: the folder, for nothing else.
        save_freq: "epoch", or a number of batches; `fit` goes on at the beginning of the epoch.
        double_checkpoint: also keep the backup before, in case that the newest is damaged.
        delete_checkpoint: remove the folder when `fit` has ended.

    Raises:
        ValueError: no folder, or another `save_freq`.
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: Literal["epoch"] | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not os.fspath(backup_dir):
            raise ValueError("BackupAndRestore needs a folder")
        check_frequency(save_freq)
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._latest = Path(backup_dir) / "latest.safetensors"
        self._previous = Path(backup_dir) / "previous.safetensors"
        self._counter = BatchCounter(save_freq)
        self._epochs = Variable(0, False, "epochs", "int64", role="buffer")
        # Where the data was when the epoch began.
        self._data: Variable | None = None

    def needs_batch_logs(self, batch: int) -> bool:
        return False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        dataset = self.model._fitted_dataset
        self._data = None
        if dataset is not None:
            self._data = Variable(dataset.position.numpy(), False, "data", role="buffer")
        if not self._latest.exists() and not self._previous.exists():
            self._epochs.assign(self.model._first_epoch)
            return
        if not self.model.built:
            raise ValueError(
                f"model '{self.model.name}' is not built yet, so '{self.backup_dir}' cannot be "
                "restored: call the model on a batch before fit"
            )
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        try:
            restore_checkpoint(self._latest, self._tree())
        except CheckpointError:
            if not self._previous.exists():
                raise
            restore_checkpoint(self._previous, self._tree())
        self.model._first_epoch = int(self._epochs.numpy())
        if dataset is not None and self._data is not None:
            dataset.position.assign(self._data.numpy())

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epochs.assign(epoch + 1)
        if self._data is not None:
            self._data.assign(self.model._fitted_dataset.position.numpy())
        if self.save_freq == "epoch":
            self._save()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._counter.count(batch):
            self._save()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint and os.path.exists(self.backup_dir):
            shutil.rmtree(self.backup_dir)

    def _save(self) -> None:
        self._latest.parent.mkdir(parents=True, exist_ok=True)
        if self.double_checkpoint and self._latest.exists():
            os.replace(self._latest, self._previous)
        save_checkpoint(self._latest, self._tree())

    def _tree(self) -> dict[str, Any]:
        found = {"model": self.model, "progress": self._epochs}
        if self.model.optimizer is not None:
            found["optimizer"] = self.model.optimizer
        if self._data is not None:
            found["data"] = self._data
        return found
