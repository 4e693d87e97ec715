"""Cases of `ops.pooling`; the oracle takes window after window in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, given, sample


def pooled(reduce: Callable[..., Any]) -> Callable[..., Any]:
    """The pooling that reduces each window with `reduce`, which skips NaN."""

    def pool(
        x: Any, size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None
    ) -> Any:
        if data_format == "channels_first":
            return np.moveaxis(pool(np.moveaxis(x, 1, -1), size, strides, padding), -1, 1)
        rank = x.ndim - 2
        window = [size] * rank if isinstance(size, int) else list(size)
        steps = window if strides is None else strides
        steps = [steps] * rank if isinstance(steps, int) else list(steps)
        counts, widths = [], [(0, 0)]
        for n, w, s in zip(x.shape[1:-1], window, steps, strict=True):
            counts.append(-(-n // s) if padding == "same" else (n - w) // s + 1)
            total = max((counts[-1] - 1) * s + w - n, 0)
            widths.append((total // 2, total - total // 2))
        padded = np.pad(x, [*widths, (0, 0)], constant_values=np.nan)
        y = np.zeros((x.shape[0], *counts, x.shape[-1]))
        for place in np.ndindex(*counts):
            starts = [p * s for p, s in zip(place, steps, strict=True)]
            seen = tuple(slice(a, a + w) for a, w in zip(starts, window, strict=True))
            elements = padded[(slice(None), *seen)]
            y[(slice(None), *place)] = reduce(elements, axis=tuple(range(1, rank + 1)))
        return y

    return pool


ORACLES = {"max_pool": pooled(np.nanmax), "average_pool": pooled(np.nanmean)}


def _cases() -> Iterator[Case]:
    for op, oracle in ORACLES.items():
        image = given(sample((2, 4, 5, 2)), "float32")
        for args in [(2,), ((2, 3), 1), ((1, 2), (2, 3), "same"), (3, 2, "same")]:
            yield Case(op, [image, *args], oracle, gradient=True)
        fills = given(sample((1, 4, 6, 1)), "float32")
        yield Case(op, [fills, (2, 3), None, "same"], oracle, gradient=True, note="fills")
        yield Case(op, [given(sample((2, 5, 1)), "float32"), 2], oracle, gradient=True)
        deep = given(sample((1, 2, 4, 3, 1)), "float32")
        yield Case(op, [deep, 2], oracle, gradient=True)
        first = given(sample((1, 2, 4, 3)), "float32")
        yield Case(op, [first, 2], oracle, {"data_format": "channels_first"}, gradient=True)


CASES: list[Case] = [*_cases()]
