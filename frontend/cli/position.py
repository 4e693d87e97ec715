"""How far a training has come: kept in the state's file, so that it can go on to the bit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.artifact import state_specs
from onnxtape.runtime.checkpoint import (
    check_state,
    load_state,
    read_metadata,
    save_state,
    specs_of,
)
from onnxtape.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxtape.runtime import TrainingSession

_KEY = "onnxtape.train"


@dataclass(slots=True)
class Position:
    """Where a training stands, and what decides how it goes on.

    Attributes:
        samples: how many there are to train on.
        epoch: complete epochs.
        batch: complete batches of the next one.
        sums: what the results of the next one add up to so far; see `Totals`.
    """

    seed: int
    batch_size: int
    shuffle: bool
    samples: int
    epoch: int = 0
    batch: int = 0
    sums: dict[str, list[Any]] = field(default_factory=dict)

    def order(self) -> NDArray[Any]:
        """The order of the samples in the present epoch."""
        if not self.shuffle:
            return np.arange(self.samples)
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.samples)

    def save(self, path: Path, session: TrainingSession) -> None:
        """Write the state and the position to one file, whole or not at all."""
        position = json.dumps(asdict(self), default=float)
        metadata = {"producer": session.manifest.producer, _KEY: position}
        save_state(path, session.state_dict(), metadata)

    @classmethod
    def restore(cls, path: Path, session: TrainingSession) -> Position:
        """Read both back; the session takes the state.

        Raises:
            CheckpointError: it is no such file, or that of another artifact.
        """
        state = load_state(path)
        written = read_metadata(path).get(_KEY)
        if written is None:
            raise CheckpointError(f"{path} was not written by `onnxtape train`")
        try:
            position = cls(**json.loads(written))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path} does not say how far the training was") from error
        try:
            check_state(state_specs(session.state), specs_of(state), source=str(path))
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} The artifact was built anew since it was saved: --restart begins anew, "
                "over it, --state chooses another file"
            ) from None
        session.load_state_dict(state)
        return position
