"""Batches in memory that a GPU reads directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape import devices

if TYPE_CHECKING:
    from numpy.typing import NDArray


def empty_pinned(shape: int | Sequence[int], dtype: str = "float32") -> NDArray[Any]:
    """An array, not initialized, which the current device copies from by itself.

    On CUDA its memory is page-locked: what is copied from ordinary memory goes through such memory
    first. Fill it (`images[:] = ...`, `np.stack(..., out=images)`) and pass it to a step as any
    other array; it may be filled again when the call has returned. On other devices it is an
    ordinary array.

    Args:
        shape: of the array.
        dtype: its name.

    Raises:
        ProviderError: CUDA cannot be used, or the installed onnxruntime makes no such memory.
    """
    from onnxtape.runtime.dtypes import numpy_dtype
    from onnxtape.runtime.pinned import empty_pinned

    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    device = devices.current().device
    if device[0] != "cuda":
        return np.empty(sizes, numpy_dtype(dtype))
    return empty_pinned(sizes, dtype, device)
