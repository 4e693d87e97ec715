"""The writing side of the compiler: what gradient rules and frontend operations emit nodes with.

`Builder` is abstract over what a value is. `GraphBuilder` (graph_builder.py) appends nodes to an
`onnx_ir` graph; the frontend has one that runs each node at once. A gradient rule is written
against `Builder` alone, so one rule serves both. This module must not import onnx_ir: eager mode
needs it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.dims import Dim, Shape, is_static, same_dim, same_shape
from onnxtape.compiler.dtypes import DType
from onnxtape.compiler.errors import Phase, Provenance, UnknownRankError
from onnxtape.compiler.record import Record
from onnxtape.compiler.target import CPU, Target

V = TypeVar("V")


class Builder(abc.ABC, Generic[V]):
    """Emits standard ONNX operators and answers what is known of their results."""

    #: The default-domain opset whose operators `emit` takes.
    opset: int = 21

    @property
    def target(self) -> Target:
        """Where the operators will run: what lowerings are chosen by."""
        return CPU

    # What an implementation provides ------------------------------------------------------------

    @abc.abstractmethod
    def emit(
        self,
        op_type: str,
        inputs: Sequence[V | None],
        attributes: dict[str, Any],
        outputs: int = 1,
    ) -> tuple[V, ...]:
        """Apply one operator.

        Raises:
            ShapeError, DtypeError: the operator does not take these inputs.
        """

    @abc.abstractmethod
    def constant(self, array: npt.ArrayLike) -> V:
        """A constant tensor with the array's dtype and shape."""

    @abc.abstractmethod
    def shape(self, value: V) -> Shape | None:
        """What is known of the value's shape; see `compiler.dims`."""

    @abc.abstractmethod
    def dtype(self, value: V) -> DType:
        """The value's element type."""

    @abc.abstractmethod
    def constant_value(self, value: V) -> npt.NDArray[Any] | None:
        """The value's content where it is known now, else None."""

    def refine_shape(self, value: V, shape: Shape | None) -> V:
        """Note that `value` has `shape` where inference could not tell; returns `value`."""
        return value

    def outputs_of(self, record: Record[V], count: int) -> tuple[V, ...] | None:
        """The first `count` outputs of an operator that was applied, omitted ones included.

        None where the operator has run already without them.
        """
        return tuple(record.outputs[:count]) if len(record.outputs) >= count else None

    def supersede(self, value: V, make: Callable[[], V]) -> None:
        """Note that `make()` gives `value` again, from what it was made from itself.

        For rules that compute their operator's result again on the way: a graph then needs the
        operator no longer. What has run, has run.
        """

    def note(
        self, op_type: str, inputs: Sequence[V], output: V, attributes: Mapping[str, Sequence[int]]
    ) -> None:
        """Note that `output`, which nodes compute, is what one operator makes of `inputs`.

        One that ONNX does not have: see `notes.Composite`. Only graphs keep such notes.
        """

    @contextmanager
    def origin(self, provenance: Provenance | None, phase: Phase) -> Iterator[None]:
        """Nodes emitted inside stem from `provenance`. Only graphs keep such notes."""
        yield

    # Control flow, which only graphs hold: eagerly it is Python's own --------------------------

    def symbol(self, value: V) -> Any:
        """The `onnx_ir.Value` by which subgraphs refer to the value."""
        raise self._no_graph()

    def nested(self, name: str, graph: Any = None) -> Any:
        """A `GraphBuilder` for a subgraph (an `onnx_ir.Graph`; by default a new one).

        Its names are new in the graphs around it too.
        """
        raise self._no_graph()

    def emit_with_subgraphs(
        self,
        op_type: str,
        inputs: Sequence[V | None],
        attributes: dict[str, Any],
        outputs: int,
        scope: Sequence[V],
    ) -> list[V]:
        """`emit` for an operator with subgraphs.

        Args:
            scope: values, other than `inputs`, that the subgraphs may capture.
        """
        raise self._no_graph()

    def add_outputs(self, record: Record[V], types: Sequence[Any]) -> list[V]:
        """Further outputs, each of a type and shape, of a node whose subgraph has them already."""
        raise self._no_graph()

    def _no_graph(self) -> TypeError:
        return TypeError(f"{type(self).__name__} builds no graph that could hold subgraphs")

    # Emitting -----------------------------------------------------------------------------------

    def op(self, op_type: str, *inputs: Any, **attributes: Any) -> V:
        """Apply an operator with one output.

        Inputs are values, None for an omitted optional one, or plain Python: a number becomes a
        scalar constant of the first non-boolean tensor input's dtype; a list of ints, or an
        integer array, an int64 constant; any other array a constant as it is. Attributes that are
        None are left out.
        """
        return self.op_multi(op_type, *inputs, outputs=1, **attributes)[0]

    def op_multi(
        self, op_type: str, *inputs: Any, outputs: int, **attributes: Any
    ) -> tuple[V, ...]:
        """`op` for an operator with several outputs."""
        attributes = {k: v for k, v in attributes.items() if v is not None}
        return self.emit(op_type, self._operands(inputs), attributes, outputs)

    def _operands(self, inputs: Sequence[Any]) -> list[V | None]:
        dtype: DType | None = None
        for x in inputs:
            if x is not None and not isinstance(x, (int, float, list, tuple, np.ndarray)):
                candidate = self.dtype(x)
                if candidate != np.bool_:
                    dtype = candidate
                    break
        operands: list[V | None] = []
        for x in inputs:
            if isinstance(x, (bool, int, float)):
                if dtype is None:
                    raise TypeError(f"no tensor operand gives the number {x} a dtype")
                operands.append(self.scalar(x, dtype))
            elif isinstance(x, (list, tuple)):
                operands.append(self.constant(np.asarray(x, dtype=np.int64)))
            elif isinstance(x, np.ndarray):
                operands.append(self.constant(x))
            else:
                operands.append(x)
        return operands

    def scalar(self, number: float, dtype: DType) -> V:
        """A constant of shape ()."""
        return self.constant(np.asarray(number, dtype=dtype))

    def cast(self, value: V, dtype: DType) -> V:
        """`value` with another element type; the value itself where it has that type already."""
        from onnxtape.compiler.dtypes import to_onnx

        return value if self.dtype(value) == dtype else self.op("Cast", value, to=to_onnx(dtype))

    # Shapes -------------------------------------------------------------------------------------

    def rank(self, value: V) -> int | None:
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def known_rank(self, value: V, why: str) -> int:
        """The rank, or an UnknownRankError that says `why` it is needed."""
        rank = self.rank(value)
        if rank is None:
            raise UnknownRankError(f"{why} needs a tensor whose rank is known")
        return rank

    def dim(self, value: V, axis: int) -> Dim:
        shape = self.shape(value)
        return None if shape is None else shape[axis]

    def shape_tensor(self, value: V) -> V:
        """The value's shape as an int64 vector: a constant where it is static."""
        shape = self.shape(value)
        if is_static(shape):
            return self.constant(np.asarray(shape, dtype=np.int64))
        return self.op("Shape", value)

    def dim_tensor(self, value: V, axis: int) -> V:
        """Dimension `axis` (counted from the front) as an int64 vector of length 1."""
        dim = self.dim(value, axis)
        if isinstance(dim, int):
            return self.constant(np.asarray([dim], dtype=np.int64))
        return self.op("Shape", value, start=axis, end=axis + 1)

    def positions(self, value: V, axis: int) -> V:
        """0, 1, 2, ... along `axis` (counted from the front): an int64 vector."""
        size = self.dim(value, axis)
        if isinstance(size, int):
            return self.constant(np.arange(size, dtype=np.int64))
        end = self.op("Squeeze", self.dim_tensor(value, axis), [0])
        return self.op("Range", self.constant(np.int64(0)), end, self.constant(np.int64(1)))

    def full_like(self, like: V, number: float, dtype: DType | None = None) -> V:
        """A tensor of `like`'s shape and dtype, every element `number`."""
        dtype = dtype or self.dtype(like)
        if self.shape(like) == ():
            return self.scalar(number, dtype)
        filled = self.op(
            "ConstantOfShape", self.shape_tensor(like), value=np.asarray([number], dtype)
        )
        return self.refine_shape(filled, self.shape(like))

    def reshape_like(self, value: V, like: V) -> V:
        """`value` with `like`'s shape (the same number of elements)."""
        if same_shape(self.shape(value), self.shape(like)):
            return value
        reshaped = self.op("Reshape", value, self.shape_tensor(like), allowzero=1)
        return self.refine_shape(reshaped, self.shape(like))

    def expand_like(self, value: V, like: V) -> V:
        """`value` broadcast to `like`'s shape."""
        if same_shape(self.shape(value), self.shape(like)):
            return value
        if 0 in (self.shape(like) or ()):
            # ONNX Runtime's optimizer drops an Expand of size 1 to no elements.
            return self.full_like(like, 0.0, self.dtype(value))
        return self.refine_shape(
            self.op("Expand", value, self.shape_tensor(like)), self.shape(like)
        )

    def sum_to(self, value: V, like: V) -> V:
        """`value` summed over the axes along which `like` was broadcast to it.

        The transpose of NumPy's broadcasting. Axes are chosen now where shapes tell, else at run
        time from the shapes themselves.
        """
        source, target = self.shape(value), self.shape(like)
        if same_shape(source, target):
            return value
        if source is None or target is None:
            return self._sum_to_at_run_time(value, like)
        lead = len(source) - len(target)
        axes = list(range(lead))
        for i, (from_dim, to_dim) in enumerate(zip(source[lead:], target, strict=True)):
            if same_dim(from_dim, to_dim) or (isinstance(to_dim, int) and to_dim != 1):
                continue
            if to_dim != 1:
                return self._sum_to_at_run_time(value, like)
            axes.append(lead + i)
        if not axes:
            return value
        only_leading = len(axes) == lead
        value = self.op("ReduceSum", value, axes, keepdims=0 if only_leading else 1)
        if lead and not only_leading:
            value = self.op("Squeeze", value, list(range(lead)))
        return value

    def _sum_to_at_run_time(self, value: V, like: V) -> V:
        source, target = self.op("Shape", value), self.op("Shape", like)
        missing = self.op("Sub", self.op("Shape", source), self.op("Shape", target))
        ones = self.op("ConstantOfShape", missing, value=np.asarray([1], np.int64))
        aligned = self.op("Concat", ones, target, axis=0)
        differs = self.op("Not", self.op("Equal", source, aligned))
        axes = self.op("Reshape", self.op("NonZero", differs), [-1])
        summed = self.op("ReduceSum", value, axes, keepdims=1, noop_with_empty_axes=1)
        return self.op("Reshape", summed, target, allowzero=1)
