"""Dtype promotion, as Keras 3 does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
_FLOATS = (
    np.dtype(np.float16),
    np.dtype(ml_dtypes.bfloat16),
    FLOAT32,
    FLOAT64,
)


def is_float(dtype: np.dtype[Any]) -> bool:
    return dtype in _FLOATS


def _is_fractional(number: Any) -> bool:
    """Whether this is a float, or the input that brings one."""
    return isinstance(number, float) or (hasattr(number, "dtype") and is_float(number.dtype))


def result_type(dtypes: Sequence[np.dtype[Any]], numbers: Sequence[Any] = ()) -> np.dtype[Any]:
    """The dtype in which operands meet.

    Args:
        dtypes: of the tensor operands.
        numbers: the Python numbers among the operands. They carry no precision: an int takes any
            numeric dtype, a float any floating-point one and float32 beside integers. So do those
            that are inputs of a compiled step.

    float16 and bfloat16 meet in float32; integers give way to any float.
    """
    floats = [d for d in dtypes if is_float(d)]
    if floats:
        if len(set(floats)) == 1:
            return floats[0]
        widest = max(floats, key=_FLOATS.index)
        return widest if _FLOATS.index(widest) >= 2 else FLOAT32
    if any(map(_is_fractional, numbers)):
        return FLOAT32
    if not dtypes:
        return np.dtype(bool) if all(isinstance(n, bool) for n in numbers) else np.dtype(np.int32)
    if all(d == np.bool_ for d in dtypes) and any(not isinstance(n, bool) for n in numbers):
        return np.dtype(np.int32)
    common = np.result_type(*dtypes)
    # NumPy lets int64 and uint64 meet in float64; Keras has no such wide float.
    return FLOAT32 if common.kind == "f" else common
