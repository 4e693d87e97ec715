"""Einsum: products, sums, diagonals, ellipses, implicit outputs, sizes of 1."""

from __future__ import annotations

from tests.compiler.cases.case import Case
from tests.compiler.graphs import spread

Shape = tuple[int, ...]

#: Equation and operand shapes.
EQUATIONS: list[tuple[str, list[Shape]]] = [
    # One operand: the identity, transposed, summed, diagonals, traces.
    ("ij->ij", [(2, 3)]),
    ("ij->ji", [(2, 3)]),
    ("ij->i", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iij->ij", [(2, 2, 3)]),
    ("ijij->j", [(2, 3, 2, 3)]),
    ("iii->i", [(2, 2, 2)]),
    ("ba", [(2, 3)]),
    ("bA", [(2, 3)]),
    # Two: products of vectors and matrices, with and without batches and transpositions.
    ("i,i->", [(3,), (3,)]),
    ("i,j->ij", [(2,), (3,)]),
    ("i,j", [(2,), (3,)]),
    ("i,j->", [(2,), (3,)]),
    (" ij, jk -> ik ", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,kj->ki", [(2, 3), (4, 3)]),
    ("ji,jk->ik", [(3, 2), (3, 4)]),
    ("ij,j->i", [(2, 3), (3,)]),
    ("ij,ij->ij", [(2, 3), (2, 3)]),
    ("ij,ij->", [(2, 3), (2, 3)]),
    ("ij,ij->j", [(2, 3), (2, 3)]),
    ("ij,ik->ijk", [(2, 3), (2, 4)]),
    ("bij,bjk->bik", [(2, 2, 3), (2, 3, 4)]),
    ("bhqd,bhkd->bhqk", [(2, 1, 2, 3), (2, 1, 4, 3)]),
    ("bthd,bshd->bhts", [(2, 2, 2, 2), (2, 3, 2, 2)]),
    ("btd,dhk->bthk", [(2, 2, 3), (3, 2, 2)]),
    ("bthk,hkd->btd", [(2, 2, 2, 2), (2, 2, 3)]),
    ("ij,kl->il", [(2, 3), (2, 2)]),
    # Diagonals beside another operand.
    ("ii,i->i", [(3, 3), (3,)]),
    ("ii,ij->j", [(2, 2), (2, 3)]),
    # Three and more.
    ("i,i,i->i", [(3,), (3,), (3,)]),
    ("ij,jk,kl->il", [(2, 3), (3, 2), (2, 2)]),
    ("bi,bj,ijk->bk", [(2, 2), (2, 3), (2, 3, 2)]),
    ("i,j,k,l->", [(2,), (2,), (2,), (2,)]),
    # Ellipses.
    ("...ij,...jk->...ik", [(2, 2, 3), (2, 3, 2)]),
    ("...i,...i", [(2, 3), (2, 3)]),
    ("...->...", [(2, 3)]),
    ("...i->...", [(2, 3)]),
    ("i...->...i", [(2, 3, 2)]),
    ("...ij,jk->...ik", [(2, 2, 3), (3, 2)]),
    ("...i,...j->...ij", [(2, 1, 3), (1, 2, 2)]),
    # Sizes of 1 that are broadcast, summed or not.
    ("ij,ij->ij", [(2, 1), (2, 3)]),
    ("ij,ij->i", [(1, 3), (2, 1)]),
    ("bij,bjk->bik", [(1, 2, 3), (2, 3, 2)]),
    ("bij,bjk->bik", [(2, 2, 1), (2, 3, 2)]),
    ("ij,jk->ik", [(2, 1), (1, 3)]),
    # Nothing.
    ("bi,ij->bj", [(0, 2), (2, 3)]),
    ("bij,bjk->bik", [(0, 2, 3), (0, 3, 2)]),
    ("bi,bj->ij", [(0, 2), (0, 3)]),
    (",i->i", [(), (3,)]),
]

CASES: list[Case] = [
    Case(
        "Einsum",
        [spread(s, seed=i) for i, s in enumerate(shapes)],
        {"equation": equation},
        # ONNX Runtime refuses capital letters where the result is implicit.
        portable=equation != "bA",
    )
    for equation, shapes in EQUATIONS
]
