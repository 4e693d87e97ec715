"""The dtypes in which operands meet, and in which ONNX Runtime has kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.dtypes import FLOAT32, FLOAT64, is_float, result_type
from onnxtape.engine import B, NumberTensor, convert_to_tensor
from onnxtape.tensor import Tensor

BOOL = np.dtype(np.bool_)
INT32 = np.dtype(np.int32)
INT64 = np.dtype(np.int64)
UINT32 = np.dtype(np.uint32)
UINT64 = np.dtype(np.uint64)

_WIDER: dict[np.dtype[Any], np.dtype[Any]] = {
    BOOL: INT32,
    np.dtype(np.int8): INT32,
    np.dtype(np.int16): INT32,
    np.dtype(np.uint8): INT32,
    np.dtype(np.uint16): INT32,
    UINT32: INT64,
}


def operands(*xs: Any, floating: bool = False, long: bool = False) -> list[Tensor]:
    """The operands as tensors of their common dtype.

    Args:
        floating: integers become float32.
        long: those of 64 bits become float64, as some operations of Keras have it.
    """
    numbers = [x for x in xs if _is_number(x)]
    tensors = [None if _is_number(x) else convert_to_tensor(x) for x in xs]
    dtypes = [t.dtype for t in tensors if t is not None]
    dtype = dtypes[0] if dtypes and not numbers and len(set(dtypes)) == 1 else None
    if dtype is None:
        dtype = result_type(dtypes, numbers)
    if (floating or long) and not is_float(dtype):
        dtype = FLOAT64 if long and dtype == INT64 else FLOAT32
    return [
        B.scalar(x, dtype) if t is None else (t if t.dtype == dtype else B.cast(t, dtype))
        for x, t in zip(xs, tensors, strict=True)
    ]


def numeric(*xs: Any) -> list[Tensor]:
    """Operands for arithmetic, which ONNX does not have for booleans: they count as int32."""
    tensors = operands(*xs)
    if tensors[0].dtype == BOOL:
        return [B.cast(t, INT32) for t in tensors]
    return tensors


def widened(t: Tensor) -> Tensor:
    """Small integers as int32 or int64, for operators that have no kernels for them."""
    return B.cast(t, _WIDER.get(t.dtype, t.dtype))


def _is_number(x: Any) -> bool:
    """Whether this is a Python number, which has no precision of its own.

    NumPy's float64 is one: what `np.sqrt(2.0)` gives must not make a model compute in float64.
    """
    return isinstance(x, (int, float, NumberTensor))


def in_float32(t: Tensor) -> Tensor:
    """16-bit floats as float32, for what must not lose precision; anything else as it is."""
    return B.cast(t, FLOAT32) if t.dtype.itemsize < 4 and is_float(t.dtype) else t
