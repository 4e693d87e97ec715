"""Functions of one number that CUDA has no kernels for, in float32 at least."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.passes.cuda.lowerings import lowering
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]
_FLOAT32 = np.dtype(np.float32)


@lowering("Celu")
def celu(b: Builder[Any], n: Record[Any]) -> list[Any]:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    x, alpha = n.required(0), n.attribute("alpha", 1.0)
    below = b.op("Mul", b.op("Sub", b.op("Exp", b.op("Div", x, alpha)), 1.0), alpha)
    zero = b.constant(np.zeros((), b.dtype(x)))
    return [b.op("Add", b.op("Max", x, zero), b.op("Min", below, zero))]


@lowering("Tan")
def tan(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x = n.required(0)
    return [b.op("Div", b.op("Sin", x), b.op("Cos", x))]


@lowering("Cosh")
def cosh(b: Builder[Any], n: Record[Any]) -> list[Any]:
    x = n.required(0)
    both = b.op("Add", b.op("Exp", x), b.op("Exp", b.op("Neg", x)))
    return [b.op("Mul", both, 0.5)]


@lowering("Sinh")
def sinh(b: B, n: N) -> list[Any]:
    """2 t / (1 - t^2) with t = tanh(x / 2) for small x; otherwise by exponentials, whose difference
    has no digits there. e^|x| in two factors, as it is infinite before sinh is."""
    x = _wide(b, n)
    t = b.op("Tanh", b.op("Mul", x, 0.5))
    small = b.op("Div", b.op("Add", t, t), b.op("Sub", 1.0, b.op("Mul", t, t)))
    size = b.op("Abs", x)
    root = b.op("Exp", b.op("Mul", size, 0.5))
    half = b.op("Mul", root, 0.5)
    large = b.op("Sub", b.op("Mul", half, root), b.op("Div", b.op("Div", 0.5, root), root))
    return _back(b, n, _where(b, "Less", size, 1.0, small, b.op("Mul", large, b.op("Sign", x))))


@lowering("Asinh")
def asinh(b: B, n: N) -> list[Any]:
    """log(|x| + sqrt(x^2 + 1)) as log(1 + ...), and log(2 |x|) where squares would be too large."""
    x = _wide(b, n)
    size = b.op("Abs", x)
    square = b.op("Mul", size, size)
    root = b.op("Sqrt", b.op("Add", square, 1.0))
    more = b.op("Add", size, b.op("Div", square, b.op("Add", root, 1.0)))
    found = _where(b, "Less", size, _large(b, x), _log_of_more(b, more), _log_of_twice(b, size))
    return _back(b, n, b.op("Mul", found, b.op("Sign", x)))


@lowering("Acosh")
def acosh(b: B, n: N) -> list[Any]:
    """log(x + sqrt(x^2 - 1)) = log(1 + t + sqrt(t) sqrt(t + 2)) with t = x - 1."""
    x = _wide(b, n)
    t = b.op("Sub", x, 1.0)
    root = b.op("Mul", b.op("Sqrt", t), b.op("Sqrt", b.op("Add", t, 2.0)))
    more = b.op("Add", t, root)
    found = _where(b, "Less", x, _large(b, x), _log_of_more(b, more), _log_of_twice(b, x))
    return _back(b, n, found)


@lowering("Atanh")
def atanh(b: B, n: N) -> list[Any]:
    """log(1 + 2 |x| / (1 - |x|)) / 2."""
    x = _wide(b, n)
    size = b.op("Abs", x)
    more = b.op("Div", b.op("Add", size, size), b.op("Sub", 1.0, size))
    half = b.op("Mul", _log_of_more(b, more), 0.5)
    return _back(b, n, b.op("Mul", half, b.op("Sign", x)))


@lowering("Atan")
def atan(b: B, n: N) -> list[Any]:
    return _back(b, n, _atan(b, _wide(b, n)))


@lowering("Asin")
def asin(b: B, n: N) -> list[Any]:
    """atan(x / sqrt(1 - x^2))."""
    x = _wide(b, n)
    root = b.op("Sqrt", b.op("Mul", b.op("Sub", 1.0, x), b.op("Add", 1.0, x)))
    return _back(b, n, _atan(b, b.op("Div", x, root)))


@lowering("Acos")
def acos(b: B, n: N) -> list[Any]:
    """2 atan(sqrt((1 - x) / (1 + x)))."""
    x = _wide(b, n)
    root = b.op("Sqrt", b.op("Div", b.op("Sub", 1.0, x), b.op("Add", 1.0, x)))
    return _back(b, n, b.op("Mul", _atan(b, root), 2.0))


def _atan(b: B, x: Any) -> Any:
    """Of 1 / |x| above 1; of half the angle twice, atan(r) = 2 atan(r / (1 + sqrt(1 + r^2))), which
    leaves at most tan(pi / 16) for the series."""
    size = b.op("Abs", x)
    r = _where(b, "Greater", size, 1.0, b.op("Reciprocal", size), size)
    for _ in range(2):
        root = b.op("Sqrt", b.op("Add", b.op("Mul", r, r), 1.0))
        r = b.op("Div", r, b.op("Add", root, 1.0))
    square = b.op("Mul", r, r)
    # 0.2^2k / (2k + 1) is then below a unit in the last place.
    terms = 6 if b.dtype(x) == _FLOAT32 else 12
    total: Any = (-1.0) ** terms / (2 * terms + 1)
    for k in reversed(range(terms)):
        total = b.op("Add", b.op("Mul", square, total), (-1.0) ** k / (2 * k + 1))
    angle = b.op("Mul", b.op("Mul", r, total), 4.0)
    angle = _where(b, "Greater", size, 1.0, b.op("Sub", math.pi / 2, angle), angle)
    return b.op("Mul", angle, b.op("Sign", x))


def _log_of_more(b: B, x: Any) -> Any:
    """log(1 + x), with what 1 + x has lost of x made good to the first order."""
    whole = b.op("Add", x, 1.0)
    lost = b.op("Sub", x, b.op("Sub", whole, 1.0))
    log = b.op("Log", whole)
    better = b.op("Add", log, b.op("Div", lost, whole))
    # Where nothing is lost, x may be infinite, or -1.
    return _where(b, "Greater", b.op("Abs", lost), 0.0, better, log)


def _log_of_twice(b: B, x: Any) -> Any:
    return b.op("Add", b.op("Log", x), math.log(2))


def _large(b: B, x: Any) -> float:
    """From where on 1 / x^2 is below a unit in the last place of a logarithm."""
    return 1e4 if b.dtype(x) == _FLOAT32 else 1e8


def _where(b: B, comparison: str, x: Any, limit: float, one: Any, other: Any) -> Any:
    chosen = b.op(comparison, x, b.constant(np.asarray(limit, b.dtype(x))))
    return b.op("Where", chosen, one, other)


def _wide(b: B, n: N) -> Any:
    """The operand, in float32 if it has 16 bits."""
    x = n.required(0)
    return x if b.dtype(x).itemsize > 2 else b.cast(x, _FLOAT32)


def _back(b: B, n: N, made: Any) -> list[Any]:
    return [b.cast(made, b.dtype(n.required(0)))]
