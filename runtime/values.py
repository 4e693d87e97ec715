"""NumPy arrays to OrtValues and back, without copying where the device is the CPU.

The objects handled here are ONNX Runtime's own C++ bindings (`C.OrtValue`), not its Python
wrappers: a wrapper's validation costs more than running a small operator.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.runtime.dtypes import DTYPES, numpy_dtype
from onnxtape.runtime.providers import load_onnxruntime

_BFLOAT16_NUMBER = 16
#: NumPy's kind of a dtype that it does not have itself. ml_dtypes, which brings bfloat16, is not
#: needed to train from an artifact and so is not imported here.
_EXTENSION = "V"


@functools.cache
def bindings() -> Any:
    """ONNX Runtime's extension module."""
    load_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state

    return onnxruntime_pybind11_state


@functools.cache
def ort_device(kind: str = "cpu", index: int = 0) -> Any:
    """The OrtDevice that OrtValues are made on."""
    c = bindings()
    device_type = {"cpu": c.OrtDevice.cpu, "cuda": c.OrtDevice.cuda}[kind]()
    return c.OrtDevice(device_type, c.OrtDevice.default_memory(), index)


def from_numpy(array: npt.NDArray[Any], device: Any = None) -> Any:
    """An OrtValue of the array's dtype and shape.

    On the CPU it *aliases* a C-contiguous array without keeping it alive: the caller must hold the
    array as long as the OrtValue. (An array that is not contiguous is copied.)
    """
    c = bindings()
    if array.dtype.kind == _EXTENSION:
        if not array.flags.c_contiguous:
            return copy_from_numpy(array)
        return c.OrtValue.ortvalue_from_numpy_with_onnx_type(
            array.view(np.uint16), _BFLOAT16_NUMBER
        )
    return c.OrtValue.ortvalue_from_numpy(array, ort_device() if device is None else device)


def copy_from_numpy(array: npt.NDArray[Any], kind: str = "cpu", index: int = 0) -> Any:
    """An OrtValue that owns its memory on the device, holding the array's content."""
    c = bindings()
    if array.dtype.kind == _EXTENSION:
        value = c.OrtValue.ortvalue_from_shape_and_onnx_type(
            list(array.shape), _BFLOAT16_NUMBER, ort_device(kind, index)
        )
        value.update_inplace(np.ascontiguousarray(array).view(np.uint16))
        return value
    value = c.OrtValue.ortvalue_from_shape_and_type(
        list(array.shape), array.dtype.type, ort_device(kind, index)
    )
    if array.size:
        value.update_inplace(np.ascontiguousarray(array))
    return value


def memory_for(node: Any) -> Any:
    """An OrtValue of a session's input or output of static shape (NodeArg), not initialized."""
    numbers = {dtype.ort: dtype.onnx for dtype in DTYPES.values()}
    make = bindings().OrtValue.ortvalue_from_shape_and_onnx_type
    return make(node.shape, numbers[node.type], ort_device())


def from_dlpack(tensor: Any) -> Any:
    """An OrtValue of the memory of another library's tensor, where it lies, without copying.

    Args:
        tensor: has `__dlpack__`, and is contiguous.
    """
    return bindings().OrtValue.from_dlpack(tensor.__dlpack__())


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """The content of an OrtValue on the CPU: a view of its memory, which the view keeps alive.

    `devices.fetch` is for values that may lie elsewhere.
    """
    if value.element_type() == _BFLOAT16_NUMBER:
        size = value.tensor_size_in_bytes()
        raw = (ctypes.c_char * size).from_address(value.data_ptr()) if size else b""
        return np.frombuffer(bytes(raw), dtype=numpy_dtype("bfloat16")).reshape(value.shape())
    result: npt.NDArray[Any] = value.numpy()
    return result
