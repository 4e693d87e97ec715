"""What the backward passes of Loop (`loops`) and Scan (`scans`) have in common.

Both run through the forward iterations from the last to the first. They carry the gradients of the
states, and sums of the gradients of what the body captures. Each iteration runs the forward body
again, on what its states were then: the forward node is given further scan outputs that bring them.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.autodiff import backward
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape, format_shape, may_be_equal, same_dim, same_shape
from onnxtape.compiler.dtypes import from_onnx
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal
from onnxtape.compiler.subgraphs import (
    Scope,
    add_outputs,
    copy_into,
    floats,
    influenced,
    records_of,
    remove_unused,
)


class Backward(abc.ABC):
    """The backward pass of one Loop or Scan.

    The body's inputs are `lead` others, the states, and slices of the scan inputs; its outputs are
    `lead_out` others, the states, and slices of the scan outputs. The node's inputs are as many as
    the body's, and then what is captured.
    """

    lead = 0
    lead_out = 0
    #: Whether the operator itself demands that states keep their shapes.
    keeps_shapes = False

    def __init__(
        self, b: Builder[Any], n: Record[Any], wanted: Sequence[bool], grads: Sequence[Any]
    ) -> None:
        self.b, self.n, self.wanted = b, n, wanted
        self.body: ir.Graph = n.attribute("body")
        self.node: ir.Node = b.symbol(n.outputs[0]).producer()
        inputs = list(self.body.inputs)
        self.count = len(inputs) - self.lead - n.attribute("num_scan_inputs", 0)
        first_slice = self.lead + self.count
        self.states, self.slices = inputs[self.lead : first_slice], inputs[first_slice:]
        self.next_states = list(self.body.outputs)[self.lead_out : self.lead_out + self.count]
        self.stacked = list(self.body.outputs)[self.lead_out + self.count :]
        self.state_grads, self.stacked_grads = list(grads[: self.count]), list(grads[self.count :])
        self.inner = b.nested(f"{self.body.name or 'body'}_backward")
        self.scope = Scope(b)
        #: States whose shape may change from iteration to iteration.
        self.changing: set[int] = set()
        # Captured values that get a gradient, by their place among the inputs.
        self.captured = {
            i: self.scope.symbol(x)
            for i, x in enumerate(n.inputs[len(inputs) :], start=len(inputs))
            if wanted[i]
        }
        for x in n.inputs[len(inputs) :]:
            self.scope.symbol(x)

    # What Loop and Scan do differently ------------------------------------------------------------

    @abc.abstractmethod
    def other_inputs(self) -> dict[ir.Value, ir.Value]:
        """What stands for the body's leading inputs when it runs again."""

    @abc.abstractmethod
    def emit(self, carried: Sequence[Any], stacked: int) -> list[Any]:
        """The backward node.

        Args:
            carried: the initial values of its states.
            stacked: how many scan outputs it has.
        """

    # What they have in common ---------------------------------------------------------------------

    def gradients(self) -> list[Any]:
        """One gradient per input of the record; see `gradients.control_flow`."""
        b, n, inner = self.b, self.n, self.inner
        carried = self._carried_states()
        self._check_tensors(carried)
        slices = [j for j in range(len(self.slices)) if self.wanted[self.lead + self.count + j]]

        # What an iteration is given. Nothing makes these values yet.
        self.at_states = [self._state_like(k) for k in range(self.count)]
        self.at_slices = [self._like(x, self._slice_shape(j)) for j, x in enumerate(self.slices)]
        cotangents = [self._like(self.at_states[k], self._kept_shape(k)) for k in carried]
        self.at_stacked = {
            j: self._like(self.stacked[j], self._cotangent_shape(j, g))
            for j, g in enumerate(self.stacked_grads)
            if g is not None
        }
        given = self.other_inputs()
        given.update(zip(self.states, self.at_states, strict=True))
        given.update(zip(self.slices, self.at_slices, strict=True))

        outputs = copy_into(inner, self.body, given)[self.lead_out :]
        self._check_shapes(outputs)
        sources = [
            *(self.at_states[k] for k in carried),
            *(self.at_slices[j] for j in slices),
            *self.captured.values(),
        ]
        found = backward(
            inner,
            records_of(inner.subgraph),
            [outputs[k] for k in carried] + [outputs[self.count + j] for j in self.at_stacked],
            sources,
            [*cotangents, *self.at_stacked.values()],
        )
        by_state = found[: len(carried)]
        by_slice = found[len(carried) : len(carried) + len(slices)]
        by_captured = dict(zip(self.captured, found[len(carried) + len(slices) :], strict=True))

        summed = [i for i, g in by_captured.items() if g is not None]
        kept = [j for j, g in zip(slices, by_slice, strict=True) if g is not None]
        totals = [self._like(x, shape_of(x)) for x in (self.captured[i] for i in summed)]
        results = [
            *(
                inner.full_like(cotangent, 0.0) if g is None else g
                for cotangent, g in zip(cotangents, by_state, strict=True)
            ),
            *(
                inner.op("Add", total, by_captured[i])
                for total, i in zip(totals, summed, strict=True)
            ),
            *(g for g in by_slice if g is not None),
        ]
        add_outputs(inner, results)
        remove_unused(inner.subgraph)
        self._check_tensors(self.used(self.at_states))
        self.carried_inputs = [*cotangents, *totals]
        self.kept_slices = kept

        initial = [
            b.full_like(n.outputs[k], 0.0) if self.state_grads[k] is None else self.state_grads[k]
            for k in carried
        ]
        initial += [b.full_like(n.inputs[i], 0.0) for i in summed]
        if not results:
            return [None] * len(n.inputs)
        made = self.emit(initial, len(kept))
        gradients: list[Any] = [None] * len(n.inputs)
        places = [self.lead + k for k in carried] + summed
        places += [self.lead + self.count + j for j in kept]
        for i, gradient in zip(places, made, strict=True):
            gradients[i] = gradient
        return gradients

    def _carried_states(self) -> list[int]:
        """The states through which a gradient flows, from a target and towards what wants one."""
        records = records_of(self.body)
        roots = [x for j, x in enumerate(self.slices) if self.wanted[self.lead + self.count + j]]
        roots += self.captured.values()
        active = {k for k in range(self.count) if self.wanted[self.lead + k]}
        while True:
            reached = influenced(records, [*roots, *(self.states[k] for k in active)])
            grown = active | {
                k
                for k in range(self.count)
                if self.next_states[k] in reached and floats(self.states[k])
            }
            if grown == active:
                break
            active = grown
        ends = {self.stacked[j] for j, g in enumerate(self.stacked_grads) if g is not None}
        needed = {k for k in active if self.state_grads[k] is not None}
        influence = {k: influenced(records, [self.states[k]]) for k in active}
        while True:
            goals = ends | {self.next_states[k] for k in needed}
            grown = {k for k in active if k in needed or influence[k] & goals}
            if grown == needed:
                return sorted(needed)
            needed = grown

    def _like(self, value: ir.Value, shape: Shape | None) -> ir.Value:
        """A value of that dtype, of the backward body, that nothing makes yet."""
        if not isinstance(value.type, ir.TensorType):
            raise Refusal(f"nothing tells the dtype of its body's '{value.name}'")
        made: ir.Value = self.inner.declare(
            value.name or "value", from_onnx(value.type.dtype.value), shape or ()
        )
        if shape is None:
            made.shape = None
        return made

    def _state_like(self, k: int) -> ir.Value:
        state = self.states[k]
        if state.type is None:
            state.type = self.b.symbol(self.n.inputs[self.lead + k]).type
        declared = shape_of(state)
        if not isinstance(state.type, ir.TensorType):
            return ir.Value(name=self.inner.claim_name(state.name or "state"), type=state.type)
        initial = self.b.shape(self.n.inputs[self.lead + k])
        return self._like(state, initial if declared is None else declared)

    def _kept_shape(self, k: int) -> Shape | None:
        """What a state's shape, and so its gradient's, is known to be in all iterations."""
        before, after = shape_of(self.at_states[k]), shape_of(self.next_states[k])
        if self.keeps_shapes or before is None or after is None or len(before) != len(after):
            return before
        return tuple(x if same_dim(x, y) else None for x, y in zip(before, after, strict=True))

    def _check_tensors(self, states: Iterable[int]) -> None:
        """States that carry gradients, or that the backward pass needs, are tensors."""
        for k in states:
            if not isinstance(self.states[k].type, ir.TensorType):
                raise Refusal(
                    f"its state '{self.states[k].name}' holds no tensor but {self.states[k].type}; "
                    "use a tensor of a fixed shape, or a scan output"
                )

    def _check_shapes(self, outputs: Sequence[ir.Value]) -> None:
        """States keep their shapes, as far as they are declared, else provably."""
        for k, (before, after) in enumerate(zip(self.at_states, outputs, strict=False)):
            if k == self.count:
                break
            given, made = shape_of(before), shape_of(after)
            if self.keeps_shapes or same_shape(given, made):
                continue
            if shape_of(self.states[k]) is not None and may_be_equal(given, made):
                self.changing.add(k)
                continue
            raise Refusal(
                f"its state '{self.states[k].name}' changes its shape, or may do so, from "
                f"{format_shape(given)} to {format_shape(made)} in an iteration; keep the shape "
                "the same, and declare it on the body's inputs"
            )

    def _slice_shape(self, j: int) -> Shape | None:
        declared = shape_of(self.slices[j])
        if declared is not None:
            return declared
        whole = self.b.shape(self.n.inputs[self.count + j])
        return _without(whole, self.per_slice("scan_input_axes")[j])

    def _cotangent_shape(self, j: int, grad: Any) -> Shape | None:
        return _without(self.b.shape(grad), self.per_slice("scan_output_axes")[j])

    def used(self, values: Iterable[ir.Value]) -> list[int]:
        """Which of them the backward body uses."""
        return [i for i, x in enumerate(values) if x.uses()]

    def saved(self, value: ir.Value) -> Any:
        """The scan output of the forward node that brings what an input of its body was."""
        axes = self.per_slice("scan_output_axes")
        directions = self.per_slice("scan_output_directions")
        for j, output in enumerate(self.stacked):
            maker = output.producer()
            if maker is None or maker.op_type != "Identity" or maker.inputs[0] is not value:
                continue
            if axes[j] == directions[j] == 0:
                return self.n.outputs[self.count + j]
        output = self.b.nested("body", self.body).op("Identity", value)
        self.body.outputs.append(output)
        for name in ("scan_output_axes", "scan_output_directions"):
            if name in self.node.attributes:
                numbers = [*self.node.attributes[name].as_ints(), 0]
                self.node.attributes[name] = ir.AttrInt64s(name, numbers)
        shape = shape_of(value)
        known = None if shape is None else ir.Shape([self.length(), *shape])
        (made,) = self.b.add_outputs(self.n, [(value.type, known)])
        return made

    def per_slice(self, attribute: str) -> list[int]:
        """An attribute with a number for each scan input or output, 0 where it says nothing."""
        count = len(self.slices) if "input" in attribute else len(self.stacked)
        # The node's own: since the record was made, outputs may have been added.
        if attribute not in self.node.attributes:
            return [0] * count
        return list(self.node.attributes[attribute].as_ints())

    def length(self) -> int | str | None:
        """The number of iterations as a dimension."""
        axes = self.per_slice("scan_output_axes")
        for output, axis in zip(self.node.outputs[self.count :], axes, strict=False):
            shape = shape_of(output)
            if shape is not None:
                return shape[axis]
        return None


def _without(shape: Shape | None, axis: int) -> Shape | None:
    if shape is None:
        return None
    axis %= len(shape)
    return (*shape[:axis], *shape[axis + 1 :])
