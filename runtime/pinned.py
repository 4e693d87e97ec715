"""Page-locked memory of the host, which CUDA reads without copying it to such memory first."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.devices import Device
from onnxtape.runtime.dtypes import DTYPES, numpy_dtype
from onnxtape.runtime.errors import ProviderError
from onnxtape.runtime.identity import identity_model
from onnxtape.runtime.providers import load_onnxruntime
from onnxtape.runtime.session import create_session
from onnxtape.runtime.values import bindings

if TYPE_CHECKING:
    from numpy.typing import NDArray


def empty_pinned(shape: Sequence[int], dtype: str, device: Device) -> NDArray[Any]:
    """An array, not initialized, that the host and a CUDA device both reach.

    Args:
        dtype: by name.
        device: the CUDA device.

    Raises:
        ProviderError: CUDA cannot be used, or this ONNX Runtime's Python makes no such memory.
    """
    make = getattr(bindings().OrtValue, _MAKE, None)
    if make is None:
        raise ProviderError(
            f"onnxruntime {load_onnxruntime().__version__} makes no pinned memory: install "
            "onnxruntime-gpu 1.31 or later, or use numpy.empty."
        )
    value = make(list(shape), DTYPES[dtype].onnx, _memory(device))
    size = value.tensor_size_in_bytes()
    if not size:
        return np.empty(shape, numpy_dtype(dtype))
    buffer = (ctypes.c_char * size).from_address(value.data_ptr())
    # Views keep the buffer, and so the value.
    buffer.owner = value
    return np.frombuffer(buffer, numpy_dtype(dtype)).reshape(shape)


_MAKE = "ortvalue_from_shape_and_onnx_type_for_memory_info"


@functools.cache
def _memory(device: Device) -> Any:
    """ONNX Runtime's name of the memory, with an arena of it that the process shares."""
    kind, number = device
    # A session loads CUDA's libraries, and says what is missing.
    create_session(identity_model(), f"{kind}:{number}")
    ort, c = load_onnxruntime(), bindings()
    # What CUDA's kernels write for the CPU is in pinned memory; Python has no other name for it.
    memory = c.OrtMemoryInfo(
        "CudaPinned", c.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, number, c.OrtMemType.CPU_OUTPUT
    )
    # 1 extends the arena by what is asked for, not by doubling.
    config = ort.OrtArenaCfg({"arena_extend_strategy": 1})
    ort.create_and_register_allocator_v2("CUDAExecutionProvider", memory, {}, config)
    return memory
