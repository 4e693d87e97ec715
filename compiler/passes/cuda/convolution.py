"""Transposed convolutions that pad one side more than the other."""

from __future__ import annotations

from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

_END = 2**31 - 1


@lowering("ConvTranspose")
def conv_transpose(b: Builder[Any], n: Record[Any]) -> list[Any] | None:
    """With the lesser padding on both sides; what is too much at the ends is cut off.

    ONNX Runtime leaves others to the CPU, and those of auto_pad, whose padding follows from the
    kernel: so that the output has stride times as many places as the input.
    """
    pads = _pads(b, n)
    if pads is None:
        return None
    rank = len(pads) // 2
    begins, ends = pads[:rank], pads[rank:]
    lesser = [min(pair) for pair in zip(begins, ends, strict=True)]
    if begins == ends and _auto_pad(n) == "NOTSET":
        return None
    attributes = {
        name: value for name, value in n.attributes.items() if name not in ("auto_pad", "pads")
    }
    attributes["pads"] = [*lesser, *lesser]
    inputs = list(n.inputs)
    (whole,) = b.emit("ConvTranspose", inputs, attributes)
    first = [begin - less for begin, less in zip(begins, lesser, strict=True)]
    last = [less - end or _END for end, less in zip(ends, lesser, strict=True)]
    if not any(first) and all(end == _END for end in last):
        return [whole]
    return [b.op("Slice", whole, first, last, list(range(2, rank + 2)))]


def _auto_pad(n: Record[Any]) -> str:
    return str(n.attribute("auto_pad", "NOTSET"))


def _pads(b: Builder[Any], n: Record[Any]) -> list[int] | None:
    """The padding before and after, axis by axis; None where it depends on the input's size."""
    if n.attribute("output_shape"):
        return None
    kernel = b.shape(n.required(1))
    if not is_static(kernel):
        return None
    sizes, rank = kernel[2:], len(kernel) - 2
    auto = _auto_pad(n)
    if auto == "NOTSET":
        return list(n.attribute("pads") or [0] * (2 * rank))
    if auto == "VALID":
        return [0] * (2 * rank)
    strides = n.attribute("strides") or [1] * rank
    dilations = n.attribute("dilations") or [1] * rank
    more = n.attribute("output_padding") or [0] * rank
    parameters = zip(sizes, strides, dilations, more, strict=True)
    totals = [(size - 1) * d + 1 + extra - s for size, s, d, extra in parameters]
    if any(total < 0 for total in totals):
        return None
    less = [total // 2 for total in totals]
    rest = [total - half for total, half in zip(totals, less, strict=True)]
    return [*less, *rest] if auto == "SAME_UPPER" else [*rest, *less]
