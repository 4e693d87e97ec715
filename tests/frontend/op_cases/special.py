"""Cases of `ops.special` and `ops.reals`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample

NORMAL = statistics.NormalDist()
_erfc = np.vectorize(math.erfc, otypes=[float])
INF, NAN = np.inf, np.nan


def _inverse_erf(x: float) -> float:
    if abs(x) >= 1:
        return math.copysign(INF, x) if abs(x) == 1 else NAN
    # By the smaller tail, which keeps its digits.
    return math.copysign(NORMAL.inv_cdf((1 - abs(x)) / 2), x) / math.sqrt(2) if x else 0.0


def _erfinv(x: Any) -> Any:
    return np.vectorize(lambda v: -abs(_inverse_erf(v)) if v < 0 else abs(_inverse_erf(v)))(x)


def _saturated(x: Any, dtype: str) -> Any:
    info = np.iinfo(dtype)
    return np.array([int(min(max(v, info.min), info.max)) for v in x.tolist()], dtype)


#: name -> NumPy's function, a range of arguments, whether it has a gradient.
UNARY: dict[str, tuple[Callable[..., Any], float, float, bool]] = {
    "angle": (np.angle, -2.0, 2.0, False),
    "cbrt": (np.cbrt, -9.0, 9.0, True),
    "deg2rad": (np.deg2rad, -360.0, 360.0, True),
    "erfc": (_erfc, -2.0, 3.0, True),
    "erfinv": (_erfinv, -0.97, 0.97, True),
    "exp2": (np.exp2, -4.0, 4.0, True),
    "fabs": (np.fabs, -2.0, 2.0, True),
    "i0": (np.i0, -6.0, 6.0, True),
    "rad2deg": (np.rad2deg, -3.0, 3.0, True),
    "sinc": (np.sinc, -2.0, 2.0, True),
}
#: Made of polynomials for single precision, or of what has no kernel in double precision.
NOT_DOUBLE = ("erfc", "erfinv", "i0")


def unary() -> Iterator[Case]:
    for name, (oracle, low, high, smooth) in UNARY.items():
        x = given(sample((3, 4), low, high), "float32")
        yield Case(name, [x], oracle, gradient=smooth, tolerance=1e-5)
        if name not in NOT_DOUBLE:
            x = given(sample((3,), low, high), "float64")
            yield Case(name, [x], oracle, tolerance=1e-12)
        yield Case(name, [given(sample((3,), low, high), "float16")], oracle, tolerance=4e-3)
        yield Case(name, [fixed(0, "int32")], oracle, dtype="float32")
    far = given([-9.0, -3.0, 0.0, 4.0, 6.0, 9.0], "float32")
    yield Case("erfc", [far], _erfc, tolerance=2e-5, note="tails")
    ends = given([-1.0, 1.0, 0.999, -0.9999, 0.9965, 1.5, 0.0], "float32")
    yield Case("erfinv", [ends], _erfinv, tolerance=1e-5, note="tails")
    yield Case("erfinv", [given([-0.999, 0.9995], "float32")], _erfinv, gradient=True, step=1e-7)
    yield Case("i0", [given([0.0, 3.7, 3.8, 50.0], "float32")], np.i0, tolerance=2e-6)
    yield Case("sinc", [given([0.0, 1.0, 0.5], "float32")], np.sinc, note="zero", gradient=True)
    yield Case("cbrt", [given([-8.0, 0.0, 27.0, 1e30], "float32")], np.cbrt, note="edges")
    yield Case("exp2", [given([-150.0, 127.0, 20.5, INF], "float32")], np.exp2, note="edges")
    signed = given([-1.0, -0.0, 0.0, 2.0, -INF, INF], "float32")
    yield Case("signbit", [signed], np.signbit, dtype="bool")
    yield Case("signbit", [given([-3, 0, 3], "int32")], np.signbit, dtype="bool")
    yield Case("angle", [signed], np.angle, note="edges")
    parts = given([-1.7, -0.5, 0.0, 0.5, 2.5, -INF], "float32")
    yield Case("trunc", [parts], np.trunc)
    yield Case("trunc", [given(parts.array, "float64")], np.trunc)
    yield Case("trunc", [given([-3, 4], "int32")], np.trunc)
    for name in ("real", "conj", "conjugate"):
        yield Case(name, [given(sample((2, 3)), "float32")], lambda x: x, gradient=True)
    yield Case("imag", [given([1, 2], "int64")], np.imag)
    yield Case("imag", [given(sample((2,)), "float32")], np.imag)
    yield Case("isreal", [given(sample((2,)), "float32")], np.isreal, dtype="bool")


#: name -> NumPy's function, whether it has a gradient.
BINARY: dict[str, tuple[Callable[..., Any], bool]] = {
    "arctan2": (np.arctan2, True),
    "divide_no_nan": (lambda x, y: np.where(y == 0, 0, x / np.where(y == 0, 1, y)), True),
    "fmax": (np.fmax, True),
    "fmin": (np.fmin, True),
    "fmod": (np.fmod, True),
    "heaviside": (np.heaviside, False),
    "hypot": (np.hypot, True),
    "ldexp": (lambda x, y: x * 2.0**y, True),
    "logaddexp": (np.logaddexp, True),
    "logaddexp2": (np.logaddexp2, True),
}


def binary() -> Iterator[Case]:
    edges = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 3e30, -100.0, 1e-30])
    x, y = (v.reshape(-1) for v in np.meshgrid(edges, edges))
    for name, (oracle, smooth) in BINARY.items():
        left = given(sample((3, 4)), "float32")
        right = given(sample((3, 4), 0.3, 2.0, seed=1) * [1, -1, 1, -1], "float32")
        yield Case(name, [left, right], oracle, gradient=smooth, tolerance=1e-5)
        row = fixed(right.array[0], "float32")
        yield Case(name, [left, row], oracle, gradient=smooth, tolerance=1e-5, note="broadcast")
        yield Case(name, [left, 0.7], oracle, tolerance=1e-5)
        if name != "arctan2":
            yield Case(name, [given(left.array, "float64"), given(right.array, "float64")], oracle)
        whole = name in ("fmax", "fmin", "fmod")
        pair = [given(integers((4,)), "int32"), given([2, -3, 4, 1], "int32")]
        yield Case(name, pair, oracle, dtype=None if whole else "float32", tolerance=1e-5)
        # Where Python and C differ about infinities and NaNs, C is right; not so of hypot's NaNs.
        if name in ("arctan2", "fmax", "fmin", "heaviside"):
            yield Case(name, [given(x, "float32"), given(y, "float32")], oracle, note="edges")
    ends = [given([INF, -INF, INF, NAN, -INF, 1e3], "float32")]
    ends += [given([INF, -INF, -INF, 1.0, 2.0, 1e3 - 1], "float32")]
    yield Case("logaddexp", ends, np.logaddexp, note="edges")
    yield Case("logaddexp2", ends, np.logaddexp2, note="edges")
    large = [given([3e30, 1e-30, 0.0, INF], "float32"), given([4e30, 1e-30, 0.0, 1.0], "float32")]
    yield Case("hypot", large, np.hypot, note="edges")
    tied = [given([1.0, -2.0], "float32"), given([1.0, 2.0], "float32")]
    yield Case("hypot", tied, np.hypot, gradient=True, note="ties")
    yield Case("arctan2", tied, np.arctan2, gradient=True, note="ties")
    by_zero = [given([1.0, 0.0], "float32"), given([0.0, 2.0], "float32")]
    yield Case("divide_no_nan", by_zero, BINARY["divide_no_nan"][0], note="zero")


def replacing() -> Iterator[Case]:
    values = [1.5, NAN, INF, -INF, -2.0]
    for dtype in ("float32", "float16", "float64"):
        x = given(values, dtype)
        lowest, highest = np.finfo(dtype).min, np.finfo(dtype).max

        def oracle(x: Any, low: Any = lowest, high: Any = highest) -> Any:
            return np.nan_to_num(x, posinf=high, neginf=low)

        yield Case("nan_to_num", [x], oracle)
    x = given(values, "float32")
    yield Case("nan_to_num", [x, 7.0, 8.0, -9.0], lambda x, *to: np.nan_to_num(x, True, *to))
    yield Case("nan_to_num", [given(sample((3,)), "float32")], np.nan_to_num, gradient=True)
    yield Case("nan_to_num", [given([1, 2], "int32")], np.nan_to_num)
    for dtype, numbers in (
        ("uint8", [-3.7, 0.0, 254.6, 255.0, 300.0, INF]),
        ("int32", [-3e9, 2147483520.0, 2147483648.0, 5.9, -INF]),
        ("int64", [1e30, -1e30, 7.0]),
    ):
        limit = np.iinfo(dtype)

        def clipped(x: Any, to: str, limit: Any = limit) -> Any:
            top = float(np.nextafter(np.float32(limit.max), 0)) if limit.max > 2**24 else limit.max
            return np.trunc(np.clip(x, limit.min, top)).astype(to)

        yield Case("saturate_cast", [given(numbers, "float32"), dtype], clipped, dtype=dtype)
    narrow = given([-300, -128, 5, 127, 128, 1000], "int32")
    yield Case("saturate_cast", [narrow, "int8"], _saturated, dtype="int8")
    yield Case("saturate_cast", [narrow, "uint8"], _saturated, dtype="uint8")
    yield Case(
        "saturate_cast",
        [given([1e30, -2.5], "float32"), "float16"],
        lambda x, to: np.clip(x, -65504, 65504),
        dtype="float16",
    )
    wide = given([-3, 3], "int8")
    yield Case("saturate_cast", [wide, "int64"], lambda x, to: x.astype(to), dtype="int64")
    yield Case(
        "saturate_cast",
        [given(sample((3,)), "float32"), "float32"],
        lambda x, to: x,
        gradient=True,
    )


CASES = few_compiled([*unary(), *binary(), *replacing()])
