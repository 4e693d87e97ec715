"""What a dataset's methods are given, checked."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from onnxtape.data.structure import (
    Structure,
    leaves_with_paths,
    map_structure,
    to_arrays,
    to_numpy,
)


def integer(method: str, name: str, value: SupportsIndex, *, least: int, special: str = "") -> int:
    """The argument `name` of a method as a number of at least `least`.

    Args:
        special: what else could have been given, for the message.

    Raises:
        TypeError, ValueError: it is no integer, or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{method}: {name} must be an integer, not {value!r}") from None
    if number < least:
        wanted = f"at least {least}" + (f", or {special}" if special else "")
        raise ValueError(f"{method}: {name} must be {wanted}, not {number}")
    return number


def sliceable(tensors: Structure) -> tuple[Structure, int]:
    """The arrays of `from_tensor_slices`, read-only, and how many slices they have.

    Raises:
        ValueError: there is no array, one is a scalar, or the first dimensions differ.
        TypeError: a part is no array.
    """
    arrays = map_structure(_frozen, to_numpy(to_arrays(tensors, "from_tensor_slices")))
    lengths = {}
    for path, array in leaves_with_paths(arrays):
        if array.ndim == 0:
            raise ValueError(
                "from_tensor_slices slices along the first dimension, and the scalar "
                f"{array.item()!r}{f' at {path}' if path else ''} has none; "
                "wrap a single element in a list"
            )
        lengths[path] = len(array)
    if not lengths:
        raise ValueError(f"from_tensor_slices: there is no array in {tensors!r}")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{path} has {length}" for path, length in lengths.items())
        raise ValueError(
            f"from_tensor_slices: all parts need the same first dimension, but {listed}"
        )
    return arrays, next(iter(lengths.values()))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    # Gathering rows would copy all of a strided array, each time. Read-only, so that writing to
    # a batch that is a view is an error, not a change of the dataset.
    view = np.asarray(array, order="C").view()
    view.flags.writeable = False
    return view
