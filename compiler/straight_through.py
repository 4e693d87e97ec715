"""Straight-through gradients, on request: rounding passes them on as if it did nothing.

Bengio et al., arXiv:1308.3432. Through a QuantizeLinear and the DequantizeLinear behind it flows
what "fake quantization" gives in training: the gradient of x where its value fits the integers,
none where it saturates; and that of the scale after Esser et al., arXiv:1902.08153.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from onnxtape.compiler import registry
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dtypes import DType, is_floating
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal

B = Builder[Any]
N = Record[Any]

#: Whose integers carry gradients, on request.
QUANTIZERS = frozenset(["QuantizeLinear", "DynamicQuantizeLinear"])


def with_straight_through(records: Sequence[N]) -> list[N]:
    """The records, in which Round, and integers that are dequantized again, carry gradients."""
    makers: dict[int, N] = {}
    seen: list[N] = []
    for record in records:
        if record.domain or record.rule is not None:
            seen.append(record)
        elif record.op_type == "Round":
            seen.append(_with_rule(record, record.inputs, lambda b, n, g: [g]))
        elif record.op_type == "DequantizeLinear" and id(record.inputs[0]) in makers:
            seen.append(_fake_quantization(makers[id(record.inputs[0])], record))
        else:
            if record.op_type in QUANTIZERS:
                makers[id(record.outputs[0])] = record
            seen.append(record)
    return seen


def _with_rule(n: N, inputs: Sequence[Any], rule: Any) -> N:
    return Record(n.op_type, inputs, n.outputs, n.attributes, "", n.name, n.provenance, rule)


def _fake_quantization(quantizer: N, n: N) -> N:
    """Both operators as one, of x, the scale it is divided by and the one it is multiplied by."""
    dynamic = quantizer.op_type == "DynamicQuantizeLinear"
    x, zero_point = quantizer.required(0), None if dynamic else quantizer.input(2)
    divisor = quantizer.outputs[1] if dynamic else quantizer.required(1)
    grid = {k: quantizer.attributes[k] for k in ("axis", "block_size") if k in quantizer.attributes}

    def rule(b: B, _: N, g: Any) -> list[Any]:
        q, dtype = n.required(0), b.dtype(x)
        bounds = _bounds(b.dtype(q))

        def spread(number: int, zeros: Any) -> Any:
            """(number - zero point) times the scale of the place, for every place of x."""
            same = b.cast(b.full_like(x, float(number)), b.dtype(q))
            return b.cast(b.op("DequantizeLinear", same, divisor, zeros, **grid), dtype)

        unit = spread(1, None)
        steps = b.op("Div", x, unit)
        # DynamicQuantizeLinear chooses its scale so that nothing saturates.
        fits = None
        if not dynamic:
            low, high = (
                b.op("Round", b.op("Div", spread(bound, zero_point), unit)) for bound in bounds
            )
            whole = b.op("Round", steps)
            above, below = b.op("GreaterOrEqual", whole, low), b.op("LessOrEqual", whole, high)
            fits = b.cast(b.op("And", above, below), dtype)
        # By the integers, as if they were any numbers: the other scale of the place.
        factor = b.op("DequantizeLinear", _ones(b, q), n.required(1), None, **n.attributes)
        through = b.cast(b.op("Mul", g, factor), dtype)
        through = through if fits is None else b.op("Mul", through, fits)
        by_x = b.op("Div", through, unit)

        def by_divisor() -> Any:
            # d(x / s) = -(x / s) / s: DequantizeLinear's rule sums over what shares a scale.
            back = b.op("Neg", b.op("Mul", by_x, steps))
            return _by_scale(b, _ones(b, q), divisor, grid, back)

        return [by_x, by_divisor, lambda: _by_scale(b, q, n.required(1), n.attributes, g, n)]

    return _with_rule(n, (x, divisor, n.required(1)), rule)


def _ones(b: B, q: Any) -> Any:
    return b.full_like(q, 1)


def _bounds(dtype: DType) -> tuple[int, int]:
    if is_floating(dtype):
        raise Refusal("straight-through gradients go by way of integers, not of 8-bit floats")
    info: Any = np.iinfo if dtype.kind in "iu" else ml_dtypes.iinfo
    limits = info(dtype)
    return int(limits.min), int(limits.max)


def _by_scale(
    b: B, q: Any, scale: Any, attributes: Any, g: Any, dequantizer: N | None = None
) -> Any:
    """DequantizeLinear's gradient by its scale, of the node's own zero point or of none."""
    entry = registry.lookup("DequantizeLinear")
    assert entry is not None
    zero_point = None if dequantizer is None else dequantizer.input(2)
    node = Record("DequantizeLinear", (q, scale, zero_point), (g,), attributes)
    found = entry.rule(b, node, g)[1]
    return found() if callable(found) else found
