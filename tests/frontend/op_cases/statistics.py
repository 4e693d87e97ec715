"""Cases of `ops.statistics`, of `ops.spectra` and of cumulative products."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample

X = given(sample((2, 3, 4)), "float32")
HOLES = np.where(np.arange(12).reshape(3, 4) % 5 == 1, np.nan, sample((3, 4)))
#: A row of nothing else.
LOST = np.where(np.arange(3)[:, None] == 1, np.nan, HOLES)


def quietly(oracle: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy warns where there are only NaNs."""

    def silent(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return oracle(*args, **kwargs)

    return silent


def reductions() -> Iterator[Case]:
    for name in ("amax", "amin", "ptp"):
        oracle = getattr(np, name)
        for axis in (None, 1, (0, 2)):
            yield Case(name, [X], oracle, {"axis": axis}, gradient=axis == 1)
        yield Case(name, [given(integers((3, 4)), "int32"), 0], oracle, {"keepdims": True})
    for name in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin"):
        oracle = quietly(getattr(np, name))
        for axis in (None, 0, (0, 1)):
            yield Case(name, [given(HOLES, "float32")], oracle, {"axis": axis}, note="holes")
        yield Case(name, [given(sample((3, 4)), "float32"), 1], oracle, gradient=True)
        yield Case(name, [given(LOST, "float64"), 1], oracle, {"keepdims": True}, note="lost")
        to_float = name in ("nanmean", "nanvar", "nanstd")
        whole = given(integers((3, 4)), "int32")
        yield Case(name, [whole, 0], oracle, dtype="float32" if to_float else None)
    for name in ("nanargmax", "nanargmin"):
        found = getattr(np, name)
        yield Case(name, [given(HOLES, "float32")], found, dtype="int32")
        yield Case(name, [given(HOLES, "float32"), 0], found, {"keepdims": True}, dtype="int32")
        lost = [given([[np.nan, np.nan], [1.0, 2.0]], "float32"), 1]
        yield Case(
            name,
            lost,
            lambda x, a, n=name: np.where(np.isnan(x[:, 0]), -1, int(n == "nanargmax")),
            dtype="int32",
        )
        yield Case(name, [given(integers((3, 4)), "int32"), 1], found, dtype="int32")


def order_statistics() -> Iterator[Case]:
    for name in ("median", "nanmedian"):
        oracle = quietly(getattr(np, name))
        for axis in (None, 0, -1, (0, 2)):
            yield Case(name, [X], oracle, {"axis": axis}, gradient=axis == -1)
        yield Case(name, [X, 1], oracle, {"keepdims": True})
        yield Case(name, [given(LOST, "float32"), 1], oracle, note="lost")
        yield Case(name, [given([4, 1, 9, 2], "int32")], oracle, dtype="float32")
    for name, scale in (("quantile", 1), ("nanquantile", 1), ("percentile", 100)):
        oracle = quietly(getattr(np, name))
        for method in ("linear", "lower", "higher", "midpoint", "nearest"):
            options = {"axis": 1, "method": method}
            holes = given(HOLES if name == "nanquantile" else sample((3, 5)), "float32")
            yield Case(name, [holes, 0.3 * scale], oracle, options)
        several = [0.1 * scale, 0.5 * scale, 1.0 * scale]
        yield Case(name, [X, several], oracle, {"axis": (0, 2), "keepdims": True}, note="several")
        # One element more would be a tie.
        whole = fixed(X.array, "float32")
        yield Case(name, [whole, several, None], oracle, gradient=True, note="several")
        share = fixed(0.25 * scale, "float32")
        yield Case(name, [X, share, 2], oracle, note="tensor")
        ends = given([1.0, np.inf, np.inf], "float32")
        yield Case(name, [ends, 0.75 * scale], lambda x, q: np.inf, note="infinite")
    yield Case("nanpercentile", [given(LOST, "float32"), 40, 1], quietly(np.nanpercentile))
    halves = fixed([40.0, 60.0], "float32")
    yield Case(
        "nanpercentile",
        [given(sample((2, 3)), "float32"), [40, 60], 1],
        np.nanpercentile,
        gradient=True,
    )
    yield Case("percentile", [X, halves, 1], np.percentile, note="tensor of percents")


def along() -> Iterator[Case]:
    for n, axis in ((1, -1), (2, 0), (0, 1), (2, 1)):
        deep = given(sample((4, 3)), "float32")
        yield Case("diff", [deep], np.diff, {"n": n, "axis": axis}, gradient=n == 1)
    yield Case("diff", [given([True, False, False])], np.diff)
    yield Case("diff", [given([1, 5, 2], "int64")], np.diff)
    y = given(sample((3, 4)), "float32")
    for axis in (0, 1):
        yield Case("trapezoid", [y], np.trapezoid, {"axis": axis, "dx": 0.5}, gradient=True)
    yield Case("trapezoid", [y, [0.0, 1.0, 1.5, 4.0]], np.trapezoid, gradient=True)
    places = fixed([0.0, 2.0, 2.5], "float32")
    rows = fixed(y.array, "float32")
    yield Case("trapezoid", [rows, places, 1.0, 0], np.trapezoid, note="along the first axis")
    yield Case("trapezoid", [given([1, 2, 4], "int32")], np.trapezoid, dtype="float32")
    for name, oracle in (("cumprod", np.cumprod), ("nancumprod", np.nancumprod)):
        values = given([[1.5, 0.0, -2.0], [0.5, 3.0, 1.1], [2.0, -1.0, 0.7]], "float32")
        for axis in (0, 1):
            yield Case(name, [values], oracle, {"axis": axis}, gradient=True)
        yield Case(name, [fixed(values.array, "float32")], oracle, gradient=True)
        for dtype in ("int32", "float64", "int64"):
            yield Case(name, [given([[1, 2, 3, 4]], dtype), 1], oracle)
        yield Case(name, [fixed([1, 3], "int32")], oracle, {"dtype": "float32"}, dtype="float32")
    for name in ("nancumsum", "nancumprod"):
        yield Case(name, [given(HOLES, "float32"), 1], getattr(np, name), note="holes")
    yield Case("nancumsum", [given(sample((3, 2)), "float32"), 0], np.nancumsum, gradient=True)


def _distances(x: Any, y: Any) -> Any:
    return np.sqrt(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))


def pairs() -> Iterator[Case]:
    matrix = given(sample((3, 5)), "float32")
    yield Case("corrcoef", [matrix], np.corrcoef, gradient=True, tolerance=1e-5)
    yield Case("corrcoef", [given(sample((4,)), "float32")], np.corrcoef)
    for mode in ("valid", "same", "full"):
        for sizes in ((6, 3), (3, 6), (5, 2), (2, 5), (4, 4), (4, 1)):
            vectors = [fixed(sample((n,), seed=i), "float32") for i, n in enumerate(sizes)]
            yield Case("correlate", [*vectors, mode], np.correlate, gradient=sizes == (6, 3))
    whole = [fixed([1, 2, 3], "int32"), fixed([0, 1], "int32")]
    yield Case("correlate", whole, np.correlate, dtype="float32")
    points = [given(sample((3, 2)), "float32"), fixed(sample((4, 2), seed=1), "float32")]
    yield Case("cdist", points, _distances, gradient=True)
    batch = [given(sample((2, 3, 2)), "float32"), given(sample((2, 4, 2), seed=1), "float32")]
    yield Case("cdist", batch, _distances)


def _pair(z: Any) -> list[Any]:
    return [z.real, z.imag]


def spectra() -> Iterator[Case]:
    parts = (given(sample((2, 6)), "float32"), given(sample((2, 6), seed=1), "float32"))
    deep = (given(sample((2, 3, 4)), "float32"), given(sample((2, 3, 4), seed=1), "float32"))
    vector = (fixed(sample((5,)), "float32"), fixed(sample((5,), seed=1), "float32"))
    for x in (parts, vector, deep):
        yield Case(
            "fft",
            [x],
            lambda x: _pair(np.fft.fft(x[0] + 1j * x[1])),
            gradient=x is parts,
            tolerance=1e-5,
        )
    for name, oracle in (("fft2", np.fft.fft2), ("ifft2", np.fft.ifft2)):
        for x in (deep, (fixed(parts[0].array, "float32"), fixed(parts[1].array, "float32"))):
            yield Case(
                name,
                [x],
                lambda x, f=oracle: _pair(f(x[0] + 1j * x[1])),
                gradient=x is deep,
                tolerance=1e-5,
            )
    for length in (None, 4, 9):
        yield Case(
            "rfft",
            [parts[0], length],
            lambda x, n: _pair(np.fft.rfft(x, n)),
            gradient=True,
            note=str(length),
            tolerance=1e-5,
        )
        yield Case(
            "irfft",
            [parts, length],
            lambda x, n: np.fft.irfft(x[0] + 1j * x[1], n),
            gradient=length is None,
            note=str(length),
            tolerance=1e-5,
        )
    signal = given(sample((2, 20)), "float32")
    whole = fixed(sample((17,)), "float32")
    for x, options in (
        (signal, (8, 4, 8)),
        (signal, (5, 2, 8, "hamming")),
        (whole, (4, 3, 6, None, False)),
        (whole, (4, 2, 4, [0.5, 1.0, 1.0, 0.5])),
    ):
        yield Case("stft", [x, *options], _stft, gradient=options == (8, 4, 8), tolerance=1e-5)
    # Back again: where windows overlap, the signal itself.
    for options in ((8, 4, 8), (6, 2, 8)):
        frames = tuple(fixed(part, "float32") for part in _stft(signal.array, *options))
        yield Case(
            "istft",
            [frames, *options],
            lambda x, *_, length: signal.array,
            {"length": 20},
            tolerance=1e-5,
        )
    rows = tuple(given(part, "float32") for part in _stft(signal.array, 8, 4, 8))
    yield Case("istft", [rows, 8, 4, 8], _istft, gradient=True, tolerance=1e-5)


def _hann(size: int, mean: float = 0.5) -> Any:
    return mean - (1 - mean) * np.cos(2 * np.pi * np.arange(size) / size)


def _stft(
    x: Any, size: int, stride: int, length: int, window: Any = "hann", center: bool = True
) -> list[Any]:
    """Frame by frame."""
    if isinstance(window, str):
        weights = _hann(size, {"hann": 0.5, "hamming": 0.54}[window])
    else:
        weights = np.ones(size) if window is None else np.asarray(window)
    before = (length - size) // 2
    weights = np.pad(weights, (before, length - size - before))
    if center:
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(length // 2,) * 2], "reflect")
    starts = range(0, x.shape[-1] - length + 1, stride)
    frames = np.stack([np.fft.rfft(x[..., s : s + length] * weights) for s in starts], -2)
    return _pair(frames)


def _istft(x: Any, size: int, stride: int, length: int) -> Any:
    frames = np.fft.irfft(x[0] + 1j * x[1], length) * _hann(size)
    covered = length + stride * (frames.shape[-2] - 1)
    total, norm = np.zeros((*frames.shape[:-2], covered)), np.zeros(covered)
    for i in range(frames.shape[-2]):
        total[..., i * stride : i * stride + length] += frames[..., i, :]
        norm[i * stride : i * stride + length] += _hann(size) ** 2
    middle = slice(length // 2, covered - length // 2)
    return total[..., middle] / norm[middle]


CASES = few_compiled([*reductions(), *order_statistics(), *along(), *pairs(), *spectra()])
