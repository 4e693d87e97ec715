"""Operators that take no bfloat16, which are those that do only since opset 22."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dtypes import is_floating
from onnxtape.tensor import Tensor

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_FLOAT32 = np.dtype(np.float32)

#: Those that were met so far.
WITHOUT_BFLOAT16: set[str] = set()


def all_bfloat16(inputs: Sequence[Tensor | None]) -> bool:
    """Whether there are floats among the inputs, and all of them are bfloat16."""
    floats = {x.dtype for x in inputs if x is not None and is_floating(x.dtype)}
    return floats == {_BFLOAT16}


def in_float32(
    builder: Builder[Tensor],
    emit: Callable[..., tuple[Tensor, ...]],
    op_type: str,
    inputs: Sequence[Tensor | None],
    attributes: dict[str, Any],
    outputs: int,
) -> tuple[Tensor, ...]:
    """Apply an operator in float32, and round its results to bfloat16."""
    wide = [
        builder.cast(x, _FLOAT32) if x is not None and x.dtype == _BFLOAT16 else x for x in inputs
    ]
    results = emit(op_type, wide, attributes, outputs)
    return tuple([builder.cast(r, _BFLOAT16) if r.dtype == _FLOAT32 else r for r in results])
