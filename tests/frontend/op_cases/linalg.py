"""Cases of `ops.linalg` and of greatest common divisors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample

#: Elimination loses some digits.
LOOSE = 5e-5


def positive(shape: tuple[int, ...]) -> Any:
    x = sample(shape)
    return x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])


def _slogdet(x: Any) -> list[Any]:
    return list(np.linalg.slogdet(x))


def _logdet(x: Any) -> Any:
    sign, logs = np.linalg.slogdet(x)
    return np.where(sign < 0, np.nan, logs)


def elimination() -> Iterator[Case]:
    x = given(sample((2, 3, 3)), "float32")
    # Its first pivot is 0: rows have to change places.
    turned = fixed([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [4.0, -3.0, 8.5]], "float32")
    singular = fixed([[1.0, 2.0], [2.0, 4.0]], "float32")
    for name, oracle in (("det", np.linalg.det), ("slogdet", _slogdet), ("logdet", _logdet)):
        for matrices in (x, turned):
            # Differences of NaNs are none: below are matrices whose logdet is not one.
            yield Case(name, [matrices], oracle, tolerance=LOOSE, gradient=name != "logdet")
        yield Case(name, [given(x.array, "float64")], oracle, tolerance=1e-10)
        yield Case(name, [singular], oracle, note="singular")
    yield Case(
        "logdet", [fixed(positive((4, 4)), "float32")], _logdet, gradient=True, tolerance=LOOSE
    )
    for matrices in (x, turned):
        yield Case("inv", [matrices], np.linalg.inv, tolerance=LOOSE, gradient=True)
    yield Case("inv", [fixed([[2]], "int32")], np.linalg.inv, dtype="float32")
    right = fixed(sample((3, 2), seed=1), "float32")
    yield Case("solve", [turned, right], np.linalg.solve, tolerance=LOOSE, gradient=True)
    yield Case("solve", [x, right], np.linalg.solve, tolerance=LOOSE, gradient=True)
    vector = fixed(sample((3,), seed=1), "float32")
    yield Case("solve", [turned, vector], np.linalg.solve, tolerance=LOOSE, gradient=True)
    scaled = fixed(sample((12, 12)) * 10.0 ** np.arange(-6, 6), "float64")
    many = fixed(sample((12, 1), seed=2), "float64")
    yield Case("solve", [scaled, many], np.linalg.solve, tolerance=1e-9, note="badly scaled")


def triangles() -> Iterator[Case]:
    x = given(sample((2, 3, 3)) + 3 * np.eye(3), "float32")
    right = fixed(sample((3, 2), seed=1), "float32")

    def oracle(a: Any, b: Any, lower: bool = False) -> Any:
        return np.linalg.solve(np.tril(a) if lower else np.triu(a), b)

    for lower in (False, True):
        options = {"lower": lower}
        yield Case("solve_triangular", [x, right], oracle, options, tolerance=LOOSE, gradient=True)
        vector = [fixed(x.array[0], "float32"), fixed([1.0, 2.0, 3.0], "float32")]
        yield Case("solve_triangular", vector, oracle, options, tolerance=LOOSE)

    def lower_triangle(x: Any, upper: bool = False) -> Any:
        # Differences move one triangle: the lower one is the one that counts.
        low = np.tril(x)
        found = np.linalg.cholesky(low + np.swapaxes(np.tril(x, -1), -1, -2))
        return np.swapaxes(found, -1, -2) if upper else found

    matrices = given(positive((2, 3, 3)), "float32")
    for upper in (False, True):
        options = {"upper": upper}
        yield Case("cholesky", [matrices], lower_triangle, options, tolerance=LOOSE, gradient=True)

        def inverse(x: Any, upper: bool) -> Any:
            t = np.triu(x).swapaxes(-1, -2) if upper else np.tril(x)
            return np.linalg.inv(t @ t.swapaxes(-1, -2))

        yield Case("cholesky_inverse", [x], inverse, options, tolerance=LOOSE, gradient=True)
    yield Case("cholesky", [fixed([[4.0]], "float32")], lower_triangle, note="one")


def divisors() -> Iterator[Case]:
    edges = [0, 0, 12, -18, 35, 64, -7]
    others = [0, 5, 18, 12, 64, 35, 0]
    for name, oracle in (("gcd", np.gcd), ("lcm", np.lcm)):
        for dtype in ("int32", "int64"):
            yield Case(name, [given(edges, dtype), given(others, dtype)], oracle)
        unsigned = [given(np.abs(edges), "uint8"), given(np.abs(others), "uint8")]
        yield Case(name, unsigned, lambda x, y, f=oracle: f(x, y).astype("uint8"))
        pair = [given(integers((3, 2), 1, 99), "int32"), 12]
        yield Case(name, pair, oracle)


CASES = few_compiled([*elimination(), *triangles(), *divisors()])
