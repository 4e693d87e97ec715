"""Einsum's equations."""

from __future__ import annotations

import string
from collections.abc import Sequence


def einsum_labels(equation: str, ranks: Sequence[int | None]) -> tuple[list[str], str]:
    """One letter per axis of each operand, and of the output.

    Dimensions that an ellipsis stands for get letters that the equation does not use; an implicit
    output is written out.

    Args:
        equation: as ONNX's Einsum takes it.
        ranks: of the operands; None will do for one without an ellipsis.

    Raises:
        ValueError: there are more indices than letters, or not as many operands as terms; or the
            rank of an operand with an ellipsis is unknown.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    count = 0
    for term, rank in zip(left.split(","), ranks, strict=True):
        if "..." in term:
            if rank is None:
                raise ValueError("the rank of an operand with an ellipsis is unknown")
            count = rank - len(term) + len("...")
    free = "".join(c for c in string.ascii_letters if c not in left)
    if count > len(free):
        raise ValueError("the equation has more indices than there are letters")
    if not arrow:
        letters = [c for c in left if c.isalpha()]
        right = "..." + "".join(sorted(c for c in letters if letters.count(c) == 1))
    *terms, out = (part.replace("...", free[:count]) for part in [*left.split(","), right])
    return terms, out
