"""Gradients of tables of which a step reads few rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxtape.engine import B
from onnxtape.tensor import Tensor

INT64 = np.dtype(np.int64)


class Rows(NamedTuple):
    """A gradient that is zero but for some rows.

    Attributes:
        places: the rows' numbers, of shape (count, 1); one may be there several times.
        sums: for each of them, in one of its places the sum of all its rows, zero in the others:
            so that sum over places of f(sums) is f of the gradient for every f with f(0) = 0.
    """

    places: Tensor
    sums: Tensor


def rows_of(gradient: Tensor) -> Rows | None:
    """The rows of a gradient in a trace, if it has few; None if it has many or is not known to."""
    context = gradient._symbolic
    if context is None:
        return None
    from onnxtape.compiler.scattered import is_sparse, scattered_rows

    found = scattered_rows(gradient._symbol)
    if found is None or not is_sparse(gradient._symbol, found[0]):
        return None
    given, rows = (Tensor._from_symbol(value, context) for value in found)
    whole = tuple(gradient.shape)
    places = B.op("Reshape", given, [-1, 1])
    rows = B.op("Reshape", rows, [-1, *whole[1:]])
    numbers = B.op(
        "Range",
        B.constant(np.int64(0)),
        B.op("Squeeze", B.op("Shape", places, end=1)),
        B.constant(np.int64(1)),
    )
    # Whichever of equal places is written last stands for all of them. ONNX Runtime does this in
    # half the time that ScatterND and Gather take for single numbers.
    last = B.op("ConstantOfShape", [whole[0]], value=np.zeros(1, INT64))
    flat = B.op("Reshape", given, [-1])
    last = B.op("ScatterElements", last, flat, numbers, axis=0)
    standing = B.op("Unsqueeze", B.op("GatherElements", last, flat, axis=0), [-1])
    zeros = B.op("ConstantOfShape", B.op("Shape", rows), value=np.zeros(1, gradient.dtype))
    return Rows(places, B.op("ScatterND", zeros, standing, rows, reduction="add"))


def add_rows(table: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    """The table with rows added to those at `places`."""
    return B.op("ScatterND", table, places, rows, reduction="add")
