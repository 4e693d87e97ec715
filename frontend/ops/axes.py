"""Axes: counted from the front, in range, each once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxtape import context
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.errors import located
from onnxtape.errors import ShapeError

#: One axis, several, or (None) all.
Axis = int | Sequence[int] | None


def refused(message: str) -> ShapeError:
    """A ShapeError that names the user's file and line."""
    return ShapeError(located(message, context.provenance()))


def normalized(axis: int, rank: int, what: str) -> int:
    """The axis counted from the front.

    Raises:
        ShapeError: it is out of range for this rank.
    """
    if not -rank <= axis < rank:
        raise refused(f"{what}: axis {axis} is out of range for a tensor of rank {rank}")
    return int(axis) % rank


def normalized_axes(axis: Axis, rank: int, what: str) -> list[int]:
    """Several axes, counted from the front, in the order given; all of them for None.

    Raises:
        ShapeError: one is out of range, or occurs twice.
    """
    if axis is None:
        return list(range(rank))
    given = [axis] if isinstance(axis, (int, np.integer)) else list(axis)
    axes = [normalized(a, rank, what) for a in given]
    if len(set(axes)) < len(axes):
        raise refused(f"{what}: an axis occurs twice in {tuple(given)}")
    return axes


def may_equal(a: Shape | None, b: Shape | None, but: int | None = None) -> bool:
    """Whether nothing that is known now keeps two shapes from being equal (`but` on one axis)."""
    if a is None or b is None:
        return True
    return len(a) == len(b) and all(
        i == but or x == y or not (isinstance(x, int) and isinstance(y, int))
        for i, (x, y) in enumerate(zip(a, b, strict=True))
    )
