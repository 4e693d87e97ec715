"""Logs as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


def as_numbers(logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Logs with Python numbers for scalars, whatever they were; arrays for larger tensors.

    They come in the order of their names, as in Keras. A dict among them, such as the results of
    several metrics together, gives its own entries.
    """
    numbers: dict[str, Any] = {}
    for name, value in (logs or {}).items():
        if isinstance(value, Mapping):
            numbers |= as_numbers(value)
        else:
            numbers[name] = _number(value)
    return dict(sorted(numbers.items()))


def _number(value: Any) -> Any:
    if isinstance(value, (Tensor, Variable)):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        return value.item()
    if isinstance(value, Mapping):
        return as_numbers(value)
    return value


def is_bad(value: Any) -> bool:
    """Whether a logged value is NaN or infinite."""
    return not np.isfinite(np.asarray(value, np.float64)).all()
