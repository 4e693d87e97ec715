"""Tensors: a value on the device (eager), or a place in a graph (symbolic)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from onnxtape import advice, context
from onnxtape.compiler import dtypes
from onnxtape.compiler.dims import format_shape
from onnxtape.errors import DimensionError, TracingError
from onnxtape.operators import ArrayMethods, Operators
from onnxtape.runtime import devices

if TYPE_CHECKING:
    from onnxtape.symbolic import SymbolicContext
    from onnxtape.variable import Variable


class Tensor(ArrayMethods):
    """An immutable n-dimensional array.

    Args:
        value: a NumPy array (held, not copied), a nested sequence of numbers, or a number. Python
            floats become float32, Python ints int32, as in Keras.
        dtype: convert to this dtype; default: as it is.

    A tensor made while `ot.function` traces, or from `ot.Input`, is symbolic: it has a dtype and a
    shape, but no value yet.
    """

    __slots__ = (
        "__weakref__",
        "_array",
        "_history",
        "_keras_mask",
        "_ort",
        "_symbol",
        "_symbolic",
        "_variable",
    )

    _array: npt.NDArray[Any] | None
    _ort: Any
    _symbol: Any
    _symbolic: SymbolicContext | None
    #: In the functional API: what it was computed by.
    _history: Any
    #: Which steps count, of tensors that layers with masks made; not there otherwise.
    _keras_mask: Tensor
    #: The variable whose value this is.
    _variable: Variable | None

    def __init__(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> None:
        self._array = as_array(value, dtype)
        self._ort = None
        self._symbol = None
        self._symbolic = None
        self._history = None
        self._variable = None

    @classmethod
    def _from_ort(cls, ort: Any) -> Self:
        tensor = object.__new__(cls)
        tensor._array = None
        tensor._ort = ort
        tensor._symbol = None
        tensor._symbolic = None
        tensor._history = None
        tensor._variable = None
        return tensor

    @classmethod
    def _from_symbol(cls, symbol: Any, symbolic: SymbolicContext) -> Self:
        tensor = cls._from_ort(None)
        tensor._symbol = symbol
        tensor._symbolic = symbolic
        return tensor

    # What it is ---------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[Any, ...]:
        """One entry per dimension: an int; for what is known only at run time a `SymbolicDim`
        while tracing, None in the functional API."""
        if self._symbolic is not None:
            dims = self._symbolic.builder.shape(self._symbol)
            if dims is None:
                raise DimensionError(
                    "the rank of this tensor is not known while tracing",
                    "Give it a known rank with ops.reshape",
                )
            if self._symbolic.none_dims:
                return tuple(d if isinstance(d, int) else None for d in dims)
            return tuple(
                d if isinstance(d, int) else SymbolicDim(self, i, d) for i, d in enumerate(dims)
            )
        if self._ort is not None:
            return tuple(self._ort.shape())
        assert self._array is not None
        return self._array.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type; compares equal to its name, `t.dtype == "float32"`."""
        if self._symbolic is not None:
            return self._symbolic.builder.dtype(self._symbol)
        if self._ort is not None:
            return dtypes.from_onnx(self._ort.element_type())
        assert self._array is not None
        return self._array.dtype

    @property
    def size(self) -> int:
        """The number of elements; of a static shape only."""
        return int(np.prod(self.shape, dtype=np.int64))

    # Its value ----------------------------------------------------------------------------------

    def numpy(self) -> npt.NDArray[Any]:
        """The value as a read-only NumPy array: copied from a device, not copied on the CPU.

        Raises:
            TracingError: the tensor is symbolic.
        """
        if self._symbolic is not None:
            self._no_value("its value was asked for", advice.LOOK)
        if self._array is None:
            self._array = devices.fetch(self._ort)
        view = self._array.view()
        view.flags.writeable = False
        return view

    def item(self) -> Any:
        """The value of a tensor with one element as a Python number."""
        if self._symbolic is not None:
            self._no_value("item() was called", advice.LOOK)
        return self.numpy().item()

    def tolist(self) -> Any:
        """The value as nested Python lists."""
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if self._symbolic is not None:
            self._no_value("NumPy asked for its value", advice.instead_of_numpy())
        array = self.numpy()
        if copy:
            return np.array(array, dtype=dtype)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self._symbolic is not None:
            self._no_value("DLPack asked for its value", advice.LOOK)
        if self._ort is not None and devices.kind_of(self._ort) != "cpu":
            # Of a copy: whoever takes the memory may write to it, or keep it while a step does.
            return devices.duplicate(self._ort).to_dlpack()
        # Consumers of older protocol versions cannot be told that memory is read-only.
        array = self.numpy() if kwargs.get("max_version") else np.array(self.numpy())
        return array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        if self._ort is not None and devices.kind_of(self._ort) == "cuda":
            return (2, devices.number_of("cuda"))
        return (1, 0)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        return Tensor, (np.array(self.numpy()),)

    def __bool__(self) -> bool:
        if self._symbolic is not None:
            self._no_value(
                "Python took its truth value (an `if`, `while`, `and` or `not`)", advice.BRANCH
            )
        return bool(self.numpy())

    def __float__(self) -> float:
        if self._symbolic is not None:
            self._no_value("float() was called", advice.instead_of_numbers())
        return float(devices.fetch(self._ort) if self._array is None else self._array)

    def __int__(self) -> int:
        if self._symbolic is not None:
            self._no_value("int() was called", advice.LOOK)
        return int(self.numpy())

    def __index__(self) -> int:
        if self._symbolic is not None:
            self._no_value(
                "Python needed it as an integer (an index, range(), a size)", advice.INDEX
            )
        return self.numpy().__index__()

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self._symbolic is not None:
            self._no_value("it was formatted as text", advice.LOOK)
        return format(self.item(), spec)

    def _no_value(self, what: str, instead: str) -> NoReturn:
        assert self._symbolic is not None
        if self._symbolic.none_dims:
            raise TracingError(
                f"a tensor of the functional API has no value, but {what}",
                "Build a Model from it and call that on data",
            )
        tracing = context.state.symbolic
        while tracing is not None and tracing is not self._symbolic:
            tracing = tracing.parent
        if tracing is None:
            raise TracingError(
                f"a tensor of a finished trace has no value, but {what}",
                "Return it from the function instead of storing it outside",
            )
        raise TracingError(
            f"a tensor has no value while the step is traced, but {what}",
            instead,
        )

    # Sequence -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError("len() of a 0-d tensor")
        return int(shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        if self._symbolic is not None:
            dims = self._symbolic.builder.shape(self._symbol)
            return f"<ot.Tensor: shape={format_shape(dims)}, dtype={self.dtype}, symbolic>"
        return f"<ot.Tensor: shape={self.shape}, dtype={self.dtype}, value={self.numpy()}>"

    def __str__(self) -> str:
        return repr(self) if self._symbolic is not None else str(self.numpy())


class SymbolicDim(Operators):
    """A dimension whose size is known only when the compiled step runs.

    Arithmetic with it gives a symbolic int64 scalar; anything that needs the number now raises.
    """

    __slots__ = ("_axis", "_tensor", "symbol")

    def __init__(self, tensor: Tensor, axis: int, symbol: str | None) -> None:
        self._tensor = tensor
        self._axis = axis
        self.symbol = symbol

    def as_tensor(self) -> Tensor:
        """The size as a symbolic int64 scalar."""
        from onnxtape.engine import B

        return B.op("Squeeze", B.op("Shape", self._tensor, start=self._axis, end=self._axis + 1))

    def _no_size(self) -> NoReturn:
        raise DimensionError(
            f"the size of dimension '{self.symbol or '?'}' is not known while tracing",
            "Use ops.shape(x), whose entries are tensors where they must be",
        )

    def __index__(self) -> int:
        self._no_size()

    # Comparing asks for the number, as an `if` is what it is for.
    def __lt__(self, other: Any) -> NoReturn:
        self._no_size()

    __le__ = __gt__ = __ge__ = __lt__

    def __mul__(self, other: Any) -> Tensor:
        if isinstance(other, (list, tuple, str)):
            self._no_size()  # repetition
        return super().__mul__(other)

    __rmul__ = __mul__

    def __int__(self) -> int:
        self._no_size()

    def __float__(self) -> float:
        self._no_size()

    def __bool__(self) -> bool:
        self._no_size()

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        same = isinstance(other, SymbolicDim) and None is not self.symbol == other.symbol
        return same or self._no_size()

    def __ne__(self, other: object) -> bool:
        return not self.__eq__(other)

    def __hash__(self) -> int:
        return hash(self.symbol)

    def __repr__(self) -> str:
        return self.symbol or "?"


def as_array(value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """`value` as a NumPy array with a dtype that ONNX has.

    Raises:
        TypeError: text, objects, ragged sequences.
    """
    if isinstance(value, (np.ndarray, np.generic, bool)):
        array = np.asarray(value)
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"cannot make a tensor of a ragged sequence: {error}") from None
        if not _holds_arrays(value):
            # Python numbers carry no precision of their own.
            if array.dtype == np.float64:
                array = array.astype(np.float32 if dtype is None else dtype)
            elif array.dtype == np.int64 and (
                not array.size or (array.min() >= -(2**31) and array.max() < 2**31)
            ):
                array = array.astype(np.int32 if dtype is None else dtype)
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    try:
        if array.dtype.kind == "O":
            raise TypeError
        dtypes.to_onnx(array.dtype)
    except TypeError:
        raise TypeError(
            f"cannot make a tensor of dtype {array.dtype} (from {type(value).__name__}); "
            "tensors hold numbers and booleans"
        ) from None
    return array


def _holds_arrays(value: Any) -> bool:
    while isinstance(value, (list, tuple)):
        if not value:
            return False
        value = value[0]
    return hasattr(value, "__array__")
