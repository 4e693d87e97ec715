"""How a value of a graph is spread over parts of the batch."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass


class Spread(enum.Enum):
    """A value that no axis spreads.

    Attributes:
        REPLICATED: every part has the same whole value.
        PARTIAL: the parts' values have to be added up.
        GLOBAL: it is computed after all parts have run.
    """

    REPLICATED = "replicated"
    PARTIAL = "partial"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Shard:
    """A value of which each part has its samples' elements.

    Attributes:
        axis: the axis that the batch is in, of outer * batch * inner elements, row by row.
        outer, inner: what else that axis holds: (steps * batch) has steps outside of the batch,
            (batch * positions) has positions inside.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    def at(self, axis: int) -> Shard:
        """The same along another axis."""
        return Shard(axis, self.outer, self.inner)


Placement = Shard | Spread


def reshaped(shard: Shard, before: Sequence[int], after: Sequence[int], batch: int) -> Shard | None:
    """Where the batch is when a value takes another shape; None where no single axis has it.

    Args:
        before, after: the two shapes of the whole value.
        batch: the number of samples.
    """
    if 0 in before:
        return None
    groups = math.prod(before[: shard.axis]) * shard.outer
    left = groups
    for axis, size in enumerate(after):
        if left > 1 and left % size == 0 and size <= left:
            left //= size
            continue
        if size == 1 and left == 1:
            continue
        if size % (left * batch) == 0:
            return Shard(axis, left, size // (left * batch))
        return None
    return None


def local_shape(shape: Sequence[int], placement: Placement, parts: int) -> tuple[int, ...]:
    """The shape that a part has of a value."""
    if not isinstance(placement, Shard):
        return tuple(shape)
    return tuple(
        size // parts if axis == placement.axis else size for axis, size in enumerate(shape)
    )
