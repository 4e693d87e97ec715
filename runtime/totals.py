"""The results of several batches, as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.dtypes import FLOATING, numpy_dtype
from onnxtape.runtime.errors import InputError
from onnxtape.runtime.manifest import TensorEntry

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Totals:
    """Takes the results of one batch after the other.

    What metrics keep is that of the last batch. Of what each batch has for itself, results whose
    first dimension is free, one row per sample, are joined; all others are averaged, each batch
    with as many votes as it has samples.

    Args:
        outputs: the results.
        accumulated: the names of those that metrics keep.
    """

    def __init__(self, outputs: Sequence[TensorEntry], accumulated: Collection[str]) -> None:
        self._outputs = outputs
        self._accumulated = accumulated
        self._samples = 0
        self._found: dict[str, Any] = {}

    def add(self, results: Mapping[str, NDArray[Any]], samples: int) -> None:
        """Take the results of a batch of so many samples into account."""
        self._samples += samples
        for entry in self._outputs:
            value = results[entry.name]
            if entry.name in self._accumulated:
                self._found[entry.name] = value
            elif _is_joined(entry):
                self._found.setdefault(entry.name, []).append(value)
            else:
                total = value.astype(np.float64) * samples
                self._found[entry.name] = self._found.get(entry.name, 0.0) + total

    def results(self) -> dict[str, NDArray[Any]]:
        """The results of all batches, by name.

        Raises:
            InputError: there was no batch; or arrays of different sizes cannot be joined.
        """
        if not self._found and self._outputs:
            raise InputError("There was no batch to evaluate.")
        return {entry.name: self._result(entry) for entry in self._outputs}

    def _result(self, entry: TensorEntry) -> NDArray[Any]:
        found = self._found[entry.name]
        if entry.name in self._accumulated:
            return np.asarray(found)
        if not _is_joined(entry):
            mean = np.asarray(found / self._samples)
            return mean.astype(numpy_dtype(entry.dtype)) if entry.dtype in FLOATING else mean
        if len(shapes := sorted({array.shape[1:] for array in found})) > 1:
            shown = " and ".join(str(["batch", *shape]) for shape in shapes[:2])
            raise InputError(
                f"The result {entry.name!r} is {shown} in different batches, so that it cannot be "
                "joined: take one batch after the other, with EvaluationSession.start and step."
            )
        return np.concatenate(found)


def _is_joined(entry: TensorEntry) -> bool:
    return bool(entry.shape) and not isinstance(entry.shape[0], int)
