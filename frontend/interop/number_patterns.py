"""Arrays of which their numbers tell that nothing trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx


def is_position_code(array: npt.NDArray[Any]) -> bool:
    """Whether each column of a table is a sinusoid of the row's number, but for one offset.

    Frameworks write the codes of positions (https://arxiv.org/abs/1706.03762, 3.5) as parameters
    that are not trained, and exporters do not note that. Of a sinusoid x about an offset m, the
    second differences are s = -c (x - m); so those of neighbours, s' (x - m) = s (x' - m).
    """
    table = array.reshape(array.shape[1:]) if array.ndim == 3 and len(array) == 1 else array
    if table.ndim != 2 or len(table) < 4 or table.shape[1] < 2:
        return False
    x = table[:64].astype(np.float64)
    scale = float(np.abs(x).max())
    bend = np.diff(x, 2, axis=0)
    if not np.abs(bend).max() > 0.01 * scale:  # Nothing, or no numbers.
        return False
    slope = np.diff(bend, axis=0)
    value = bend[1:] * x[1:-2] - bend[:-1] * x[2:-1]
    if not slope.any():
        return False
    offset = (slope * value).sum() / (slope * slope).sum()
    return bool(np.abs(value - offset * slope).max() < 1e-5 * scale**2)


def is_grid(tensor: onnx.TensorProto) -> bool:
    """Whether a vector is a scale of evenly spaced numbers, as of radial functions."""
    import onnx

    if len(tensor.dims) != 1 or tensor.dims[0] < 4:
        return False
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind != "f":
        return False
    steps = np.diff(array.astype(np.float64))
    return steps[0] != 0 and bool(np.ptp(steps) < 1e-5 * np.abs(array).max())
