"""Attention along some of several axes: those axes as one, all others as part of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.promotion import BOOL
from onnxtape.tensor import Tensor


class AttentionAxes:
    """Which axes of (batch, ..., size) are attended along.

    Args:
        given: one or several of the axes between batch and size; all of them by default.
        rank: of queries, keys and values.
        what: the layer, for messages.

    Attributes:
        trivial: whether the inputs are (batch, length, size), which need nothing of this.
    """

    def __init__(self, given: Sequence[int] | None, rank: int, what: str) -> None:
        inner = range(1, rank - 1)
        axes = list(inner) if given is None else [normalized(a, rank, what) for a in given]
        if len(set(axes)) < len(axes) or not set(axes) <= set(inner) or not axes:
            raise refused(
                f"{what}: attention_axes are axes between the batch's and the last one, "
                f"{list(inner)} here, not {tuple(given or ())}"
            )
        self._what = what
        self._attended = axes
        self._others = [a for a in inner if a not in axes]
        self.trivial = rank == 3

    @property
    def several(self) -> bool:
        """Whether more than one axis is attended along."""
        return len(self._attended) > 1

    def fold(self, x: Tensor) -> Tensor:
        """(batch, ..., size) as (batch and other axes, attended axes, size)."""
        rank = B.known_rank(x, self._what)
        moved = ops.transpose(x, [0, *self._others, *self._attended, rank - 1])
        sizes = ops.shape(x)
        return ops.reshape(moved, (-1, _product(sizes, self._attended), sizes[-1]))

    def unfold(self, y: Tensor, query: Tensor) -> Tensor:
        """What attention has made of a folded query, with the query's axes before its own."""
        sizes = ops.shape(query)
        own = ops.shape(y)[2:]
        order = [0, *self._others, *self._attended]
        apart = ops.reshape(y, (*(sizes[a] for a in order), *own))
        back = [int(a) for a in np.argsort(order)]
        return ops.transpose(apart, [*back, *range(len(order), len(order) + len(own))])

    def unfold_scores(self, scores: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """(batch, other axes, heads, the query's attended axes, the key's)."""
        of_query, of_key = ops.shape(query), ops.shape(key)
        return ops.reshape(
            scores,
            (
                *(of_query[a] for a in (0, *self._others)),
                ops.shape(scores)[1],
                *(of_query[a] for a in self._attended),
                *(of_key[a] for a in self._attended),
            ),
        )

    def fold_mask(self, mask: Any, query: Tensor, key: Tensor) -> Tensor:
        """(batch, other axes, heads, queries' axes, keys' axes) folded to four axes.

        Where heads, or they and some of the other axes, are left out, it is the same for all.
        """
        given = convert_to_tensor(mask, BOOL)
        count, others = len(self._attended), len(self._others)
        missing = others + 2 + 2 * count - B.known_rank(given, self._what)
        if not 0 <= missing <= others + 1:
            raise refused(
                f"{self._what}: attention_mask ends in the attended axes of queries and keys, "
                f"{count} each, and begins with the batch's; its shape is "
                f"{format_shape(B.shape(given))}"
            )
        for _ in range(missing):
            given = ops.expand_dims(given, -2 * count - 1)
        sizes, of_query, of_key = ops.shape(given), ops.shape(query), ops.shape(key)
        heads = sizes[others + 1]
        pairs = (_product(of_query, self._attended), _product(of_key, self._attended))
        if others:
            outside = tuple(of_query[a] for a in (0, *self._others))
            given = ops.broadcast_to(given, (*outside, *sizes[others + 1 :]))
        return ops.reshape(given, (-1, heads, *pairs))


def _product(sizes: Sequence[Any], axes: Sequence[int]) -> Any:
    total = sizes[axes[0]]
    for axis in axes[1:]:
        total = total * sizes[axis]
    return total
