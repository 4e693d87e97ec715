"""Cases of `ops.linear`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, fixed, given, integers, sample


def f32(shape: tuple[int, ...], seed: int = 0) -> Any:
    return fixed(sample(shape, seed=seed), "float32")


def batched(shape: tuple[int, ...]) -> Any:
    return given(sample(shape), "float32")


def matmul() -> Iterator[Case]:
    for left, right in (
        ((3, 4), (4, 2)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
    ):
        # A leading dimension shared by both grows in both.
        y = given(sample(right, seed=1), "float32") if left[:1] == right[:1] else f32(right, 1)
        yield Case("matmul", [batched(left), y], np.matmul, gradient=True)
    yield Case("matmul", [f32((4,)), f32((4,), 1)], np.matmul, gradient=True)
    yield Case("matmul", [f32((4,)), f32((4, 3), 1)], np.matmul, gradient=True)
    yield Case("matmul", [f32((4,)), f32((2, 4, 3), 1)], np.matmul, gradient=True)
    yield Case("matmul", [fixed(np.zeros((0, 3)), "float32"), f32((3, 2))], np.matmul)
    yield Case(
        "matmul",
        [fixed(np.zeros((2, 0)), "float32"), fixed(np.zeros((0, 3)), "float32")],
        np.matmul,
        note="nothing to sum",
    )
    for dtype, out in (
        ("float16", "float16"),
        ("float64", "float64"),
        ("int32", "int32"),
        ("int64", "int64"),
        ("int8", "int32"),
        ("uint8", "uint8"),
        ("bool", "bool"),
    ):
        pair = [given(integers((3, 4), 0, 3), dtype), fixed(integers((4, 2), 0, 3), dtype)]
        yield Case("matmul", pair, lambda x, y: np.matmul(x, y), dtype=out)
    mixed = [given(integers((3, 4)), "int32"), f32((4, 2))]
    yield Case("matmul", mixed, np.matmul, dtype="float32")


def products() -> Iterator[Case]:
    for left, right in (
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((), (3,)),
        ((3,), ()),
        ((3,), (2, 3, 4)),
        ((2, 5, 3), (4, 3, 2)),
    ):
        first = batched(left) if len(left) > 1 else f32(left)
        yield Case("dot", [first, f32(right, 1)], np.dot, gradient=True)
    for left, right in (((3,), (4,)), ((2, 3), (4,)), ((), (2,))):
        first = batched(left) if left else f32(left)
        yield Case("outer", [first, f32(right, 1)], np.outer, gradient=True)
    yield Case("outer", [fixed(np.zeros((0,)), "float32"), f32((2,))], np.outer)
    yield Case("outer", [given([1, 2], "int32"), fixed([3, 4], "int64")], np.outer, dtype="int64")
    for left, right, axes in (
        ((2, 3, 4), (3, 4, 5), 2),
        ((2, 3, 4), (4, 5), 1),
        ((2, 3), (4, 5), 0),
        ((2, 3, 4), (5, 4, 3), ([1, 2], [2, 1])),
        ((2, 3), (5, 3), ([1], [1])),
        ((2, 3), (5, 3), (-1, -1)),
    ):
        yield Case("tensordot", [batched(left), f32(right, 1), axes], np.tensordot, gradient=True)
    yield Case("tensordot", [fixed(np.zeros((0, 3)), "float32"), f32((3, 2)), 1], np.tensordot)
    yield Case(
        "tensordot",
        [fixed(np.zeros((2, 0)), "float32"), fixed(np.zeros((0, 3)), "float32"), 1],
        np.tensordot,
        note="nothing to sum",
    )


def sums_of_products() -> Iterator[Case]:
    for left, right in (((3,), (3,)), ((2, 3), (4, 3)), ((2, 3), (3,)), ((), (3,))):
        first = batched(left) if len(left) > 1 else f32(left)
        yield Case("inner", [first, f32(right, 1)], np.inner, gradient=True)
    for left, right in (((3,), (3,)), ((2, 3), (2, 3)), ((), ())):
        yield Case("vdot", [f32(left), f32(right, 1)], np.vdot, gradient=True)
    for name in ("inner", "vdot"):
        pair = [fixed([1, 2], "int32"), fixed([3, 4], "int64")]
        yield Case(name, pair, getattr(np, name), dtype="int64")


def einsum() -> Iterator[Case]:
    for subscripts, left, right in (
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        ("bi,i->b", (2, 3), (3,)),
        ("ij,ij->", (2, 3), (2, 3)),
        ("i,j->ij", (2,), (3,)),
        ("...i,ij->...j", (2, 4, 3), (3, 2)),
        ("ij,jk", (2, 3), (3, 4)),
    ):
        same = left[:1] == right[:1]
        y = given(sample(right, seed=1), "float32") if same else f32(right, 1)
        yield Case(
            "einsum", [subscripts, batched(left), y], np.einsum, note=subscripts, gradient=True
        )
    yield Case("einsum", ["ij->ji", batched((2, 3))], np.einsum, note="transpose")
    yield Case("einsum", ["ii->i", f32((3, 3))], np.einsum, note="diagonal")
    yield Case("einsum", ["ij->j", batched((2, 3))], np.einsum, note="sum")
    for dtype in ("float16", "float64", "int32", "int64", "uint8"):
        pair = [given(integers((2, 3), 0, 3), dtype), fixed(integers((3, 2), 0, 3), dtype)]
        yield Case("einsum", ["ij,jk->ik", *pair], np.einsum)


CASES = [*matmul(), *products(), *sums_of_products(), *einsum()]
