"""Operations that take functions, and those that are made with loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from onnxtape import nest
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.control_flow import map, while_loop
from onnxtape.ops.promotion import BOOL, INT64, numeric, operands, widened
from onnxtape.ops.shapes import moveaxis, ravel
from onnxtape.ops.statistics import without_nans
from onnxtape.tensor import Tensor

__all__ = [
    "associative_scan",
    "cumprod",
    "custom_gradient",
    "gcd",
    "jvp",
    "lcm",
    "nancumprod",
    "vectorized_map",
]


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """`ot.custom_gradient`: a function with a gradient of its own."""
    from onnxtape.custom_gradients import custom_gradient as made

    return made(f)


def jvp(fun: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """`ot.jvp`: the value of a function, and its derivative along a direction.

    Args:
        primals, tangents: a list or tuple of as many tensors as the function takes.
        has_aux: whether the function returns a pair, of which the second is handed on as it is:
            the result is then (value, derivative, auxiliary).
    """
    from onnxtape.transforms import jvp as derivative

    if not has_aux:
        return derivative(fun, tuple(primals), tuple(tangents))
    auxiliary: list[Any] = []

    def value(*xs: Any) -> Any:
        result, aux = fun(*xs)
        auxiliary.append(aux)
        return result

    found = derivative(value, tuple(primals), tuple(tangents))
    return (*found, auxiliary[0])


def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """`function` of each slice along the first axis of every tensor in `elements`, stacked.

    One after the other, as `map`: the numbers of Keras's, not its speed.
    """
    return map(function, elements)


def associative_scan(
    f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0
) -> Any:
    """Partial results of an associative function along an axis, all of its elements at once.

    In log2(size) steps, each of which doubles how many elements a result has seen (D. Hillis and
    G. Steele, "Data parallel algorithms", 1986).

    Args:
        f: takes two structures like `elems`, slices of equal size, and returns such a structure.
        elems: a tensor, or a nested structure of tensors of one size along the axis.
        reverse: from the end.

    Raises:
        ShapeError: the size is not known, or not the same everywhere.
    """
    tensors = [convert_to_tensor(x) for x in nest.flatten(elems)]
    places = [normalized(axis, B.known_rank(t, "associative_scan"), "scan") for t in tensors]
    sizes = {B.dim(t, place) for t, place in zip(tensors, places, strict=True)}
    size = sizes.pop() if len(sizes) == 1 else None
    if not isinstance(size, int):
        raise refused(
            "associative_scan needs tensors of one size, which is known, along the axis; where it "
            "is not, there is ops.scan"
        )

    def part(ts: list[Tensor], start: int, end: int) -> Any:
        cut = [B.op("Slice", t, [start], [end], [p]) for t, p in zip(ts, places, strict=True)]
        return nest.pack_like(elems, cut)

    reach = 1
    while reach < size:
        near, far = (0, size - reach), (reach, size)
        if reverse:
            earlier, later, kept = part(tensors, *far), part(tensors, *near), (size - reach, size)
        else:
            earlier, later, kept = part(tensors, *near), part(tensors, *far), (0, reach)
        joined = [convert_to_tensor(x) for x in nest.flatten(f(earlier, later))]
        done = nest.flatten(part(tensors, *kept))
        tensors = [
            B.op("Concat", *((new, old) if reverse else (old, new)), axis=p)
            for old, new, p in zip(done, joined, places, strict=True)
        ]
        reach *= 2
    return nest.pack_like(elems, tensors)


def cumprod(x: Any, axis: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Partial products along an axis, by default of the flat tensor.

    Where the size of the axis is known only at run time, this takes memory for its square.

    Args:
        dtype: multiply in this one. Booleans count as int32.
    """
    (t,) = numeric(convert_to_tensor(x, dtype))
    flat = ravel(t) if axis is None else t
    place = normalized(axis or 0, B.known_rank(flat, "cumprod"), "cumprod")
    if isinstance(B.dim(flat, place), int):
        return B.cast(associative_scan(_times, widened(flat), axis=place), t.dtype)
    # For each element, the product of those up to it: a square of them.
    count = B.op("Squeeze", B.dim_tensor(flat, place), [0])
    places = B.op("Range", B.scalar(0, INT64), count, B.scalar(1, INT64))
    counts = B.op("LessOrEqual", places, B.op("Unsqueeze", places, [1]))
    rows = B.op("Unsqueeze", moveaxis(widened(flat), place, -1), [-2])
    factors = B.op("Where", counts, rows, B.scalar(1, rows.dtype))
    products = B.op("ReduceProd", factors, [-1], keepdims=0)
    return moveaxis(B.cast(products, t.dtype), -1, place)


def _times(x: Tensor, y: Tensor) -> Tensor:
    return B.op("Mul", x, y)


def nancumprod(x: Any, axis: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Partial products along an axis, by default of the flat tensor, NaNs counting as 1."""
    return cumprod(without_nans(convert_to_tensor(x, dtype), 1.0), axis)


def gcd(x1: Any, x2: Any) -> Tensor:
    """The greatest common divisors of integers (Euclid's), none negative; gcd(0, x) is |x|."""
    x, y = operands(x1, x2)
    given = x.dtype
    if given.kind not in "iu":
        raise TypeError(f"gcd takes integers, not {given}")
    wide = B.op("Abs", B.cast(x, INT64)), B.op("Abs", B.cast(y, INT64))
    # Of one shape, as the state of a loop has to stay.
    x, y = (B.op("Add", t, B.op("Mul", other, 0)) for t, other in (wide, wide[::-1]))

    def remainders_left(x: Tensor, y: Tensor) -> Tensor:
        return B.cast(B.op("ReduceSum", y, keepdims=0), BOOL)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        done = B.op("Equal", y, 0)
        one = B.scalar(1, INT64)
        rest = B.op("Mod", x, B.op("Where", done, one, y))
        return B.op("Where", done, x, y), B.op("Where", done, y, rest)

    return B.cast(while_loop(remainders_left, step, (x, y))[0], given)


def lcm(x1: Any, x2: Any) -> Tensor:
    """The least common multiples of integers, none negative; 0 where one of them is 0."""
    x, y = operands(x1, x2)
    divisor = gcd(x, y)
    wide = [B.op("Abs", B.cast(t, INT64)) for t in (x, y)]
    common = B.op("Max", B.cast(divisor, INT64), 1)
    return B.cast(B.op("Mul", B.op("Div", wide[0], common), wide[1]), x.dtype)
