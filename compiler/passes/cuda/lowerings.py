"""The table of operators that are written with others for CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record

#: Writes an operator with others: one value per output; None where its kernel will do.
Lowering = Callable[[Builder[Any], Record[Any]], Sequence[Any] | None]

#: Operators that compute on bfloat16 in kernels of their own. The others, comparisons among them,
#: have none on any provider, and ONNX Runtime opens no session with them.
BFLOAT16 = frozenset(
    [
        *("Abs", "Add", "Div", "Erf", "Exp", "Expand", "Gemm", "IsInf", "IsNaN"),
        *("LayerNormalization", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceMean"),
        *("ReduceSum", "Relu", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Softmax"),
        *("Sqrt", "Sub", "Sum", "Tanh", "Tile", "Trilu", "Where"),
    ]
)

_TABLE: dict[str, Lowering] = {}


def lowering(*op_types: str) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for these operators of the default domain."""

    def register(lower: Lowering) -> Lowering:
        _TABLE.update(dict.fromkeys(op_types, lower))
        return lower

    return register


def lowering_of(op_type: str) -> Lowering | None:
    """What writes an operator of the default domain with others, where that may be needed."""
    # The families register themselves on import; they import this module, so not at its top.
    from onnxtape.compiler.passes.cuda import (  # noqa: F401
        bits,
        convolution,
        elementwise,
        functions,
        indexing,
        normalization,
    )

    return _TABLE.get(op_type)
