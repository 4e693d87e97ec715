"""Tracing into a subgraph: the branches of a `cond`, the bodies of loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxtape import context
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import located
from onnxtape.compiler.subgraphs import GRADIENT_KEY, STOPPED, add_outputs
from onnxtape.engine import B
from onnxtape.errors import TracingError, VariableError
from onnxtape.symbolic import SymbolicContext
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


@dataclass(slots=True)
class _Slot:
    """A variable in a body.

    Attributes:
        outside: its value around the body.
        input: what stands for its value when the body begins.
        current: the value it has now.
    """

    outside: Tensor
    input: Tensor
    current: Tensor


class Body(SymbolicContext):
    """The symbolic context of a subgraph.

    Operations go into the subgraph. Tensors from around it are captured. Tapes that record around
    it do not see what happens inside: they see the node that holds the subgraph, and the compiler
    differentiates it.

    Args:
        name: of the subgraph.
        captured: shared by the branches of one node: what they use from outside.

    Attributes:
        parent: the context around it.
        captured: by their values in the graph.
    """

    def __init__(self, name: str, captured: dict[ir.Value, Tensor] | None = None) -> None:
        state = context.state
        assert state.symbolic is not None
        self.parent: SymbolicContext = state.symbolic
        self.builder = B.nested(name)
        self.captured: dict[ir.Value, Tensor] = {} if captured is None else captured
        self._around = (state.tapes, state.readings)
        self.hidden_tapes = [*self.parent.hidden_tapes, *state.tapes]
        self._slots: dict[Variable, _Slot] = {}
        self._aliases: dict[int, tuple[Tensor, ir.Value]] = {}

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Send operations into the subgraph."""
        state = context.state
        around = state.tapes, state.readings
        state.tapes, state.readings = [], []
        try:
            with context.entered(self):
                yield
        finally:
            state.tapes, state.readings = around

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Send operations to the context around, where its tapes see them."""
        state = context.state
        inside = state.tapes, state.readings
        state.tapes, state.readings = self._around
        try:
            with context.entered(self.parent):
                yield
        finally:
            state.tapes, state.readings = inside

    # SymbolicContext ------------------------------------------------------------------------------

    def read(self, variable: Variable) -> Tensor:
        slot = self._slots.get(variable)
        if slot is None:
            with self._outside():
                outside = variable.value
            value = self.builder.declare(variable.path, variable.dtype, variable.shape)
            tensor = Tensor._from_symbol(value, self)
            slot = self._slots[variable] = _Slot(outside, tensor, tensor)
        return slot.current

    def assign(self, variable: Variable, value: Tensor) -> None:
        self.read(variable)
        if self.hidden_tapes and is_floating(variable.dtype):
            value = self.stopped(value)
        elif value._symbolic is not self:
            value = Tensor._from_symbol(self.symbol(value), self)
        self.builder.refine_shape(value._symbol, variable.shape)
        self._slots[variable].current = value

    def created(self, variable: Variable) -> None:
        self.parent.created(variable)

    def symbol(self, tensor: Tensor) -> ir.Value:
        """The graph's value for a tensor: its own, or one from around, which is captured."""
        if tensor._symbolic is self:
            value: ir.Value = tensor._symbol
            return value
        alias = self._aliases.get(id(tensor))
        if alias is not None:
            return alias[1]
        symbol: ir.Value = self.parent.symbol(tensor)
        if self.captured.setdefault(symbol, tensor) is not tensor:
            # Tapes tell tensors apart (one may be behind a `stop_gradient`); so must the graph.
            with self._outside():
                copy = B.op("Identity", tensor)
            symbol = self.parent.symbol(copy)
            self.captured[symbol] = copy
        self._aliases[id(tensor)] = (tensor, symbol)
        return symbol

    def stopped(self, tensor: Tensor) -> Tensor:
        """The tensor, through which no gradient flows when the body is differentiated."""
        self.builder.provenance = context.provenance()
        (value,) = self.builder.emit("Identity", [self.symbol(tensor)], {})
        maker = value.producer()
        assert maker is not None
        maker.metadata_props[GRADIENT_KEY] = STOPPED
        return Tensor._from_symbol(value, self)

    # The subgraph ---------------------------------------------------------------------------------

    @property
    def graph(self) -> ir.Graph:
        graph: ir.Graph = self.builder.subgraph
        return graph

    def placeholder(self, name: str, dtype: np.dtype[Any], shape: Shape | None) -> Tensor:
        """A tensor that is to be an input."""
        value = self.builder.declare(name, dtype, shape or ())
        if shape is None:
            value.shape = None
        return Tensor._from_symbol(value, self)

    def assigned(self) -> list[Variable]:
        """The variables that were assigned in the body."""
        return [v for v, slot in self._slots.items() if slot.current is not slot.input]

    def value_outside(self, variable: Variable) -> Tensor:
        """The variable's value before the node."""
        return self._slots[variable].outside

    def close(
        self, inputs: Sequence[Tensor | Variable], outputs: Sequence[Tensor | Variable]
    ) -> None:
        """Make the subgraph's inputs and outputs; nothing is traced into it after.

        Args:
            inputs: placeholders, and variables whose values each iteration hands to the next.
            outputs: tensors, and variables for the values that they have now.

        Raises:
            VariableError: a variable among the inputs is watched by a tape outside.
        """
        for x in inputs:
            if isinstance(x, Variable):
                self._check_carried(x)
                x = self._slots[x].input
            self.graph.inputs.append(x._symbol)
        with self.tracing():
            values = [self.read(x) if isinstance(x, Variable) else x for x in outputs]
            self.builder.provenance = context.provenance()
            add_outputs(self.builder, [self.symbol(x) for x in values])
        brought = set(self.graph.inputs)
        for slot in self._slots.values():
            value = slot.input._symbol
            if value not in brought and value.uses():
                ir.convenience.replace_all_uses_with(value, self.symbol(slot.outside))

    def _check_carried(self, variable: Variable) -> None:
        if any(tape.watches(variable) for tape in self.hidden_tapes):
            raise VariableError(
                located(
                    f"variable '{variable.path}' is assigned in the body of a loop, and a "
                    "GradientTape around the loop would have to differentiate by each of its "
                    "values; make it one of the loop's variables and assign it after the loop, or "
                    "give the tape watch_accessed_variables=False",
                    context.provenance(),
                )
            )


def foreign(tensor: Tensor) -> TracingError:
    """What to say of a symbolic tensor that belongs elsewhere."""
    if isinstance(tensor._symbolic, Body):
        return TracingError(
            "a tensor made in a branch or in the body of a loop was used outside",
            "Return it from the function given to cond or to the loop",
        )
    return TracingError(
        "a symbolic tensor of another trace was used",
        "Pass it to the function as an argument, or return it from the other one",
    )
