"""The gradient of dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


@gradient("Dropout")
def dropout(b: B, n: N, g: Any, _: Any = None) -> list[Any]:
    """g where the node kept elements, scaled as it scaled them."""
    x, ratio, training = n.required(0), n.input(1), n.input(2)
    known = None if training is None else b.constant_value(training)
    if training is None or (known is not None and not known):
        return [g]
    outputs = b.outputs_of(n, 2)
    if outputs is None:
        raise Refusal(
            "it has run without its second output, the mask of what it kept; ask for that output"
        )

    def refused() -> Any:
        raise Refusal("what it drops does not depend smoothly on its ratio")

    dtype = b.dtype(x)
    rate = b.scalar(0.5, dtype) if ratio is None else b.cast(ratio, dtype)
    scale = b.op("Reciprocal", b.op("Sub", 1.0, rate))
    if known is None:
        scale = b.op("Where", training, scale, np.ones((), dtype))
    return [b.op("Mul", g, b.op("Mul", b.cast(outputs[1], dtype), scale)), refused]
