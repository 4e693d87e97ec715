"""Python's operators for tensors, variables and symbolic dimensions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxtape.tensor import Tensor


@functools.cache
def _ops() -> Any:
    from onnxtape import ops

    return ops


#: NumPy's universal functions that have an operation of ours, for `array + tensor` and the like.
_UFUNCS = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "divide": "divide",
    "floor_divide": "floor_divide",
    "remainder": "mod",
    "power": "power",
    "matmul": "matmul",
    "less": "less",
    "less_equal": "less_equal",
    "greater": "greater",
    "greater_equal": "greater_equal",
    "equal": "equal",
    "not_equal": "not_equal",
}


class Operators:
    """Operators with NumPy's broadcasting, for whatever `convert_to_tensor` takes."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = _UFUNCS.get(ufunc.__name__)
        if method == "__call__" and not kwargs and name is not None:
            return getattr(_ops(), name)(*inputs)
        arrays = [np.asarray(x) if isinstance(x, Operators) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __add__(self, other: Any) -> Tensor:
        return _ops().add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _ops().add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _ops().subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _ops().subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _ops().multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _ops().multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _ops().divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _ops().divide(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return _ops().floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _ops().floor_divide(other, self)

    def __mod__(self, other: Any) -> Tensor:
        return _ops().mod(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return _ops().mod(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return _ops().power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _ops().power(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _ops().matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _ops().matmul(other, self)

    def __and__(self, other: Any) -> Tensor:
        return _ops().bitwise_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return _ops().bitwise_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return _ops().bitwise_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return _ops().bitwise_or(other, self)

    def __xor__(self, other: Any) -> Tensor:
        return _ops().bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return _ops().bitwise_xor(other, self)

    def __lt__(self, other: Any) -> Tensor:
        return _ops().less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return _ops().less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _ops().greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _ops().greater_equal(self, other)

    def __eq__(self, other: object) -> Any:
        return False if other is None else _ops().equal(self, other)

    def __ne__(self, other: object) -> Any:
        return True if other is None else _ops().not_equal(self, other)

    __hash__ = object.__hash__

    def __neg__(self) -> Tensor:
        return _ops().negative(self)

    def __pos__(self) -> Tensor:
        return _ops().convert_to_tensor(self)

    def __abs__(self) -> Tensor:
        return _ops().absolute(self)

    def __invert__(self) -> Tensor:
        return _ops().logical_not(self)

    def __getitem__(self, key: Any) -> Tensor:
        return _ops().getitem(self, key)
