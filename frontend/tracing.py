"""Building the graph of a step: the symbolic context that `ot.function` runs Python in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxtape import context, nest
from onnxtape.bodies import foreign
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.errors import located
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.notes import cloned
from onnxtape.compiler.passes import GraphPass, run_passes
from onnxtape.compiler.passes.broadcasts import LeaveBroadcasting
from onnxtape.compiler.passes.column_sums import ColumnSumsAsProducts
from onnxtape.compiler.passes.common_subexpressions import EliminateCommonSubexpressions
from onnxtape.compiler.passes.cuda.added_rows import AddRowsOfFixedShape
from onnxtape.compiler.passes.cuda.lower import LowerForCuda
from onnxtape.compiler.passes.cuda.lowerings import BFLOAT16
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.few_maps import FewMapsByTransposedConvolutions
from onnxtape.compiler.passes.fold_constants import FoldConstants
from onnxtape.compiler.passes.fold_scale import FoldScale
from onnxtape.compiler.passes.guarded_resizes import GuardResizes
from onnxtape.compiler.passes.own_statistics import OwnStatistics
from onnxtape.compiler.passes.portable_masks import PortableMasks
from onnxtape.compiler.passes.rematerialize import Rematerialize
from onnxtape.compiler.passes.repaired import ThresholdRepairs
from onnxtape.compiler.passes.row_sums import RowSumsOfOutputs
from onnxtape.compiler.passes.scattered_sums import ScatterIntoSums
from onnxtape.compiler.passes.serial_scatters import SerialScatters
from onnxtape.compiler.passes.simplify import Simplify
from onnxtape.compiler.passes.split_softmax import SplitSoftmax
from onnxtape.compiler.passes.split_sums import SplitSums
from onnxtape.compiler.passes.superseded import UseSuperseding
from onnxtape.compiler.passes.transposes import SinkTransposes
from onnxtape.compiler.passes.widened import ComputeInFloat32
from onnxtape.compiler.target import ANY, CPU, Target
from onnxtape.engine import OPSET, convert_to_tensor, executor
from onnxtape.errors import VariableError
from onnxtape.naming import distinct
from onnxtape.symbolic import SymbolicContext
from onnxtape.tensor import SymbolicDim, Tensor
from onnxtape.trainable import ReadFlags, reads_noted
from onnxtape.variable import Variable

#: What every ONNX Runtime since 1.18 loads; onnx's own default is newer.
IR_VERSION = 10

_PASSES_VARIABLE = "ONNXTAPE_PASSES"

#: Whether the verifier runs between passes; the tests switch it on.
verify_passes = False


class StateEntry(NamedTuple):
    """A state variable of a compiled step. `output_name` is None where the step only reads it."""

    name: str
    input_name: str
    output_name: str | None
    role: str


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A batch input; its symbolic dimensions by name."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape


@dataclass
class TracedStep:
    """A finished trace: the model, and how Python's side maps onto it.

    Attributes:
        raw: the graph as it was traced, which is the same for all providers.
        optimizes: whether it goes through all passes, not only those that it cannot do without.
        further: passes that the user asked for, which come last.
        returned: the structure that the function returned.
        results: for each of its leaves, the index of the output, or (None, constant).
        variables: the variables behind `state`, in its order.
        flags: the `trainable` flags that it depends on.
    """

    raw: ir.Model
    optimizes: bool
    further: list[GraphPass]
    inputs: list[InputSpec]
    output_names: list[str]
    returned: Any
    results: list[tuple[int | None, Any]]
    state: list[StateEntry]
    variables: list[Variable]
    flags: ReadFlags

    @cached_property
    def model(self) -> ir.Model:
        """The graph that is exported: plain ONNX, for any provider."""
        return self.rewritten(ANY)

    def passes(self, target: Target) -> list[GraphPass]:
        """What the graph goes through for a target."""
        return [*default_passes(target, optimize=self.optimizes), *self.further]

    def rewritten(
        self, target: Target, before: Sequence[GraphPass] = (), after: Sequence[GraphPass] = ()
    ) -> ir.Model:
        """A graph of the step for a target, with more passes around those of the target."""
        model = cloned(self.raw)
        run_passes(model, [*before, *self.passes(target), *after], verify=verify_passes)
        return model


@dataclass(slots=True)
class _Slot:
    """A variable in a trace: the input that brings its value, and the value it has now."""

    input: Tensor
    current: Tensor


class Trace(SymbolicContext):
    """The symbolic context of one trace.

    Args:
        may_create: whether variables may be created (the first trace of a function).

    Attributes:
        made_variables: whether some were created by the function itself, not by a layer or an
            optimizer that was not built.
    """

    def __init__(self, name: str, *, may_create: bool = True) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name)
        self.builder = GraphBuilder(self.graph, opset=OPSET, target=CPU)
        self.slots: dict[Variable, _Slot] = {}
        self._may_create = may_create
        self.made_variables = False
        self._lifted: dict[int, tuple[Tensor, ir.Value]] = {}

    def read(self, variable: Variable) -> Tensor:
        slot = self.slots.get(variable)
        if slot is None:
            name = distinct(variable.path, self.builder.has_name)
            value = self.builder.declare(name, variable.dtype, variable.shape)
            tensor = Tensor._from_symbol(value, self)
            slot = self.slots[variable] = _Slot(tensor, tensor)
        return slot.current

    def assign(self, variable: Variable, value: Tensor) -> None:
        self.read(variable)
        if value._symbolic is not self:
            value = Tensor._from_symbol(self.symbol(value), self)
        self.builder.refine_shape(value._symbol, variable.shape)
        self.slots[variable].current = value

    def created(self, variable: Variable) -> None:
        if not self._may_create:
            raise VariableError(
                located(
                    f"a compiled function created variable '{variable.name}' on a call other than "
                    "its first; create variables outside, or once and keep them",
                    context.provenance(),
                )
            )
        self.made_variables |= not context.state.layers

    def symbol(self, tensor: Tensor) -> ir.Value:
        """The graph's value for a tensor: its own, or an eager one as a constant."""
        if tensor._symbolic is self:
            value: ir.Value = tensor._symbol
            return value
        if tensor._symbolic is not None:
            raise foreign(tensor)
        kept = self._lifted.get(id(tensor))
        if kept is None:
            # The tensor is held, so that its id stays its own.
            kept = self._lifted[id(tensor)] = (tensor, self.builder.constant(tensor.numpy()))
        return kept[1]

    def stopped(self, tensor: Tensor) -> Tensor:
        """Another tensor of the same value, which no tape has seen."""
        return Tensor._from_symbol(self.symbol(tensor), self)


def trace(
    name: str,
    specs: Sequence[InputSpec],
    call: Callable[[Sequence[Tensor]], Any],
    *,
    may_create: bool,
    memory_budget: float | None = None,
) -> TracedStep:
    """Run `call` on symbolic inputs and return the step that it makes.

    Args:
        specs: the batch inputs.
        call: takes one tensor per spec; returns a nested structure.
        may_create: whether it may create variables. If it does so by itself, it runs once more: as
            in TensorFlow, it must keep them, for the step would keep what eager mode makes anew.
        memory_budget: see `ot.function`.

    Raises:
        TracingError: Python asked for a tensor's value.
        VariableError: it created variables that it may not create.
    """
    step = Trace(name, may_create=may_create)
    tensors = []
    for spec in specs:
        value = step.builder.declare(spec.name, spec.dtype, spec.shape)
        step.graph.inputs.append(value)
        tensors.append(Tensor._from_symbol(value, step))
    state = context.state
    tapes, layers = state.tapes, state.layers
    state.tapes, state.layers = [], []
    try:
        with context.entered(step), reads_noted() as flags:
            returned = call(tensors)
            leaves = [
                convert_to_tensor(x) if isinstance(x, (Variable, SymbolicDim)) else x
                for x in nest.flatten(returned)
            ]
    finally:
        state.tapes, state.layers = tapes, layers
    if step.made_variables:
        trace(name, specs, call, may_create=False)
    traced = _finish(step, specs, returned, leaves, flags)
    if memory_budget is not None:
        traced.further.append(Rematerialize(memory_budget))
    return traced


def _finish(
    step: Trace,
    specs: Sequence[InputSpec],
    returned: Any,
    leaves: Sequence[Any],
    flags: ReadFlags,
) -> TracedStep:
    builder, graph = step.builder, step.graph
    builder.provenance = None
    taken: set[int] = set()

    def output(value: ir.Value, name: str) -> None:
        # An output needs a node of its own: not an input, a constant, or another output.
        if value.producer() is None or id(value) in taken:
            (value,) = builder.emit("Identity", [value], {})
        taken.add(id(value))
        value.name = name
        graph.outputs.append(value)

    brought: dict[str, ir.Value] = {
        slot.input._symbol.name: slot.input._symbol for slot in step.slots.values()
    }

    def result_name(name: str) -> str:
        # What the user calls by name keeps it, not a variable that has the same.
        state_input = brought.pop(name, None)
        if state_input is None:
            return builder.claim_name(name)
        state_input.name = builder.claim_name(f"{name}.state")
        return name

    results: list[tuple[int | None, Any]] = []
    named = nest.flatten_with_paths(returned)
    for i, (leaf, (path, _)) in enumerate(zip(leaves, named, strict=True)):
        if isinstance(leaf, (np.ndarray, np.generic)):
            leaf = step.constant(np.asarray(leaf))
        if not isinstance(leaf, Tensor):
            results.append((None, leaf))
            continue
        results.append((len(graph.outputs), None))
        name = path if isinstance(returned, Mapping) else f"output_{i}"
        output(step.symbol(leaf), result_name(name))
    output_names = [value.name or "" for value in graph.outputs]

    state: list[StateEntry] = []
    for variable, slot in step.slots.items():
        graph.inputs.append(slot.input._symbol)
        name = slot.input._symbol.name
        output_name = None
        if slot.current is not slot.input:
            output_name = builder.claim_name(f"{name}.next")
            output(step.symbol(slot.current), output_name)
        state.append(StateEntry(name, name, output_name, variable.role))

    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="onnxtape")
    variables = list(step.slots)
    return TracedStep(
        model,
        _optimizes(),
        [],
        list(specs),
        output_names,
        returned,
        results,
        state,
        variables,
        flags,
    )


def _optimizes() -> bool:
    """Whether traces go through all passes.

    Where the environment variable ONNXTAPE_PASSES is "none", they go only through those that they
    cannot do without, to tell a defect of a pass from any other: the graph is then run as it was
    traced and differentiated.

    Raises:
        ValueError: the variable is something else than "none", "all" or empty.
    """
    wanted = os.environ.get(_PASSES_VARIABLE) or "all"
    if wanted not in ("all", "none"):
        raise ValueError(
            f"the environment variable {_PASSES_VARIABLE} is 'none' or 'all', not {wanted!r}"
        )
    return wanted == "all"


def default_passes(target: Target = ANY, *, optimize: bool = True) -> list[GraphPass]:
    """The passes that a step for this target goes through, in order.

    Args:
        target: `ANY` is for what is exported, which mostly CPU kernels run.
        optimize: False leaves out those that the graph would be right without.
    """
    # Without these, ONNX Runtime computes something else than the graph says, or nothing.
    first: list[GraphPass] = [] if target.is_cpu else [PortableMasks(compares=target != ANY)]
    last: list[GraphPass] = [OwnStatistics(), SerialScatters(), GuardResizes()]
    if target in (ANY, CPU):
        last.insert(0, ComputeInFloat32())
    if target.provider == "cuda":
        first, last = [*first, LowerForCuda(), ComputeInFloat32(BFLOAT16)], []
    if not optimize:
        return [*first, *last]
    passes: list[GraphPass] = [
        *([AddRowsOfFixedShape()] if target.provider == "cuda" else []),
        *first,
        UseSuperseding(),
        RemoveDeadCode(),
        FoldConstants(_evaluate),
        Simplify(),
        LeaveBroadcasting(),
        EliminateCommonSubexpressions(),
        RowSumsOfOutputs(),
        ScatterIntoSums(),
        SinkTransposes(),
        FoldScale(),
    ]
    if target.is_cpu:
        passes.append(ThresholdRepairs())
    if target in (ANY, CPU):
        passes += [
            FewMapsByTransposedConvolutions(),
            SplitSums(),
            SplitSoftmax(),
            ColumnSumsAsProducts(),
        ]
    return [*passes, RemoveDeadCode(), *last]


def _evaluate(
    op_type: str,
    inputs: Sequence[npt.NDArray[Any] | None],
    attributes: dict[str, Any],
    outputs: int,
) -> list[npt.NDArray[Any]]:
    """Constant folding with the kernels that the step itself runs on."""
    from onnxtape.runtime import values

    held = [None if x is None else np.asarray(x, order="C") for x in inputs]
    orts = [None if x is None else values.from_numpy(x) for x in held]
    made = executor().run(op_type, orts, attributes, outputs)
    return [np.array(values.to_numpy(made[i])) for i in range(outputs)]
