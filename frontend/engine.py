"""The one place through which every operation goes: run it now, or add it to the trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape import context
from onnxtape.advice import LOOK
from onnxtape.bfloat16 import WITHOUT_BFLOAT16, all_bfloat16, in_float32
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.dtypes import DType, is_floating
from onnxtape.compiler.errors import Phase, Provenance
from onnxtape.compiler.record import Record
from onnxtape.compiler.target import CPU, Target
from onnxtape.devices import OPSET as OPSET
from onnxtape.devices import Places, current, executor_for, lies_on_device, place_for, taken
from onnxtape.errors import DtypeError, ExecutionError, TracingError
from onnxtape.refusals import explained
from onnxtape.tensor import SymbolicDim, Tensor

if TYPE_CHECKING:
    from onnxtape.runtime.eager import EagerExecutor
    from onnxtape.symbolic import SymbolicContext

_state = context.state
_SMALL_CONSTANT = 64
_CACHE_LIMIT = 4096
_constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
_scalars: dict[tuple[float, float, DType], Tensor] = {}


def executor() -> EagerExecutor:
    """What runs single operators on the CPU."""
    return Places.cpu.executor


def ort_value(tensor: Tensor) -> Any:
    """The tensor's OrtValue, made from its NumPy array on first use."""
    if tensor._ort is None:
        if tensor._symbolic is not None:
            tensor._no_value("a compiled function was called with it", LOOK)
        from onnxtape.runtime import values

        assert tensor._array is not None
        # The OrtValue aliases the array, which the tensor keeps alive.
        tensor._array = np.asarray(tensor._array, order="C")
        tensor._ort = values.from_numpy(tensor._array)
    return tensor._ort


def emit(
    op_type: str,
    inputs: Sequence[Tensor | None],
    attributes: Mapping[str, Any],
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Apply one standard ONNX operator, eagerly or in the current trace.

    It is that of opset `OPSET`, or of the first later one which has it.
    """
    symbolic = _state.symbolic
    if symbolic is None:
        for x in inputs:
            if x is not None and x._symbolic is not None:
                symbolic = x._symbolic
                if not symbolic.none_dims:
                    raise TracingError(
                        "a tensor of a finished trace was used",
                        "Return it from the function instead of storing it outside",
                    )
                break
    if symbolic is None:
        results = _run(op_type, inputs, attributes, outputs)
    else:
        results = symbolic.emit(op_type, inputs, attributes, outputs)
    for tape in _state.tapes:
        tape._record(op_type, inputs, attributes, results)
    return results


def _run(
    op_type: str,
    inputs: Sequence[Tensor | None],
    attributes: Mapping[str, Any],
    outputs: int,
) -> tuple[Tensor, ...]:
    values = [None if x is None else (x._ort or ort_value(x)) for x in inputs]
    if Places.several:
        written = _written_for(op_type, inputs, values, attributes, outputs)
        if written is not None:
            return written
    try:
        runs = executor_for(values) if Places.several else Places.cpu.executor
        results = runs.run(op_type, values, attributes, outputs)
    except ExecutionError as error:
        raise explained(op_type, inputs, error) from None
    if context.Numerics.check:
        from onnxtape.debugging import check_eager

        check_eager(op_type, values, [results[i] for i in range(outputs)])
    if outputs == 1:
        return (Tensor._from_ort(results[0]),)
    return tuple([Tensor._from_ort(results[i]) for i in range(outputs)])


def _written_for(
    op_type: str,
    inputs: Sequence[Tensor | None],
    values: Sequence[Any],
    attributes: Mapping[str, Any],
    outputs: int,
) -> tuple[Tensor, ...] | None:
    """What an operator gives that CUDA has no kernel for, by others; None where it has, or runs
    elsewhere."""
    if place_for(values).provider != "cuda":
        return None
    from onnxtape.compiler.passes.cuda.lowerings import lowering_of

    lower = lowering_of(op_type)
    if lower is None:
        return None
    record = Record(op_type, tuple(inputs), (None,) * outputs, attributes)
    tapes, _state.tapes = _state.tapes, []  # they see the operator itself
    try:
        made = lower(B, record)
    finally:
        _state.tapes = tapes
    return None if made is None else tuple(made)


#: The attributes that hold the subgraphs of If, Loop and Scan.
_SUBGRAPHS = frozenset(("then_branch", "else_branch", "body"))


class TensorBuilder(Builder[Tensor]):
    """The compiler's `Builder` over tensors: what operations and gradient rules write with."""

    opset = OPSET

    @property
    def target(self) -> Target:
        if _state.symbolic is not None:
            return _state.symbolic.builder.target
        return Target(current().provider) if Places.several else CPU

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        attributes: dict[str, Any],
        outputs: int = 1,
    ) -> tuple[Tensor, ...]:
        if op_type in WITHOUT_BFLOAT16 and all_bfloat16(inputs):
            return in_float32(self, emit, op_type, inputs, attributes, outputs)
        try:
            return emit(op_type, inputs, attributes, outputs)
        except DtypeError:
            if not all_bfloat16(inputs):
                raise
            results = in_float32(self, emit, op_type, inputs, attributes, outputs)
            WITHOUT_BFLOAT16.add(op_type)
            return results

    def constant(self, array: npt.ArrayLike) -> Tensor:
        data = np.asarray(array)
        if _state.symbolic is not None:
            return _state.symbolic.constant(data)
        if data.size > _SMALL_CONSTANT:
            return Tensor(data)
        key = (data.dtype.name, data.shape, data.tobytes())
        tensor = _constants.get(key)
        if tensor is None:
            if len(_constants) >= _CACHE_LIMIT:
                _constants.clear()
            tensor = _constants[key] = Tensor(data)
        return tensor

    def scalar(self, number: Any, dtype: DType) -> Tensor:
        if isinstance(number, NumberTensor):
            return convert_to_tensor(number, dtype)
        if _state.symbolic is not None:
            return _state.symbolic.constant(np.asarray(number, dtype=dtype))
        # The sign tells -0.0 from 0.0, which are equal as keys.
        key = (number, math.copysign(1.0, number), dtype)
        tensor = _scalars.get(key)
        if tensor is None:
            if len(_scalars) >= _CACHE_LIMIT:
                _scalars.clear()
            tensor = _scalars[key] = Tensor(np.asarray(number, dtype=dtype))
        return tensor

    def shape(self, value: Tensor) -> Shape | None:
        if value._symbolic is not None:
            return value._symbolic.builder.shape(value._symbol)
        return value.shape

    def dtype(self, value: Tensor) -> DType:
        return value.dtype

    def constant_value(self, value: Tensor) -> npt.NDArray[Any] | None:
        if value._symbolic is not None:
            return value._symbolic.builder.constant_value(value._symbol)
        return value.numpy()

    def refine_shape(self, value: Tensor, shape: Shape | None) -> Tensor:
        if value._symbolic is not None:
            value._symbolic.builder.refine_shape(value._symbol, shape)
        return value

    def outputs_of(self, record: Record[Tensor], count: int) -> tuple[Tensor, ...] | None:
        first = record.outputs[0]
        symbolic = first._symbolic
        if len(record.outputs) >= count or symbolic is None:
            return super().outputs_of(record, count)
        inner: Any = symbolic.builder
        node = replace(record, inputs=(), outputs=(first._symbol,))
        symbols = inner.outputs_of(node, count)
        if symbols is None:
            return None
        return tuple(Tensor._from_symbol(symbol, symbolic) for symbol in symbols)

    def supersede(self, value: Tensor, make: Callable[[], Tensor]) -> None:
        if value._symbolic is not None:
            symbolic = value._symbolic
            symbolic.builder.supersede(value._symbol, lambda: symbolic.symbol(make()))

    def note(
        self,
        op_type: str,
        inputs: Sequence[Tensor],
        output: Tensor,
        attributes: Mapping[str, Sequence[int]],
    ) -> None:
        if output._symbolic is not None:
            symbolic = output._symbolic
            symbols = [symbolic.symbol(x) for x in inputs]
            symbolic.builder.note(op_type, symbols, output._symbol, attributes)

    def symbol(self, value: Tensor) -> Any:
        return self._graph().symbol(value)

    def nested(self, name: str, graph: Any = None) -> Any:
        builder: Any = self._graph().builder
        builder.provenance = context.provenance()
        return builder.nested(name, graph)

    def emit_with_subgraphs(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        attributes: dict[str, Any],
        outputs: int,
        scope: Sequence[Tensor],
    ) -> list[Tensor]:
        from onnxtape.compiler.subgraphs import captured

        symbolic = self._graph()
        # One list for all tapes: the gradients of loops add outputs.
        results = list(symbolic.emit(op_type, inputs, attributes, outputs))
        graphs = [value for name, value in attributes.items() if name in _SUBGRAPHS]
        taken = {value for graph in graphs for value in captured(graph)}
        operands = [*inputs, *(x for x in scope if symbolic.symbol(x) in taken)]
        for tape in _state.tapes:
            tape._record(op_type, operands, attributes, results)
        return results

    def add_outputs(self, record: Record[Tensor], types: Sequence[Any]) -> list[Tensor]:
        first = record.outputs[0]
        assert first._symbolic is not None
        assert isinstance(record.outputs, list)
        inner: Any = first._symbolic.builder
        node = replace(record, inputs=(), outputs=[first._symbol])
        added = [Tensor._from_symbol(v, first._symbolic) for v in inner.add_outputs(node, types)]
        for tape in _state.tapes:
            if any(tape._tracks(x) for x in record.outputs):
                tape.watch([x for x in added if is_floating(x.dtype)])
        record.outputs.extend(added)
        return added

    def _graph(self) -> SymbolicContext:
        if _state.symbolic is None or _state.symbolic.none_dims:
            raise self._no_graph()
        return _state.symbolic

    @contextmanager
    def origin(self, provenance: Provenance | None, phase: Phase) -> Iterator[None]:
        previous = _state.origin
        _state.origin = (provenance or Provenance()).with_phase(phase)
        try:
            yield
        finally:
            _state.origin = previous


#: The builder that the frontend's operations use.
B = TensorBuilder()


def convert_to_tensor(x: Any, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`x` as a tensor.

    Args:
        x: a Tensor (returned as it is), a Variable (its value), a NumPy array, a nested sequence
            of numbers, a number, or anything with `__array__` or `__dlpack__`.
        dtype: cast to this dtype.

    Raises:
        TypeError: `x` does not hold numbers.
    """
    tensor = x if type(x) is Tensor else _as_tensor(x, dtype)
    if dtype is not None and tensor.dtype != np.dtype(dtype):
        exact = tensor.exact if isinstance(tensor, NumberTensor) else tensor
        return B.cast(exact, np.dtype(dtype))
    return tensor


class NumberTensor(Tensor):
    """A Python number that is an input of a compiled step.

    Like the number itself it takes the dtype of what it meets; by itself it is float32 or int32.

    Attributes:
        exact: the input, in the dtype that holds what Python's number holds.
    """

    __slots__ = ("exact",)

    exact: Tensor

    @classmethod
    def of(cls, exact: Tensor) -> NumberTensor:
        """The number that a float64 or int32 input brings."""
        default = B.cast(exact, np.dtype(np.float32)) if is_floating(exact.dtype) else exact
        assert default._symbolic is not None
        number = cls._from_symbol(default._symbol, default._symbolic)
        number.exact = exact
        return number


def _as_tensor(x: Any, dtype: npt.DTypeLike | None) -> Tensor:
    from onnxtape.variable import Variable

    if isinstance(x, Tensor):
        return x
    if isinstance(x, Variable):
        return x.value
    if isinstance(x, SymbolicDim):
        return x.as_tensor()
    if isinstance(x, (list, tuple)) and _holds_tensors(x):
        from onnxtape import ops

        return ops.stack([convert_to_tensor(e, dtype) for e in x])
    if lies_on_device(x):
        return Tensor._from_ort(taken(x))
    if hasattr(x, "__array__") and not isinstance(x, (np.ndarray, np.generic)):
        x = np.asarray(x)
    elif hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray):
        x = np.from_dlpack(x)
    tensor = Tensor(x, dtype)
    if _state.symbolic is not None:
        return _state.symbolic.constant(tensor.numpy())
    return tensor


def _holds_tensors(x: Any) -> bool:
    from onnxtape.variable import Variable

    if isinstance(x, (list, tuple)):
        return any(map(_holds_tensors, x))
    return isinstance(x, (Tensor, SymbolicDim, Variable))
