"""Python's operators for tensors, variables and symbolic dimensions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnxtape.tensor import Tensor


@functools.cache
def _operation(name: str) -> Callable[..., Tensor]:
    """An operation of `onnxtape.ops`, which imports this module and so is imported late."""
    from onnxtape import ops

    return cast("Callable[..., Tensor]", getattr(ops, name))


def _unary(name: str) -> Callable[[Any], Tensor]:
    return lambda self: _operation(name)(self)


def _binary(name: str) -> Callable[[Any, Any], Tensor]:
    return lambda self, other: _operation(name)(self, other)


def _reflected(name: str) -> Callable[[Any, Any], Tensor]:
    return lambda self, other: _operation(name)(other, self)


#: NumPy's universal functions that have an operation of ours, for `array + tensor` and the like.
_UFUNCS = {
    **{
        name: name
        for name in (
            "add",
            "subtract",
            "multiply",
            "divide",
            "floor_divide",
            "power",
            "matmul",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "left_shift",
            "right_shift",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
            "equal",
            "not_equal",
        )
    },
    "remainder": "mod",
}


class Operators:
    """Operators with NumPy's broadcasting, for whatever `convert_to_tensor` takes."""

    __slots__ = ()

    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _binary("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _binary("divide"), _reflected("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _reflected("floor_divide")
    __mod__, __rmod__ = _binary("mod"), _reflected("mod")
    __pow__, __rpow__ = _binary("power"), _reflected("power")
    __matmul__, __rmatmul__ = _binary("matmul"), _reflected("matmul")
    __and__, __rand__ = _binary("bitwise_and"), _reflected("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or"), _reflected("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor"), _reflected("bitwise_xor")
    __lshift__, __rlshift__ = _binary("left_shift"), _reflected("left_shift")
    __rshift__, __rrshift__ = _binary("right_shift"), _reflected("right_shift")
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __neg__, __abs__ = _unary("negative"), _unary("absolute")
    __pos__, __invert__ = _unary("convert_to_tensor"), _unary("bitwise_not")
    __getitem__ = _binary("getitem")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "tensors do not change in place: x = ot.ops.scatter_update(x, indices, updates) and "
            "x = ot.ops.slice_update(x, start, updates) give new ones, and so does ot.ops.where; "
            "a variable takes one by assign()"
        )

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return _operation("floor_divide")(self, other), _operation("mod")(self, other)

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return _operation("floor_divide")(other, self), _operation("mod")(other, self)

    def __round__(self, ndigits: int | None = None) -> Tensor:
        return _operation("round")(self, ndigits or 0)

    def __eq__(self, other: object) -> Any:
        return False if other is None else _operation("equal")(self, other)

    def __ne__(self, other: object) -> Any:
        return True if other is None else _operation("not_equal")(self, other)

    __hash__ = object.__hash__

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = _UFUNCS.get(ufunc.__name__)
        if method == "__call__" and not kwargs and name is not None:
            return _operation(name)(*inputs)
        arrays = [np.asarray(x) if isinstance(x, Operators) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)


class ArrayMethods(Operators):
    """The few methods of NumPy's arrays that are written as such; the others are in `ot.ops`.

    Not its reductions: NumPy's functions (`np.sum(x)`) would call them in the place of its own.
    """

    __slots__ = ()

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return _operation("transpose")(self)

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        """`ops.cast`."""
        return _operation("cast")(self, dtype)

    def reshape(self, *newshape: Any) -> Tensor:
        """`ops.reshape`, to a shape or to its entries one by one."""
        entries = newshape[0] if len(newshape) == 1 else newshape
        return _operation("reshape")(self, entries)
