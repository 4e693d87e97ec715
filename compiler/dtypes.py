"""ONNX element types and their NumPy dtypes (`ml_dtypes` for what NumPy lacks)."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np

DType = np.dtype[Any]

# onnx.TensorProto.DataType, by number, so that looking a dtype up does not import onnx.
_BY_NUMBER: dict[int, DType] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    8: np.dtype(object),  # string tensors
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    14: np.dtype(np.complex64),
    15: np.dtype(np.complex128),
    16: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype(ml_dtypes.float8_e4m3fn),
    18: np.dtype(ml_dtypes.float8_e4m3fnuz),
    19: np.dtype(ml_dtypes.float8_e5m2),
    20: np.dtype(ml_dtypes.float8_e5m2fnuz),
    21: np.dtype(ml_dtypes.uint4),
    22: np.dtype(ml_dtypes.int4),
    23: np.dtype(ml_dtypes.float4_e2m1fn),
    24: np.dtype(ml_dtypes.float8_e8m0fnu),
    25: np.dtype(ml_dtypes.uint2),
    26: np.dtype(ml_dtypes.int2),
}
_TO_NUMBER: dict[DType, int] = {dtype: number for number, dtype in _BY_NUMBER.items()}

#: The dtypes that a derivative can have.
FLOATING = frozenset(_BY_NUMBER[n] for n in (1, 10, 11, 16))


def from_onnx(number: int) -> DType:
    """The NumPy dtype of an ONNX element type; TypeError if there is none."""
    try:
        return _BY_NUMBER[int(number)]
    except KeyError:
        raise TypeError(f"ONNX element type {number} has no NumPy dtype") from None


def to_onnx(dtype: DType) -> int:
    """The ONNX element type of a NumPy dtype; TypeError if there is none."""
    try:
        return _TO_NUMBER[dtype]
    except KeyError:
        raise TypeError(f"dtype {dtype} has no ONNX element type") from None


def is_floating(dtype: DType) -> bool:
    """Whether values of this dtype can carry a derivative."""
    return dtype in FLOATING


@functools.cache
def type_string(dtype: DType) -> str:
    """The name that operator schemas use: `tensor(float)`, `tensor(int64)`, ..."""
    special = {
        "float32": "float",
        "float64": "double",
        "object": "string",
        "float4_e2m1fn": "float4e2m1",
        "float8_e8m0fnu": "float8e8m0",
    }
    return f"tensor({special.get(dtype.name, dtype.name.replace('_', ''))})"
