"""Shifts and bitwise operators, of which CUDA has none, in uint64 arithmetic.

The numbers are equal to the bit, so random streams are the same on all providers.

    x << k = x * 2^k            x >> k = x / 2^k
    x | y = x + y - (x & y)     x ^ y = x + y - 2 (x & y)

x & y is looked up byte by byte, for those bytes that may be other than zero in both. In a random
stream only half of one word is: what is exchanged by shifts has no bits in common.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

_UINT64 = np.dtype(np.uint64)
_WIDTH = 64
#: Noted on values that were lowered: the bits that may be set in them.
_MAY_BE_SET = "onnxtape.bits"
#: a & b at 256 a + b.
_BYTES = np.arange(256, dtype=np.uint8)
_TABLE = (_BYTES[:, None] & _BYTES[None, :]).reshape(-1)


@lowering("BitShift")
def bit_shift(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x, places = n.required(0), n.required(1)
    left = n.attribute("direction") == "LEFT"
    known = b.constant_value(places)
    bits = _may_be_set(b, x)
    if known is not None and known.size == 1:
        count = int(known.reshape(-1)[0])
        factor = b.constant(np.asarray(1 << count, _UINT64).reshape(known.shape))
        bits = bits << count if left else bits >> count
    else:
        powers = b.constant(np.uint64(1) << np.arange(_WIDTH, dtype=_UINT64))
        factor = b.op("Gather", powers, b.cast(places, np.dtype(np.int64)), axis=0)
        bits = -1
    return [_back(b, x, b.op("Mul" if left else "Div", _wide(b, x), factor), bits)]


@lowering("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x, y = n.required(0), n.required(1)
    in_x, in_y = _may_be_set(b, x), _may_be_set(b, y)
    wide_x, wide_y = _wide(b, x), _wide(b, y)
    if n.op_type == "BitwiseAnd":
        both = _common(b, wide_x, wide_y, in_x & in_y, 1)
        if both is None:
            both = b.op("Mul", b.op("Add", wide_x, wide_y), b.constant(np.uint64(0)))
        return [_back(b, x, both, in_x & in_y)]
    total = b.op("Add", wide_x, wide_y)
    times = 1 if n.op_type == "BitwiseOr" else 2
    both = _common(b, wide_x, wide_y, in_x & in_y, times)
    if both is not None:
        total = b.op("Sub", total, both)
    return [_back(b, x, total, in_x | in_y)]


@lowering("BitwiseNot")
def bitwise_not(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x = n.required(0)
    ones = b.constant(np.uint64((1 << _width(b, x)) - 1))
    return [_back(b, x, b.op("Sub", ones, _wide(b, x)), -1)]


def _common(b: Builder[Any], x: Any, y: Any, bits: int, times: int) -> Any:
    """`times` (x & y), if nothing but `bits` can be set in both; None if that is zero."""
    places = [place for place in range(0, _WIDTH, 8) if bits >> place & 255]
    if not places:
        return None
    weights = np.asarray([1 << place for place in places], _UINT64)
    byte = b.constant(np.uint64(256))

    def in_bytes(value: Any) -> Any:
        shifted = b.op("Div", b.op("Unsqueeze", value, [-1]), b.constant(weights))
        return b.op("Mod", shifted, byte)

    pairs = b.op("Add", b.op("Mul", in_bytes(x), byte), in_bytes(y))
    found = b.op("Gather", b.constant(_TABLE), b.cast(pairs, np.dtype(np.int64)), axis=0)
    parts = b.op("Mul", b.cast(found, _UINT64), b.constant(weights * np.uint64(times)))
    if len(places) == 1:
        return b.op("Squeeze", parts, [-1])
    # CUDA sums up uint64 in no kernel of its own.
    total, *rest = b.op_multi("Split", parts, outputs=len(places), axis=-1, num_outputs=len(places))
    for part in rest:
        total = b.op("Add", total, part)
    return b.op("Squeeze", total, [-1])


def _width(b: Builder[Any], x: Any) -> int:
    return 8 * b.dtype(x).itemsize


def _wide(b: Builder[Any], x: Any) -> Any:
    """The bits of x as uint64."""
    if b.dtype(x) == _UINT64:
        return x
    wide = b.cast(x, _UINT64)
    if b.dtype(x).kind == "i" and _width(b, x) < _WIDTH:  # the sign has filled what is above
        wide = b.op("Mod", wide, b.constant(np.uint64(1 << _width(b, x))))
    return wide


def _back(b: Builder[Any], x: Any, wide: Any, bits: int) -> Any:
    """The low bits of `wide`, of which no others than `bits` can be set, in x's dtype."""
    full = (1 << _width(b, x)) - 1
    if b.dtype(x) != _UINT64:
        if _width(b, x) < _WIDTH:
            wide = b.op("Mod", wide, b.constant(np.uint64(1 << _width(b, x))))
        wide = b.cast(wide, b.dtype(x))
    meta = getattr(wide, "meta", None)
    if meta is not None:  # of a graph's value; eagerly the numbers themselves are there
        meta[_MAY_BE_SET] = bits & full
    return wide


def _may_be_set(b: Builder[Any], x: Any) -> int:
    """The bits that can be other than zero in x."""
    noted: int | None = getattr(x, "meta", {}).get(_MAY_BE_SET)
    if noted is not None:
        return noted
    full = (1 << _width(b, x)) - 1
    known = b.constant_value(x)
    if known is None or not known.size:
        return full
    return int(np.bitwise_or.reduce(known.reshape(-1))) & full
