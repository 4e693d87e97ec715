"""Cases of `ops.matrices` and `ops.windows`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample


def triangles() -> Iterator[Case]:
    x = given(sample((2, 3, 4)), "float32")
    for name, oracle in (("tril", np.tril), ("triu", np.triu)):
        for k in (0, 1, -2, 9):
            yield Case(name, [x, k], oracle, gradient=k < 2, note=str(k))
        for dtype in ("int32", "int64", "bool", "float16", "float64", "uint8"):
            yield Case(name, [given(integers((3, 3)), dtype)], oracle)
    for size in ((3,), (2, 4), (4, 2, 1), (3, 3, -1)):
        yield Case("tri", list(size), np.tri, dtype="float32", note=str(size))
    yield Case("tri", [2], np.tri, {"dtype": "int32"}, dtype="int32")
    yield Case("identity", [3], np.identity, dtype="float32")
    yield Case("identity", [2], np.identity, {"dtype": "int64"}, dtype="int64")


def diagonals() -> Iterator[Case]:
    x = given(sample((3, 4)), "float32")
    for k in (0, 1, -1, 3, -2):
        yield Case("diagonal", [x, k], np.diagonal, gradient=k > -2, note=str(k))
        yield Case("diag", [x, k], np.diag, gradient=k == 1, note=str(k))
        yield Case("diag", [given(sample((3,)), "float32"), k], np.diag, gradient=abs(k) < 2)
        yield Case("trace", [x, k], np.trace, gradient=k == 0, note=str(k))
    deep = given(sample((2, 3, 4)), "float32")
    for axes in ((0, 1), (1, 2), (-1, 0)):
        yield Case("diagonal", [deep, 0, *axes], np.diagonal, gradient=axes == (1, 2))
        yield Case("trace", [deep, 1, *axes], np.trace, note=str(axes))
    for k in (5, -9):
        yield Case("diagonal", [fixed(sample((3, 4)), "float32"), k], np.diagonal, note="none")
    for dtype in ("int32", "bool", "float64", "int8"):
        yield Case("diag", [given(integers((3,)), dtype)], np.diag)
        yield Case("diagonal", [given(integers((3, 3)), dtype)], np.diagonal)
    yield Case("trace", [given(integers((3, 3)), "int8")], np.trace, dtype="int32")
    yield Case("diagflat", [given(sample((2, 2)), "float32"), 1], np.diagflat, gradient=True)
    yield Case("diagflat", [fixed(3, "int32")], np.diagflat)


def products() -> Iterator[Case]:
    vectors = given(sample((3,), 0.5, 2.0), "float32")
    yield Case("vander", [vectors, 4], np.vander, gradient=True)
    yield Case("vander", [vectors, 3, True], np.vander, note="increasing")
    yield Case("vander", [fixed([1, 2, 3], "int32")], np.vander)
    for left, right in (((2, 2), (2, 3)), ((3,), (2,)), ((2, 1, 2), (3, 2)), ((), (2,))):
        pair = [given(sample(left), "float32"), fixed(sample(right, seed=1), "float32")]
        yield Case("kron", pair, np.kron, gradient=True)
    yield Case("kron", [given([[1, 2]], "int32"), fixed([[3], [4]], "int32")], np.kron)
    pair = [given(sample((2, 3)), "float32"), given(sample((2, 3), seed=1), "float32")]
    yield Case("cross", pair, np.cross, gradient=True)
    yield Case("cross", [pair[0], fixed([1.0, 2.0, 3.0], "float32")], np.cross, gradient=True)
    columns = [fixed(sample((3, 2)), "float32"), fixed(sample((3, 2), seed=1), "float32")]
    yield Case("cross", columns, np.cross, {"axis": 0}, gradient=True)
    flat = [given(sample((2, 2)), "float32"), given(sample((2, 2), seed=1), "float32")]
    yield Case("cross", flat, lambda x, y: x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0], gradient=True)
    mixed = [fixed([1, 2], "int32"), fixed([3, 4, 5], "int32")]
    yield Case("cross", mixed, lambda x, y: np.cross(np.append(x, 0), y), note="2 and 3")


def windows() -> Iterator[Case]:
    for name in ("bartlett", "blackman", "hamming", "hanning"):
        for size in (1, 6, 7):
            yield Case(name, [size], getattr(np, name), dtype="float32")
    yield Case("kaiser", [7, 8.6], np.kaiser, dtype="float32")


CASES = few_compiled([*triangles(), *diagonals(), *products(), *windows()])
