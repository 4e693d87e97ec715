"""Checking what a caller hands to a graph against what the graph declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.dtypes import numpy_dtype
from onnxtape.runtime.errors import InputError
from onnxtape.runtime.manifest import Dimension, TensorEntry

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BatchReader:
    """Turns one call's values into arrays, in the order of the declared inputs.

    An array that already has the declared dtype and is contiguous is passed on as it is.
    """

    def __init__(self, entries: Sequence[TensorEntry]) -> None:
        self._entries = [(entry, numpy_dtype(entry.dtype)) for entry in entries]
        self._names = frozenset(entry.name for entry in entries)
        self._fitting_shapes: list[tuple[int, ...]] | None = None

    def read(self, batch: Mapping[str, Any]) -> list[NDArray[Any]]:
        """Check and convert one call's values.

        Raises:
            InputError: a value is missing, unknown, or of the wrong dtype or shape; or two inputs
                disagree in a dimension that they share by name.
        """
        if batch.keys() != self._names:
            self._refuse_names(batch)
        arrays = []
        for entry, dtype in self._entries:
            value = batch[entry.name]
            if type(value) is not np.ndarray or value.dtype != dtype:
                value = as_dtype(value, dtype, f"The input {entry.name!r}")
            if not value.flags.c_contiguous:
                value = np.ascontiguousarray(value)
            arrays.append(value)
        shapes = [array.shape for array in arrays]
        # Most calls have the shapes of the one before.
        if shapes != self._fitting_shapes:
            self._check_shapes(shapes)
            self._fitting_shapes = shapes
        return arrays

    def _refuse_names(self, batch: Mapping[str, Any]) -> None:
        problems = [
            f"{entry.name!r} missing" for entry, _ in self._entries if entry.name not in batch
        ]
        problems += [f"{name!r} unknown" for name in batch if name not in self._names]
        declared = ", ".join(_declared(entry) for entry, _ in self._entries)
        raise InputError(
            f"The batch does not have the step's inputs: {', '.join(problems)}. "
            f"The step takes {declared or 'no inputs'}."
        )

    def _check_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for (entry, _), shape in zip(self._entries, shapes, strict=True):
            fits = len(shape) == len(entry.shape) and all(
                not isinstance(declared, int) or declared == size
                for declared, size in zip(entry.shape, shape, strict=True)
            )
            if not fits:
                raise InputError(
                    f"The input {entry.name!r} has shape {_listed(shape)}; the step takes "
                    f"{_listed(entry.shape)}."
                )
            for declared, size in zip(entry.shape, shape, strict=True):
                if not isinstance(declared, str):
                    continue
                first_size, first = sizes.setdefault(declared, (size, entry.name))
                if first_size != size:
                    raise InputError(
                        f"The inputs disagree in the dimension {declared!r}: {first!r} has "
                        f"{first_size}, {entry.name!r} has {size}."
                    )


def as_dtype(value: Any, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Convert a value to a dtype where that keeps its kind, e.g. float64 to float32.

    Args:
        value: an array or anything that NumPy can make one of.
        dtype: the wanted dtype.
        what: what the value is, for messages: "The input 'x'".

    Raises:
        InputError: it is no array, would change its kind (float to int, int to bool, ...), or holds
            whole numbers that the dtype cannot.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} is not an array of numbers: {error}.") from error
    if array.dtype == dtype:
        return array
    # Python's own numbers and lists have no dtype, so for them whole numbers fit by value.
    whole = array.dtype.kind in "iu" and dtype.kind in "iu"
    if not np.can_cast(array.dtype, dtype, "same_kind") and not (
        whole and not hasattr(value, "dtype")
    ):
        raise InputError(
            f"{what} has dtype {array.dtype}; {dtype.name} is needed, and the conversion would not "
            f"keep its kind. Convert it yourself if that is what you mean: "
            f".astype({dtype.name!r})."
        )
    converted = array.astype(dtype)
    if whole and not np.array_equal(converted, array):
        raise InputError(f"{what} holds whole numbers that do not fit into {dtype.name}.")
    return converted


def _declared(entry: TensorEntry) -> str:
    return f"{entry.name}: {entry.dtype}{_listed(entry.shape)}"


def _listed(shape: Sequence[Dimension]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
