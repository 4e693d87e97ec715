"""Gradients of tables of which a step reads few rows."""

from __future__ import annotations

from onnxtape.compiler.distinct_rows import Rows, distinct_rows
from onnxtape.engine import B
from onnxtape.tensor import Tensor


def rows_of(gradient: Tensor, factor: float) -> Rows | None:
    """The rows of `factor` times a gradient in a trace, if it has few; None if it has many, or is
    not known to have few."""
    context = gradient._symbolic
    if context is None:
        return None
    from onnxtape.compiler.scattered import is_sparse, scattered_rows

    found = scattered_rows(gradient._symbol)
    if found is None or not is_sparse(gradient._symbol, found[0]):
        return None
    given, rows = (Tensor._from_symbol(value, context) for value in found)
    whole = tuple(gradient.shape)
    rows = B.op("Mul", B.op("Reshape", rows, [-1, *whole[1:]]), factor)
    return distinct_rows(B, B.constant([whole[0]]), B.op("Reshape", given, [-1]), rows)
