"""Arrays of random numbers, for the tests to share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.frontend.op_cases.case import sample

Array = npt.NDArray[Any]


def floats(*shape: int, seed: int = 0) -> Array:
    """Normally distributed float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def x32(*shape: int, seed: int = 0) -> Array:
    """`sample` in float32."""
    return sample(shape, seed=seed).astype(np.float32)
