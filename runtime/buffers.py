"""Memory that stays with a session from run to run: where it belongs, how it is filled and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxtape.runtime.dtypes import DTYPES
from onnxtape.runtime.values import bindings, ort_device, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A kind of device that Python can allocate on, and its number.
Device: TypeAlias = tuple[str, int]

CPU: Device = ("cpu", 0)
_KINDS = frozenset({"cpu", "cuda"})


def input_devices(session: Any) -> dict[str, Device | None]:
    """Where an InferenceSession reads each of its inputs; None is where Python cannot allocate.

    A value bound to an input on another device is copied there once, at binding: a later change of
    the value goes unseen. So memory that changes between runs belongs on this device, or has to be
    bound again for each run.
    """
    devices: dict[str, Device | None] = {}
    for node, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
        kind = memory.name.lower()
        devices[node.name] = (kind, memory.device_id) if kind in _KINDS else None
    return devices


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
    return to_numpy(value).copy()
