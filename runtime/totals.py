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
        sums: where to go on from, and what is kept up to date: of each result that is one number,
            the sum and the votes in it, by name.
    """

    def __init__(
        self,
        outputs: Sequence[TensorEntry],
        accumulated: Collection[str],
        sums: dict[str, list[Any]] | None = None,
    ) -> None:
        self._outputs = outputs
        self._accumulated = accumulated
        self._sums = {} if sums is None else sums
        self._rows: dict[str, list[NDArray[Any]]] = {}

    def add(self, results: Mapping[str, NDArray[Any]], samples: int) -> None:
        """Take the results of a batch of so many samples into account."""
        for entry in self._outputs:
            value = results[entry.name]
            if entry.name in self._accumulated:
                self._sums[entry.name] = [value, 1]
            elif _is_joined(entry):
                self._rows.setdefault(entry.name, []).append(value)
            else:
                total, votes = self._sums.get(entry.name, (0.0, 0))
                total = total + value.astype(np.float64) * samples
                self._sums[entry.name] = [total, votes + samples]

    def results(self) -> dict[str, NDArray[Any]]:
        """The results of all batches, by name.

        Raises:
            InputError: there was no batch; or arrays of different sizes cannot be joined.
        """
        if not (self._sums or self._rows) and self._outputs:
            raise InputError("There was no batch to evaluate.")
        return {entry.name: self._result(entry) for entry in self._outputs}

    def _result(self, entry: TensorEntry) -> NDArray[Any]:
        if entry.name in self._sums:
            total, votes = self._sums[entry.name]
            if entry.name in self._accumulated:
                return np.asarray(total, numpy_dtype(entry.dtype))
            mean = np.asarray(total / votes)
            return mean.astype(numpy_dtype(entry.dtype)) if entry.dtype in FLOATING else mean
        found = self._rows[entry.name]
        if len(shapes := sorted({array.shape[1:] for array in found})) > 1:
            shown = " and ".join(str(["batch", *shape]) for shape in shapes[:2])
            raise InputError(
                f"The result {entry.name!r} is {shown} in different batches, so that it cannot be "
                "joined: take one batch after the other, with EvaluationSession.start and step."
            )
        return np.concatenate(found)


def _is_joined(entry: TensorEntry) -> bool:
    return bool(entry.shape) and not isinstance(entry.shape[0], int)
