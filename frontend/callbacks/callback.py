"""The base of callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtape.constructing import Constructed

Logs = dict[str, Any]


class Callback(Constructed):
    """Something that is told how training goes; subclasses write the hooks that they need.

    `logs` are numbers by name: of the batch, where the hook belongs to one, or of the epoch. At the
    end of an epoch, what a callback adds to them is seen by the callbacks after it.

    Attributes:
        model: the model being trained.
        params: "verbose", "epochs" and "steps" (None if unknown).
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Called once before the loop."""
        self.params = dict(params)

    def set_model(self, model: Any) -> None:
        """Called once before the loop."""
        self.model = model

    def needs_batch_logs(self, batch: int) -> bool:
        """Whether the hook at the end of this batch looks at its logs.

        Where no callback does, nobody waits for the loss, and the hooks get an empty dict.
        """
        return True

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """The same as `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """The same as `on_train_batch_end`."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch of `fit` begins; counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch of `fit` has ended, validation included."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """A batch of `fit` begins; counted from 0 in each epoch."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """A batch of `fit` has ended; `logs` are the means over the epoch so far."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """A batch of `evaluate` begins, or of the validation in `fit`."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """A batch of `evaluate` has ended, or of the validation in `fit`."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """A batch of `predict` begins."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """A batch of `predict` has ended; `logs` holds its "outputs", as tensors."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """`fit` begins."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """`fit` ends; `logs` are those of the last epoch."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """`evaluate` begins, or validation in `fit`."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """`evaluate` ends, or validation in `fit`."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """`predict` begins."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """`predict` ends."""
