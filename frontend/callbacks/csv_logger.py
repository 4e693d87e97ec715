"""Logs in a CSV file."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from onnxtape.callbacks.callback import Callback, Logs


class CSVLogger(Callback):
    """Write the logs of every epoch to a CSV file; "NA" stands for a number that an epoch lacks.

    Args:
        filename: the file.
        separator: between columns.
        append: go on in a file that is there, without another header, instead of replacing it.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = append
        self._file: TextIO | None = None
        self._names: list[str] = []
        self._writer: Any = None
        self._has_header = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        path = Path(self.filename)
        self._has_header = self.append and path.exists() and path.stat().st_size > 0
        self._close()
        self._file = path.open("a" if self.append else "w", newline="", encoding="utf-8")
        self._writer = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        assert self._file is not None
        if self._writer is None:
            self._names = sorted(logs)
            # Later epochs may be validated, by validation_freq: they have their columns.
            if not any(name.startswith("val_") for name in self._names):
                self._names += [f"val_{name}" for name in self._names]
            fields = ["epoch", *self._names]
            self._writer = csv.DictWriter(self._file, fields, delimiter=self.separator)
            if not self._has_header:
                self._writer.writeheader()
        row = {name: _written(logs.get(name, "NA")) for name in self._names}
        self._writer.writerow({"epoch": epoch, **row})
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._close()
        self._writer = None

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _written(value: Any) -> Any:
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return f'"[{", ".join(map(str, value))}]"'
    return value
