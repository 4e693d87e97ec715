"""Gradients of scatters.

With reduction "none" the indices must be distinct, as ONNX requires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

B = Builder[Any]
N = Record[Any]

#: Writes updates into data with a reduction.
Scatter = Callable[[Any, Any, str], Any]
#: Reads data at the places of the updates.
Gather = Callable[[Any], Any]


@gradient("ScatterElements")
def scatter_elements(b: B, n: N, g: Any) -> list[Any]:
    indices, axis = n.required(1), n.attribute("axis", 0)

    def scatter(data: Any, updates: Any, reduction: str) -> Any:
        return b.op("ScatterElements", data, indices, updates, axis=axis, reduction=reduction)

    def gather(data: Any) -> Any:
        return b.op("GatherElements", data, indices, axis=axis)

    return _gradients(b, n, g, scatter, gather)


@gradient("ScatterND")
def scatter_nd(b: B, n: N, g: Any) -> list[Any]:
    indices = n.required(1)

    def scatter(data: Any, updates: Any, reduction: str) -> Any:
        return b.op("ScatterND", data, indices, updates, reduction=reduction)

    def gather(data: Any) -> Any:
        return b.op("GatherND", data, indices)

    return _gradients(b, n, g, scatter, gather)


def _gradients(b: B, n: N, g: Any, scatter: Scatter, gather: Gather) -> list[Any]:
    x, updates, reduction = n.required(0), n.required(2), n.attribute("reduction", "none")
    if reduction == "add":
        return [g, None, lambda: gather(g)]
    if reduction == "none":
        return [lambda: scatter(g, b.full_like(updates, 0.0), "none"), None, lambda: gather(g)]
    if reduction == "mul":
        ones = b.full_like(x, 1.0)
        return [
            lambda: b.op("Mul", g, scatter(ones, updates, "mul")),
            None,
            lambda: b.op("Mul", gather(g), _other_factors(b, x, updates, scatter, gather)),
        ]
    return _extremum(b, n, g, scatter, gather)


def _other_factors(b: B, x: Any, updates: Any, scatter: Scatter, gather: Gather) -> Any:
    """What each update is multiplied with, without dividing by zero.

    It is the product of the others that are not zero, times the one other that is zero, if there is
    one; 0 if there are more. Second derivatives are right at zeros too, third ones where no two of
    them meet.
    """
    dtype = b.dtype(x)
    zero, one = np.zeros((), dtype), np.ones((), dtype)
    is_zero = b.op("Equal", updates, 0.0)
    nonzero = b.op("Where", is_zero, one, updates)

    def of_others(values: Any) -> Any:
        """The sum of what the other updates of the same place have."""
        sums = gather(scatter(b.full_like(x, 0.0), values, "add"))
        return b.op("Sub", sums, values)

    count = of_others(b.cast(is_zero, dtype))
    single = of_others(b.op("Where", is_zero, updates, zero))
    single = b.op("Where", b.op("Equal", count, 1.0), single, zero)
    factor = b.op("Where", b.op("Equal", count, 0.0), one, single)
    return b.op("Mul", b.op("Div", gather(scatter(x, nonzero, "mul")), nonzero), factor)


def _extremum(b: B, n: N, g: Any, scatter: Scatter, gather: Gather) -> list[Any]:
    """Ties, the element of the data included, share equally, as torch.scatter_reduce does."""
    x, out = n.required(0), n.outputs[0]
    dtype = b.dtype(x)
    kept = b.cast(b.op("Equal", x, out), dtype)
    chosen = b.cast(b.op("Equal", n.required(2), gather(out)), dtype)
    share = b.op("Div", g, scatter(kept, chosen, "add"))
    return [
        lambda: b.op("Mul", kept, share),
        None,
        lambda: b.op("Mul", chosen, gather(share)),
    ]
