"""The functional API: tensors that remember how they were computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxtape import masks, nest
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.engine import OPSET, emit
from onnxtape.errors import TracingError
from onnxtape.symbolic import SymbolicContext
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

_LARGE = 64


@dataclass(slots=True, eq=False)
class InputPlace:
    """A tensor made by `ot.Input`."""

    name: str


@dataclass(slots=True, eq=False)
class LayerCall:
    """A tensor made by calling a layer."""

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    @property
    def inputs(self) -> list[Tensor]:
        return _symbolic_leaves((self.args, self.kwargs))

    def replay(self, swap: Callable[[Any], Any], kept: dict[int, Any]) -> list[Any]:
        """The outputs.

        Args:
            swap: gives what now stands for a tensor.
            kept: masks by the tensors that had them when they were made. A layer inside, as
                MultiHeadAttention, may have taken them off since; layers that take a `mask` get
                them nevertheless, in Keras as part of the model's graph.
        """
        args, kwargs = nest.map_structure(swap, (self.args, self.kwargs))
        places, given = nest.flatten((self.args, self.kwargs)), nest.flatten((args, kwargs))
        own = [kept.get(id(x)) for x in places]
        takes_mask = masks.takes_one(self.layer._call_parameters, args, kwargs)
        with masks.worn(given, own if takes_mask else [None] * len(own)):
            made = nest.flatten(self.layer(*args, **kwargs))
        first = self.args[0] if self.args else self.kwargs
        previous = nest.map_structure(lambda x: kept.get(id(x)), first)
        if all(mask is None for mask in nest.flatten(previous)):
            previous = None
        found = masks.of_outputs(self.layer, args[0] if args else kwargs, made, previous)
        kept.update(zip(map(id, self.outputs), found, strict=True))
        return made


@dataclass(slots=True, eq=False)
class OperatorCall:
    """A tensor made by an operation outside any layer."""

    op_type: str
    operands: list[Tensor | None]
    attributes: dict[str, Any]
    outputs: list[Tensor]

    @property
    def inputs(self) -> list[Tensor]:
        return _symbolic_leaves(self.operands)

    def replay(self, swap: Callable[[Any], Any], kept: dict[int, Any]) -> list[Any]:
        operands = [swap(x) for x in self.operands]
        return list(emit(self.op_type, operands, self.attributes, len(self.outputs)))


@dataclass(slots=True, eq=False)
class StoppedGradient:
    """A tensor made by `ops.stop_gradient`, which no operator stands for."""

    operand: Tensor
    outputs: list[Tensor]

    @property
    def inputs(self) -> list[Tensor]:
        return [self.operand]

    def replay(self, swap: Callable[[Any], Any], kept: dict[int, Any]) -> list[Any]:
        from onnxtape import ops

        return [ops.stop_gradient(swap(self.operand))]


Call = LayerCall | OperatorCall | StoppedGradient


class FunctionalContext(SymbolicContext):
    """The symbolic context of `ot.Input`: shapes and dtypes are inferred, nothing runs."""

    none_dims = True

    def __init__(self) -> None:
        self.builder = GraphBuilder(None, opset=OPSET)

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        attributes: Mapping[str, Any],
        outputs: int,
    ) -> tuple[Tensor, ...]:
        made = super().emit(op_type, inputs, attributes, outputs)
        call = OperatorCall(op_type, list(inputs), dict(attributes), list(made))
        for tensor in made:
            tensor._history = call
        return made

    def constant(self, array: npt.NDArray[Any]) -> Tensor:
        # Eager: it is lifted where an operation uses it, and replayed as it is.
        return Tensor(array)

    def read(self, variable: Variable) -> Tensor:
        return variable._tensor

    def assign(self, variable: Variable, value: Tensor) -> None:
        # Building a model runs nothing, so state stays as it is.
        return

    def created(self, variable: Variable) -> None:
        return

    def stopped(self, tensor: Tensor) -> Tensor:
        passed = Tensor._from_symbol(self.symbol(tensor), self)
        passed._history = StoppedGradient(tensor, [passed])
        return passed

    def symbol(self, tensor: Tensor) -> ir.Value:
        if tensor._symbolic is self:
            value: ir.Value = tensor._symbol
            return value
        if tensor._symbolic is not None:
            raise TracingError(
                "a tensor of a trace was mixed with tensors of the functional API",
                "Call the finished model inside the traced function",
            )
        # Only shapes matter here, but small constants may be shapes themselves.
        array = tensor.numpy()
        if array.size <= _LARGE:
            return self.builder.constant(array)
        dtype = ir.DataType.from_numpy(array.dtype)
        return ir.Value(name="constant", shape=ir.Shape(array.shape), type=ir.TensorType(dtype))


_context: FunctionalContext | None = None


def functional_context() -> FunctionalContext:
    """The one context that all inputs of the functional API share."""
    global _context
    if _context is None:
        _context = FunctionalContext()
    return _context


def Input(
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: npt.DTypeLike | None = None,
    *,
    batch_shape: Sequence[int | str | None] | None = None,
    name: str | None = None,
) -> Tensor:
    """An input of a functional model.

    Args:
        shape: without the batch dimension; None for sizes that vary.
        batch_size: the batch dimension, if it is fixed.
        dtype: float32 by default.
        batch_shape: the whole shape, instead of the two.
    """
    from onnxtape.naming import auto_name

    if (shape is None) == (batch_shape is None):
        raise ValueError("Input takes either shape (without the batch dimension) or batch_shape")
    whole = tuple(batch_shape) if batch_shape is not None else (batch_size, *(shape or ()))
    name = name or auto_name("input_layer")
    # The first unknown dimension is the batch, the same for all inputs.
    dims = [
        d if d is not None else "batch" if axis == 0 else f"{name}_{axis}"
        for axis, d in enumerate(whole)
    ]
    functional = functional_context()
    value = ir.Value(
        name=name,
        shape=ir.Shape(dims),
        type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype or "float32"))),
    )
    tensor = Tensor._from_symbol(value, functional)
    tensor._history = InputPlace(name)
    return tensor


def is_functional(tree: Any) -> bool:
    """Whether a nested structure holds tensors of the functional API."""
    return any(
        isinstance(x, Tensor) and x._symbolic is not None and x._symbolic.none_dims
        for x in nest.flatten(tree)
    )


def _symbolic_leaves(tree: Any) -> list[Tensor]:
    return [x for x in nest.flatten(tree) if isinstance(x, Tensor) and x._symbolic is not None]


@dataclass(frozen=True, slots=True)
class CallGraph:
    """What leads from a model's inputs to its outputs.

    Attributes:
        calls: in an order in which they can run.
        nodes: layers, inputs and operator calls in the order in which Keras lists them: the
            furthest from the outputs first. Weights are ordered by it.
    """

    calls: list[Call]
    nodes: list[Any]


def call_graph(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> CallGraph:
    """The calls between `inputs` and `outputs`.

    Raises:
        ValueError: an output depends on an `Input` that is not among `inputs`.
    """
    given = {id(t) for t in inputs}
    # Depth first, from the outputs: each call stands behind those it depends on.
    order: list[Call | InputPlace] = []
    first_seen: dict[int, int] = {}
    done: set[int] = set()
    pending: list[tuple[Tensor, bool]] = [(t, False) for t in reversed(outputs)]
    while pending:
        tensor, expanded = pending.pop()
        call = tensor._history
        if id(call) in done:
            continue
        is_place = isinstance(call, InputPlace)
        if id(tensor) in given and not is_place:
            continue
        if is_place and id(tensor) not in given:
            raise ValueError(
                f"the model's outputs depend on Input '{call.name}', which is not among its inputs"
            )
        if call is None:
            raise ValueError(
                "the model's outputs must be computed from its inputs by layers or ops"
            )
        first_seen.setdefault(id(_node(call)), len(first_seen))
        if expanded or is_place:
            done.add(id(call))
            order.append(call)
        else:
            pending.append((tensor, True))
            pending.extend((t, False) for t in reversed(call.inputs))

    depths = _depths(order, given)
    unused = [t._history for t in inputs if isinstance(t._history, InputPlace)]
    nodes = {id(node): node for node in (*map(_node, order), *unused)}
    ranked = sorted(
        nodes.values(), key=lambda n: (-depths.get(id(n), 0), first_seen.get(id(n), -1))
    )
    return CallGraph([c for c in order if not isinstance(c, InputPlace)], ranked)


def _node(call: Call | InputPlace) -> Any:
    """What a call is listed as: all calls of a layer are one."""
    return call.layer if isinstance(call, LayerCall) else call


def _depths(order: Sequence[Call | InputPlace], given: set[int]) -> dict[int, int]:
    """The longest way from each node to an output; that of a layer counts for all its calls."""
    calls: dict[int, int] = {}
    nodes: dict[int, int] = {}
    for call in reversed(order):
        depth = max(calls.get(id(call), 0), nodes.get(id(_node(call)), 0))
        calls[id(call)] = nodes[id(_node(call))] = depth
        for tensor in () if isinstance(call, InputPlace) else call.inputs:
            maker = tensor._history
            if id(tensor) not in given or isinstance(maker, InputPlace):
                calls[id(maker)] = max(depth + 1, calls.get(id(maker), 0))
    return nodes


def replay(
    calls: Sequence[Call],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    values: Sequence[Any],
) -> list[Any]:
    """Compute `outputs` with `values` for `inputs`."""
    known: dict[int, Any] = dict(zip(map(id, inputs), values, strict=True))
    kept: dict[int, Any] = {
        id(x): masks.mask_of(value) for x, value in zip(inputs, values, strict=True)
    }

    def swap(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if x._symbolic is not None:
            return known[id(x)]
        return x if x._variable is None else x._variable.value

    for call in calls:
        results = call.replay(swap, kept)
        known.update(zip(map(id, call.outputs), results, strict=True))
    return [known[id(t)] for t in outputs]
