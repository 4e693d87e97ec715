"""Einsum's equations, and shapes that the library gets wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxtape.compiler.dims import Shape
from onnxtape.compiler.equations import einsum_labels
from tests.compiler.graphs import FLOAT64, new_graph

LABELS: list[tuple[str, list[int | None], list[str], str]] = [
    ("ij,jk->ik", [2, 2], ["ij", "jk"], "ik"),
    (" i j , j k -> i k ", [None, None], ["ij", "jk"], "ik"),
    # An implicit output: the indices that occur once, capitals first.
    ("ba", [2], ["ba"], "ab"),
    ("bA,b", [2, 1], ["bA", "b"], "A"),
    ("ii", [2], ["ii"], ""),
    # Dimensions of an ellipsis get letters that are free, in front of an implicit output.
    ("...i,...i", [3, 3], ["abi", "abi"], "ab"),
    ("...a->a...", [3], ["bca"], "abc"),
    ("a...,b->...b", [2, 1], ["ac", "b"], "cb"),
    ("...->...", [0], [""], ""),
    ("...i->i", [3], ["abi"], "i"),
]


@pytest.mark.parametrize(("equation", "ranks", "terms", "out"), LABELS)
def test_labels(equation: str, ranks: Sequence[int | None], terms: list[str], out: str) -> None:
    assert einsum_labels(equation, ranks) == (terms, out)


def test_more_indices_than_letters() -> None:
    with pytest.raises(ValueError, match="more indices than there are letters"):
        einsum_labels("...a->...", [53])


#: Operand shapes and the output's; None is an unknown dimension.
SIZES: list[tuple[str, list[Shape], Shape]] = [
    ("ij,ij->ij", [(2, 3), (2, 1)], (2, 3)),
    ("ij,ij->ij", [("n", 3), ("n", 3)], ("n", 3)),
    ("ij,ij->ij", [("n", 3), (4, 3)], (4, 3)),
    ("i,i->i", [("n",), ("m",)], (None,)),
    # onnx's own inference says 1 and would object to anything else.
    ("ij,ij->i", [(1, 3), (2, 3)], (None,)),
    ("...i,...i->...", [("n", 2, 3), ("n", 2, 3)], ("n", 2)),
]


@pytest.mark.parametrize(("equation", "shapes", "expected"), SIZES)
def test_shapes(equation: str, shapes: list[Shape], expected: Shape) -> None:
    _, b = new_graph()
    operands = [b.input(f"x{i}", FLOAT64, shape) for i, shape in enumerate(shapes)]
    found = b.shape(b.op("Einsum", *operands, equation=equation))
    known = {d for shape in shapes for d in shape}
    assert found is not None
    assert tuple(d if d in known else None for d in found) == expected


def test_unique_along_an_axis_keeps_the_others() -> None:
    _, b = new_graph()
    found = b.shape(b.op("Unique", b.input("x", FLOAT64, (2, "n", 3)), axis=-2))
    assert found is not None
    assert (found[0], found[2]) == (2, 3)
    assert found[1] not in (2, 3, "n")


def test_bins_of_a_one_sided_spectrum() -> None:
    """Left open by default, where onnx's own inference forgets that half of them go."""
    _, b = new_graph()
    signal, window = b.input("x", FLOAT64, (2, 9, 1)), b.input("w", FLOAT64, (4,))
    step = b.constant(np.asarray(2, np.int64))
    given = b.shape(b.op("STFT", signal, step, window, onesided=1))
    by_default = b.shape(b.op("STFT", signal, step, window))
    assert given == (2, 3, 3, 2)
    assert by_default is not None
    assert (by_default[:2], by_default[3]) == ((2, 3), 2)
    assert isinstance(by_default[2], str)
