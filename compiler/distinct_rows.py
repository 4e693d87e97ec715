"""Rows of which some belong to the same place: one for each place, their sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from onnxtape.compiler.builder import Builder

#: With more elements of updates, ONNX Runtime's CPU kernel of ScatterND has several threads, and
#: adds wrongly in places that are there twice. (Its cost model, ThreadPool::TryParallelFor, counts
#: a cycle for each, and takes a second thread from 210,000 on.)
SERIAL = 200_000

_INT64 = np.dtype(np.int64)


class Rows(NamedTuple):
    """Rows of a table that is zero elsewhere.

    Attributes:
        places: the rows' numbers, no two of them equal, of shape (count, 1).
        alone: the rows of the first places, which have one each.
        sums: for each of the other places the sum of all its rows.
        given: the places and rows that were added up, of which some are equal.
    """

    places: Any
    alone: Any
    sums: Any
    given: tuple[Any, Any]


def distinct_rows(b: Builder[Any], size: Any, places: Any, rows: Any) -> Rows:
    """Add up rows that belong to the same place.

    Rows that are alone in their place are passed on as they are; only the others go through a
    ScatterND, which takes the longer the more of them there are.

    Args:
        size: how many places there are, an int64 vector of one.
        places: int64, of shape (n,); numbers below zero count from the end.
        rows: of shape (n, ...).
    """
    zero = np.zeros(1, _INT64)
    count, numbers = b.dim_tensor(places, 0), b.positions(places, 0)
    nothing = b.op("ConstantOfShape", count, value=zero)
    standing = _standing(b, size, places, numbers)
    ones = b.op("ConstantOfShape", count, value=zero + 1)
    copies = b.op("ScatterElements", nothing, standing, ones, axis=0, reduction="add")
    copies = b.op("GatherElements", copies, standing, axis=0)
    shared = b.op("Greater", copies, b.constant(np.int64(1)))
    alone = _places_of(b, b.op("Not", shared))
    members = _places_of(b, shared)
    heads = _places_of(b, b.op("And", shared, b.op("Equal", standing, numbers)))
    # The groups are numbered in the order of their heads.
    group = b.op("ScatterElements", nothing, heads, b.positions(heads, 0), axis=0)
    group = b.op("Gather", group, b.op("Gather", standing, members))
    group = b.refine_shape(group, (None,))
    shape = b.op("Concat", b.op("Shape", heads), b.op("Shape", rows, start=1), axis=0)
    sums = b.op("ConstantOfShape", shape, value=np.zeros(1, b.dtype(rows)))
    if (known := b.shape(rows)) is not None:
        sums = b.refine_shape(sums, (None, *known[1:]))
    group = b.op("Unsqueeze", group, [-1])
    sums = b.op("ScatterND", sums, group, b.op("Gather", rows, members), reduction="add")
    kept = b.op("Gather", places, b.op("Concat", alone, heads, axis=0))
    kept = b.op("Unsqueeze", kept, [-1])
    return Rows(kept, b.op("Gather", rows, alone), sums, (places, rows))


def row_sums(b: Builder[Any], size: Any, places: Any, rows: Any) -> Any:
    """The same of as many rows as are given: one row of each place is their sum, others are zero.

    For kernels that add at the same place at the same time, as CUDA's do: the host need not be told
    how many different places there are.
    """
    heads = b.op("Unsqueeze", _standing(b, size, places, b.positions(places, 0)), [-1])
    nothing = b.op("ConstantOfShape", b.op("Shape", rows), value=np.zeros(1, b.dtype(rows)))
    nothing = b.refine_shape(nothing, b.shape(rows))
    return b.op("ScatterND", nothing, heads, rows, reduction="add")


def _standing(b: Builder[Any], size: Any, places: Any, numbers: Any) -> Any:
    """For each of the rows, numbered, the number of the one that stands for all of its place."""
    last = b.op("ConstantOfShape", size, value=np.zeros(1, _INT64))
    # Whichever of equal places is written last.
    last = b.op("ScatterElements", last, places, numbers, axis=0)
    return b.op("GatherElements", last, places, axis=0)


def _places_of(b: Builder[Any], mask: Any) -> Any:
    """Where a boolean vector is true; NonZero takes twice as long."""
    return b.op("Compress", b.positions(mask, 0), mask, axis=0)


def add_rows(b: Builder[Any], table: Any, rows: Rows, *, square: float | None = None) -> Any:
    """The table with rows added to it; or with the square of `square` times each.

    Not by a ScatterND that adds: ONNX Runtime's threads may run this one at the same time.
    """
    factors = [] if square is None else [b.constant(np.asarray(square, b.dtype(table)))]
    parts = (increments(b, part, *factors) for part in (rows.alone, rows.sums))
    before = b.op("Gather", table, b.op("Squeeze", rows.places, [-1]), axis=0)
    added = b.op("Concat", *parts, axis=0)
    made = b.op("ScatterND", table, rows.places, b.op("Add", before, added))
    b.note("AddedRows", [table, *rows.given, *factors], made, {})
    return made


def increments(b: Builder[Any], rows: Any, factor: Any = None) -> Any:
    """What sums of rows add to a table: the squares of the factor times each, if there is one."""
    if factor is None:
        return rows
    scaled = b.op("Mul", rows, factor)
    return b.op("Mul", scaled, scaled)
