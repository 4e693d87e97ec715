"""The data that `onnxtape train` reads: arrays in .npz files, and batches of them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.batches import BatchReader
from onnxtape.runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxtape.runtime.manifest import TensorEntry

Arrays = dict[str, "NDArray[Any]"]

#: What Keras's data sets, and people, call the arrays of a set, where a step takes two.
_PAIRS = (("x", "y"), ("x_train", "y_train"), ("x_test", "y_test"), ("x_val", "y_val"))
_VALIDATION_PAIRS = (_PAIRS[0], _PAIRS[3], _PAIRS[2])
_TRAINING_PAIRS = _PAIRS[:2]


def read_arrays(path: Path, inputs: Sequence[TensorEntry], *, validation: bool = False) -> Arrays:
    """The arrays of a file, by the names of a step's batch inputs.

    Args:
        inputs: an array for each is needed; the first dimension of each is that of the samples.
        validation: which of Keras's names are looked for.

    Raises:
        InputError: it is no .npz file; arrays are missing, or do not fit the step.
    """
    if not inputs:
        raise InputError("the step takes no batch, so that there is nothing to read for it")
    found = _load(path)
    names = [entry.name for entry in inputs]
    if not set(names) <= set(found) and len(names) == 2:
        pairs = _VALIDATION_PAIRS if validation else _TRAINING_PAIRS
        there = [pair for pair in pairs if set(pair) <= set(found)]
        if len(there) == 1:
            found = {name: found[key] for name, key in zip(names, there[0], strict=True)}
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"{path} has no array {missing[0]!r}; the step takes {', '.join(names)}, and the file "
            f"has {', '.join(found) or 'nothing'}"
        )
    arrays = {name: found[name] for name in names}
    for entry in inputs:
        if not entry.shape:
            raise InputError(
                f"the input {entry.name!r} of the step is a single number, which no array gives: "
                "train from Python, with onnxtape.runtime.TrainingSession"
            )
        if not arrays[entry.name].ndim:
            raise InputError(f"{path}: {entry.name!r} is a single number, not an array of samples")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(f"{path} has arrays of different lengths: {listed}")
    if not next(iter(counts.values())):
        raise InputError(f"{path} holds no samples")
    size = fixed_batch_size(inputs) or 1
    if size > len(arrays[names[0]]):
        raise InputError(f"{path} holds fewer samples than a batch of the step, which is {size}")
    try:
        BatchReader(inputs).read({name: array[:size] for name, array in arrays.items()})
    except InputError as error:
        raise InputError(f"{path} does not fit the step. {error}") from error
    return arrays


def fixed_batch_size(inputs: Sequence[TensorEntry]) -> int | None:
    """The one batch size that a step takes, or None."""
    return next((e.shape[0] for e in inputs if isinstance(e.shape[0], int)), None)


def batches(arrays: Arrays, size: int, order: NDArray[Any], *, drop_last: bool) -> Iterator[Arrays]:
    """The samples in an order, batch by batch; the last may be smaller, or is left out."""
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        if len(chosen) == size or not drop_last:
            yield {name: array[chosen] for name, array in arrays.items()}


def _load(path: Path) -> Arrays:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise InputError(
                    f"{path} is one array, not several with names: write it with "
                    "numpy.savez(path, x=..., target=...)"
                )
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error) if str(error).startswith("Object") else "or cut short"
        raise InputError(f"{path} is not an .npz file of numbers ({reason})") from error
