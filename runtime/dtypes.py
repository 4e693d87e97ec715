"""The dtypes that state and batches may have, with the names that each format gives them.

Everywhere in this room a dtype is written with NumPy's name ("float32", "bool"), and bfloat16 with
the name that ml_dtypes gives it. ml_dtypes is imported only where a bfloat16 array is made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class DType(NamedTuple):
    """One dtype.

    Attributes:
        onnx: its number in `onnx.TensorProto.DataType`.
        ort: what ONNX Runtime prints for a tensor of it.
        safetensors: its code in a safetensors header.
        size: bytes per element.
    """

    onnx: int
    ort: str
    safetensors: str
    size: int


DTYPES = {
    "float32": DType(1, "tensor(float)", "F32", 4),
    "uint8": DType(2, "tensor(uint8)", "U8", 1),
    "int8": DType(3, "tensor(int8)", "I8", 1),
    "uint16": DType(4, "tensor(uint16)", "U16", 2),
    "int16": DType(5, "tensor(int16)", "I16", 2),
    "int32": DType(6, "tensor(int32)", "I32", 4),
    "int64": DType(7, "tensor(int64)", "I64", 8),
    "bool": DType(9, "tensor(bool)", "BOOL", 1),
    "float16": DType(10, "tensor(float16)", "F16", 2),
    "float64": DType(11, "tensor(double)", "F64", 8),
    "uint32": DType(12, "tensor(uint32)", "U32", 4),
    "uint64": DType(13, "tensor(uint64)", "U64", 8),
    "bfloat16": DType(16, "tensor(bfloat16)", "BF16", 2),
}

FLOATING = frozenset({"float16", "bfloat16", "float32", "float64"})


def name_of(number: int) -> str:
    """The name of an ONNX element type, or its number where it is none of `DTYPES`."""
    for name, dtype in DTYPES.items():
        if dtype.onnx == number:
            return name
    return f"element type {number}"


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype with this name.

    Raises:
        KeyError: there is no such dtype in `DTYPES`.
        ImportError: `name` is "bfloat16" and ml_dtypes is not installed.
    """
    if name not in DTYPES:
        raise KeyError(name)
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError(
                "NumPy itself has no bfloat16: `pip install ml_dtypes` adds it."
            ) from error
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)
