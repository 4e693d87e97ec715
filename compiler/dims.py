"""Dimensions, static and symbolic.

A shape is a tuple of dimensions. A dimension is an `int`; or a `str`, a symbolic expression such as
`"batch"` or `"64*batch"`, equal to itself wherever it appears; or `None`, about which nothing is
known. `None` in place of a whole shape means that not even the rank is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    import onnx_ir as ir

Dim = int | str | None
Shape = tuple[Dim, ...]


def plain(dims: Iterable[int | ir.SymbolicDim]) -> Shape:
    """A shape of the IR as one of ours."""
    return tuple(d if isinstance(d, int) else d.value for d in dims)


def shape_of(value: ir.Value | None) -> Shape | None:
    """What is known of the value's shape."""
    if value is None or value.shape is None:
        return None
    return plain(value.shape.dims)


def is_static(shape: Shape | None) -> TypeGuard[tuple[int, ...]]:
    """Whether every dimension is a number."""
    return shape is not None and all(isinstance(d, int) for d in shape)


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether `a` and `b` are provably equal (two unknown dimensions are not)."""
    return a is not None and a == b


def same_shape(a: Shape | None, b: Shape | None) -> bool:
    """Whether `a` and `b` are provably equal."""
    return (
        a is not None
        and b is not None
        and len(a) == len(b)
        and all(same_dim(x, y) for x, y in zip(a, b, strict=True))
    )


def may_be_equal(a: Shape | None, b: Shape | None) -> bool:
    """Whether nothing that is known keeps `a` and `b` from being equal."""
    if a is None or b is None:
        return True
    return len(a) == len(b) and not any(
        isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(a, b, strict=True)
    )


def broadcast_dim(a: Dim, b: Dim) -> Dim:
    """The dimension that `a` and `b` broadcast to.

    A static size other than 1 wins over a symbol, since the symbol can then only be that size or 1.
    Two different symbols give `None`: either of them may be 1 at run time.

    Raises:
        ValueError: two static sizes that differ, neither of them 1.
    """
    if a == 1:
        return b
    if b == 1 or same_dim(a, b):
        return a
    if isinstance(a, int) and isinstance(b, int):
        raise ValueError(f"{a} and {b} do not broadcast")
    if isinstance(a, int):
        return a
    if isinstance(b, int):
        return b
    return None


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting of `shapes`, symbols included; ValueError where it is impossible."""
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for i, dim in enumerate(shape):
            result[offset + i] = broadcast_dim(result[offset + i], dim)
    return tuple(result)


def format_shape(shape: Sequence[Dim] | None) -> str:
    """`(batch, 784)`, with `?` for what is unknown."""
    if shape is None:
        return "(unknown rank)"
    dims = ["?" if d is None else str(d) for d in shape]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"
