"""Gradients of elementwise arithmetic and of the elementary functions.

Where a derivative does not exist (ties, kinks, zero bases), the value is PyTorch's, and the rule
says so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient, zero_gradient

B = Builder[Any]
N = Record[Any]

zero_gradient("Floor", "Ceil", "Round", "Sign", because="piecewise constant")


@gradient("Identity")
def identity(b: B, n: N, g: Any) -> list[Any]:
    return [g]


@gradient("Cast")
def cast(b: B, n: N, g: Any) -> list[Any]:
    return [b.cast(g, b.dtype(n.required(0)))]


@gradient("CastLike")
def cast_like(b: B, n: N, g: Any) -> list[Any]:
    return [b.cast(g, b.dtype(n.required(0))), None]


@gradient("Add", broadcasts=True)
def add(b: B, n: N, g: Any) -> list[Any]:
    return [g, g]


@gradient("Sub", broadcasts=True)
def sub(b: B, n: N, g: Any) -> list[Any]:
    return [g, lambda: b.op("Neg", g)]


@gradient("Mul", broadcasts=True)
def mul(b: B, n: N, g: Any) -> list[Any]:
    x, y = n.inputs
    return [lambda: b.op("Mul", g, y), lambda: b.op("Mul", g, x)]


@gradient("Div", broadcasts=True)
def div(b: B, n: N, g: Any) -> list[Any]:
    y, out = n.required(1), n.outputs[0]
    return [
        lambda: b.op("Div", g, y),
        lambda: b.op("Neg", b.op("Div", b.op("Mul", g, out), y)),
    ]


@gradient("Neg")
def neg(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Neg", g)]


@gradient("Pow", broadcasts=True)
def pow_(b: B, n: N, g: Any) -> list[Any]:
    """x^y. As PyTorch: a zero exponent gives x no gradient; a zero base gives y none for y >= 0."""
    x, y, out = n.required(0), n.required(1), n.outputs[0]
    dtype = b.dtype(x)

    def dx() -> Any:
        exponent = b.constant_value(y)
        if exponent is not None and exponent.size == 1:
            e = float(exponent.reshape(()))
            if e == 0.0:
                return b.full_like(x, 0.0)
            if e == 1.0:
                return g
            if e == 2.0:
                return b.op("Mul", g, b.op("Mul", x, 2.0))
            return b.op("Mul", g, b.op("Mul", b.op("Pow", x, b.scalar(e - 1, dtype)), e))
        # 0 * 0^-1 would be NaN: at 0^0 another base is put in place before the power is taken.
        p = b.cast(y, dtype)
        zeros = b.op("And", b.op("Equal", x, 0.0), b.op("Equal", p, 0.0))
        base = b.op("Where", zeros, np.ones((), dtype), x)
        return b.op("Mul", g, b.op("Mul", p, b.op("Pow", base, b.op("Sub", p, 1.0))))

    def dy() -> Any:
        if not is_floating(b.dtype(y)):
            return None
        # The logarithm of a zero base is replaced before it is taken: 0 * -inf would be NaN.
        p = b.cast(y, dtype)
        zero_base = b.op("And", b.op("Equal", x, 0.0), b.op("GreaterOrEqual", p, 0.0))
        log = b.op("Log", b.op("Where", zero_base, np.ones((), dtype), x))
        return b.cast(b.op("Mul", g, b.op("Mul", out, log)), b.dtype(y))

    return [dx, dy]


@gradient("Mod", broadcasts=True)
def mod(b: B, n: N, g: Any) -> list[Any]:
    """fmod(x, y) = x - trunc(x / y) * y, differentiated where it is continuous."""
    x, y, out = n.required(0), n.required(1), n.outputs[0]
    return [
        g,
        lambda: b.op("Neg", b.op("Mul", g, b.op("Round", b.op("Div", b.op("Sub", x, out), y)))),
    ]


@gradient("Sum", broadcasts=True)
def sum_(b: B, n: N, g: Any) -> list[Any]:
    return [g] * len(n.inputs)


@gradient("Mean", broadcasts=True)
def mean(b: B, n: N, g: Any) -> list[Any]:
    share = b.op("Mul", g, 1.0 / len(n.inputs))
    return [share] * len(n.inputs)


@gradient("Range")
def range_(b: B, n: N, g: Any) -> list[Any]:
    """start + i * delta; `limit` decides only how many there are."""

    def delta() -> Any:
        steps = b.cast(b.positions(g, 0), b.dtype(g))
        return b.op("ReduceSum", b.op("Mul", g, steps), keepdims=0)

    return [lambda: b.op("ReduceSum", g, keepdims=0), None, delta]


@gradient("Max", "Min", broadcasts=True)
def max_min(b: B, n: N, g: Any) -> list[Any]:
    """Ties share the gradient equally, as torch.maximum does."""
    if len(n.inputs) == 1:
        return [g]
    dtype = b.dtype(g)
    masks = [b.cast(b.op("Equal", x, n.outputs[0]), dtype) for x in n.inputs]
    share = b.op("Div", g, b.op("Sum", *masks))
    return [b.op("Mul", share, mask) for mask in masks]


@gradient("Clip", broadcasts=True)
def clip(b: B, n: N, g: Any) -> list[Any]:
    """On a bound the gradient goes to x, beyond it to the bound, as torch.clamp does.

    Where the bounds cross, every result is `high`; where they are equal, `low` gets nothing.
    """
    x, low, high = n.required(0), n.input(1), n.input(2)

    def below() -> Any:
        return b.op("Less", x, low)

    def above() -> Any:
        return b.op("Greater", x, high)

    def where(condition: Any) -> Any:
        return b.op("Mul", g, b.cast(condition, b.dtype(x)))

    def dx() -> Any:
        if low is None and high is None:
            return g
        if low is None or high is None or _are_ordered(b, low, high):
            # Two kernels instead of five.
            return where(b.op("Equal", x, n.outputs[0]))
        return where(b.op("Not", b.op("Or", below(), above())))

    def dlow() -> Any:
        return where(below() if high is None else b.op("And", below(), b.op("Less", low, high)))

    def dhigh() -> Any:
        return where(above() if low is None else b.op("Or", above(), b.op("Less", high, low)))

    return [dx, dlow, dhigh]


def _are_ordered(b: B, low: Any, high: Any) -> bool:
    """Whether the first is known to be no more than the second."""
    least, most = b.constant_value(low), b.constant_value(high)
    return least is not None and most is not None and bool(np.all(least <= most))


@gradient("Where", broadcasts=True)
def where(b: B, n: N, g: Any) -> list[Any]:
    condition = n.required(0)
    zero = np.zeros((), b.dtype(g))
    return [
        None,
        lambda: b.op("Where", condition, g, zero),
        lambda: b.op("Where", condition, zero, g),
    ]


@gradient("Abs")
def abs_(b: B, n: N, g: Any) -> list[Any]:
    """Zero at zero."""
    return [b.op("Mul", g, b.op("Sign", n.required(0)))]


@gradient("Sqrt")
def sqrt(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", b.op("Mul", g, 0.5), n.outputs[0])]


@gradient("Reciprocal")
def reciprocal(b: B, n: N, g: Any) -> list[Any]:
    out = n.outputs[0]
    return [b.op("Neg", b.op("Mul", g, b.op("Mul", out, out)))]


@gradient("Exp")
def exp(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Mul", g, n.outputs[0])]


@gradient("Log")
def log(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", g, n.required(0))]


@gradient("Erf")
def erf(b: B, n: N, g: Any) -> list[Any]:
    x = n.required(0)
    bell = b.op("Exp", b.op("Neg", b.op("Mul", x, x)))
    return [b.op("Mul", g, b.op("Mul", bell, 2.0 / math.sqrt(math.pi)))]


@gradient("Sin")
def sin(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Mul", g, b.op("Cos", n.required(0)))]


@gradient("Cos")
def cos(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Neg", b.op("Mul", g, b.op("Sin", n.required(0))))]


@gradient("Tan")
def tan(b: B, n: N, g: Any) -> list[Any]:
    out = n.outputs[0]
    return [b.op("Mul", g, b.op("Add", b.op("Mul", out, out), 1.0))]


@gradient("Asin")
def asin(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", g, b.op("Sqrt", b.op("Sub", 1.0, _square(b, n.required(0)))))]


@gradient("Acos")
def acos(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Neg", b.op("Div", g, b.op("Sqrt", b.op("Sub", 1.0, _square(b, n.required(0))))))]


@gradient("Atan")
def atan(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", g, b.op("Add", _square(b, n.required(0)), 1.0))]


@gradient("Sinh")
def sinh(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Mul", g, b.op("Cosh", n.required(0)))]


@gradient("Cosh")
def cosh(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Mul", g, b.op("Sinh", n.required(0)))]


@gradient("Asinh")
def asinh(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", g, b.op("Sqrt", b.op("Add", _square(b, n.required(0)), 1.0)))]


@gradient("Acosh")
def acosh(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", g, b.op("Sqrt", b.op("Sub", _square(b, n.required(0)), 1.0)))]


@gradient("Atanh")
def atanh(b: B, n: N, g: Any) -> list[Any]:
    return [b.op("Div", g, b.op("Sub", 1.0, _square(b, n.required(0))))]


def _square(b: B, x: Any) -> Any:
    return b.op("Mul", x, x)
