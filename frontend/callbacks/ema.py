"""Evaluating with averaged weights."""

from __future__ import annotations

from typing import Any

from onnxtape.callbacks.callback import Callback, Logs


class SwapEMAWeights(Callback):
    """Exchange the weights with the optimizer's moving averages while evaluating.

    The optimizer is one with `use_ema=True`.

    Args:
        swap_on_epoch: from the end of an epoch to the beginning of the next too, so that callbacks
            after this one, such as a `ModelCheckpoint`, find the averages in the model.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._swapped = False

    def _pairs(self) -> list[tuple[Any, Any]]:
        optimizer = self.model.optimizer
        if optimizer is None or not optimizer.use_ema:
            raise ValueError(
                "SwapEMAWeights needs an optimizer with moving averages: make it with use_ema=True"
            )
        return list(zip(optimizer._trainable, optimizer._averages, strict=True))

    def _swap(self, swapped: bool) -> None:
        if self._swapped == swapped:
            return
        for variable, average in self._pairs():
            kept = variable.numpy()
            variable.assign(average.numpy())
            average.assign(kept)
        self._swapped = swapped

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._swap(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._swap(True)
            if epoch == self.params["epochs"] - 1:
                # `fit` ends by giving the weights the averages, which are in their place already.
                for variable, average in self._pairs():
                    average.assign(variable.numpy())

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._swap(False)
