"""Memory that stays with a session from run to run: how it is made, filled and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape.runtime.devices import CPU, Device, fetch
from onnxtape.runtime.dtypes import DTYPES
from onnxtape.runtime.values import bindings, ort_device

if TYPE_CHECKING:
    from numpy.typing import NDArray


def allocate(dtype: str, shape: Sequence[int], device: Device = CPU) -> Any:
    """An OrtValue with memory of its own, not initialized."""
    return bindings().OrtValue.ortvalue_from_shape_and_onnx_type(
        list(shape), DTYPES[dtype].onnx, ort_device(*device)
    )


def write(value: Any, array: NDArray[Any]) -> None:
    """Copy an array into an OrtValue of exactly its dtype and shape, which is not checked here."""
    if array.size == 0:
        return
    raw = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
    value.update_inplace(np.asarray(raw, order="C"))


def read(value: Any) -> NDArray[Any]:
    """A copy of an OrtValue."""
    return fetch(value).copy()
