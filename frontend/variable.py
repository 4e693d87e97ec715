"""Variables: named state that a training step reads and assigns."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxtape import context, devices
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import located
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import TracingError, VariableError
from onnxtape.operators import ArrayMethods
from onnxtape.runtime.devices import duplicate, fetch, kind_of
from onnxtape.tensor import Tensor, as_array
from onnxtape.trainable import TrainableFlag

Role = Literal["parameter", "buffer", "optimizer", "metric", "generator"]

#: The roles of what layers compute with. Metrics and optimizers always keep their precision.
_OF_LAYERS = ("parameter", "buffer")

_state = context.state


class Changes:
    """Counts whatever may move a variable's buffer, or hand it to somebody: assignments, reads.

    While the count stands still, bound steps need not look at their variables.
    """

    count = 0
    _numbers = itertools.count(1)

    @classmethod
    def note(cls) -> None:
        cls.count = next(cls._numbers)


class Variable(ArrayMethods):
    """A tensor whose value can be assigned; its shape and dtype stay.

    Args:
        value: the initial value: an array, a number, a tensor, or a function without arguments
            that returns one.
        trainable: whether tapes watch it and models list it among their trainable variables.
        name: how it is called in summaries, artifacts and errors; layers prefix theirs with the
            layer's path.
        dtype: convert the value to this dtype.
        role: what artifacts say it is; default "parameter" when trainable, else "buffer".

    Attributes:
        is_weight: whether `Layer.weights` lists it; what a stateful layer carries from call to call
            is no weight, as in Keras.
        initializer: of a metric's, what makes its value anew; None for zeros.
    """

    is_weight = True
    initializer: Callable[..., Any] | None = None
    trainable = TrainableFlag()

    def __init__(
        self,
        value: Any,
        trainable: bool = True,
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        role: Role | None = None,
    ) -> None:
        with context.initializing():
            initial = value() if callable(value) else value
            if isinstance(initial, (Tensor, Variable)):
                if isinstance(initial, Tensor) and initial._symbolic is not None:
                    raise TracingError(
                        f"the initial value of variable '{name or 'variable'}' is symbolic",
                        "Give it an array, or a function that makes one",
                    )
                array = convert_to_tensor(initial, dtype).numpy()
            else:
                array = as_array(initial, dtype)
        self.name = name or "variable"
        self.path = self.name
        self.trainable = trainable
        #: Whether a layer under mixed precision reads it in 16 bits.
        self.autocast = True
        self.role: Role = role or ("parameter" if trainable else "buffer")
        self._dtype = array.dtype
        self._shape = array.shape
        self._set(devices.current().put(array))
        if _state.symbolic is not None:
            _state.symbolic.created(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self._shape, dtype=np.int64))

    @property
    def value(self) -> Tensor:
        """The current value, a snapshot: later assignments do not change it."""
        tensor = self._tensor if _state.symbolic is None else _state.symbolic.read(self)
        # After the reference was taken: a step in another thread sees either both or none.
        Changes.note()
        for readings in _state.readings:
            tensor = readings.read(self, tensor)
        for tape in _state.tapes:
            tape._read(self, tensor)
        if _state.autocast is not None and self._is_autocast:
            return B.cast(tensor, _state.autocast)
        return tensor

    @property
    def _is_autocast(self) -> bool:
        return self.autocast and self.role in _OF_LAYERS and is_floating(self._dtype)

    def numpy(self) -> npt.NDArray[Any]:
        """A copy of the current value."""
        if _state.symbolic is not None:
            return self.value.numpy()
        # Not through the tensor, which would remember the view and so pin its memory.
        return np.array(fetch(self._tensor._ort))

    def assign(self, value: Any) -> Variable:
        """Set the value. Gradients do not flow through: a tape sees the next reading as a new one.

        Raises:
            VariableError: another shape.
            TypeError: not numbers.
        """
        tensor = convert_to_tensor(value, self._dtype)
        self._check_shape(tensor)
        if any(readings.replaying for readings in _state.readings):
            return self  # Assigned when the block ran first.
        recorded = any(tape._tracks(tensor) for tape in _state.tapes)
        if _state.symbolic is not None:
            if recorded and tensor._symbolic is not None:
                tensor = Tensor._from_symbol(tensor._symbol, _state.symbolic)
            _state.symbolic.assign(self, tensor)
        elif tensor._symbolic is not None:
            raise TracingError(
                f"variable '{self.path}' was assigned a symbolic tensor outside the trace",
                "Assign it inside the traced function",
            )
        elif not recorded and (
            tensor._ort is not None and tensor._array is None and tensor._variable is None
        ):
            if devices.Places.several:
                tensor = self._beside(tensor)
            # Computed by an operation. Whoever else holds this tensor shows in its references.
            tensor._variable = self
            self._tensor = tensor
            Changes.note()
        else:
            self._set(devices.place_on(kind_of(self._tensor._ort)).put(tensor.numpy()))
        return self

    def assign_add(self, value: Any) -> Variable:
        """Add to the value."""
        return self.assign(self._exact + convert_to_tensor(value, self._dtype))

    def assign_sub(self, value: Any) -> Variable:
        """Subtract from the value."""
        return self.assign(self._exact - convert_to_tensor(value, self._dtype))

    @property
    def _exact(self) -> Tensor:
        """`value` in the variable's own dtype, whatever the layer computes in."""
        autocast, _state.autocast = _state.autocast, None
        try:
            return self.value
        finally:
            _state.autocast = autocast

    def _check_shape(self, tensor: Tensor) -> None:
        given = B.shape(tensor)
        fits = given is None or (
            len(given) == len(self._shape)
            and all(
                g == s or not isinstance(g, int) for g, s in zip(given, self._shape, strict=True)
            )
        )
        if not fits:
            raise VariableError(
                located(
                    f"variable '{self.path}' has shape {format_shape(self._shape)} and cannot be "
                    f"assigned a value of shape {format_shape(given)}",
                    context.provenance(),
                )
            )

    # Where the value lives: see `runtime.step.StateCell` -----------------------------------------

    def _beside(self, tensor: Tensor) -> Tensor:
        """The tensor on the device that the value lies on."""
        ort = devices.beside(tensor._ort, self._tensor._ort)
        return tensor if ort is tensor._ort else Tensor._from_ort(ort)

    def _set(self, ort: Any) -> None:
        """Take over an OrtValue that nobody else holds."""
        self._tensor = Tensor._from_ort(ort)
        self._tensor._variable = self
        Changes.note()

    def _is_exclusive(self) -> bool:
        """Whether nobody else (a tape, a tensor, a NumPy view) holds the current value."""
        return _references(self) <= ALONE and self._tensor._array is None

    def _buffer(self) -> Any:
        """The OrtValue that holds the value, safe to overwrite: if others hold it, it is left to
        them and copied for us."""
        if not self._is_exclusive():
            self._set(duplicate(self._tensor._ort))
        return self._tensor._ort

    # A copy (also deep, or pickled) is a variable of its own, with memory of its own.

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tensor": self.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set(devices.current().put(state["_tensor"]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.numpy(), dtype=dtype)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else repr(self)

    def __repr__(self) -> str:
        about = f"'{self.path}': shape={self._shape}, dtype={self._dtype}"
        if _state.symbolic is not None:
            return f"<ot.Variable {about}>"
        return f"<ot.Variable {about}, value={self.numpy()}>"


def _references(holder: Any) -> int:
    tensor = holder._tensor
    return sys.getrefcount(tensor)


class _Holder:
    def __init__(self) -> None:
        self._tensor = Tensor(0.0)


# What `_references` says when only the holder has it; interpreters differ, so it is measured.
ALONE = _references(_Holder())
