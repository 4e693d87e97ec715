"""A small classifier with everything that a training step has, for the tests to share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import onnxtape as ot

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

FEATURES, HIDDEN, CLASSES = 8, 16, 4


class Training:
    """An MLP with dropout, Adam and an accuracy.

    Two of them made from one seed start from the same weights and draw the same masks, as long as
    the second is made, or `restart` is called, before it steps.
    """

    def __init__(self, *, seed: int = 1, dropout: float = 0.25, compiled: bool = True) -> None:
        self._seed = seed
        ot.set_seed(seed)
        parts: list[Any] = [ot.Input((FEATURES,)), ot.layers.Dense(HIDDEN, activation="relu")]
        if dropout:
            parts.append(ot.layers.Dropout(dropout))
        self.model = ot.Sequential([*parts, ot.layers.Dense(CLASSES)])
        self.loss = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.optimizer = ot.optimizers.Adam(0.01)
        self.accuracy = ot.metrics.SparseCategoricalAccuracy()
        self.step = ot.function(self.python_step) if compiled else self.python_step

    def python_step(self, x: Any, y: Any) -> dict[str, Any]:
        with ot.GradientTape() as tape:
            logits = self.model(x, training=True)
            loss = self.loss(y, logits)
        weights = self.model.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.accuracy.update_state(y, logits)
        return {"loss": loss, "accuracy": self.accuracy.result()}

    @property
    def tree(self) -> dict[str, Any]:
        """What a checkpoint of it holds."""
        return {"model": self.model, "optimizer": self.optimizer, "accuracy": self.accuracy}

    def restart_masks(self) -> None:
        """Draw the masks from the beginning again."""
        ot.set_seed(self._seed + 1000)

    def run(self, batches: list[Batch]) -> list[float]:
        """Train on the batches; the losses."""
        return [float(self.step(x, y)["loss"]) for x, y in batches]

    def state(self) -> list[npt.NDArray[Any]]:
        """Copies of all weights, optimizer and metric variables, in a fixed order."""
        owners = (self.model, self.optimizer, self.accuracy)
        return [variable.numpy() for owner in owners for variable in owner.variables]


def batches(count: int, size: int = 16, last: int | None = None, seed: int = 0) -> list[Batch]:
    """Random batches of a problem that can be learned, the last one smaller if `last` says so."""
    return list(_batches(count, size, last, seed))


def _batches(count: int, size: int, last: int | None, seed: int) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((FEATURES, CLASSES), dtype=np.float32)
    for i in range(count):
        rows = last if last is not None and i == count - 1 else size
        x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
        yield x, np.argmax(x @ directions, axis=1)
