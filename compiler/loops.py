"""The backward pass of Loop, which is a Loop.

It is no Scan, since ONNX Runtime's Scan takes no empty input, as there is after no iterations. It
picks what it needs by index, so that second derivatives through Loops take time that grows with the
square of the number of iterations; through Scans they do not. So does a first derivative where a
state changes its shape, and is computed again for each iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.iterations import Backward
from onnxtape.compiler.subgraphs import add_outputs, copy_into, remove_unused


class LoopBackward(Backward):
    lead = 2
    lead_out = 1

    def other_inputs(self) -> dict[ir.Value, ir.Value]:
        iteration, condition = self.body.inputs[:2]
        self.at_iteration = self._like(iteration, ())
        # An iteration that ran, ran because its condition held.
        shape = shape_of(condition) or ()
        return {
            iteration: self.at_iteration,
            condition: self.inner.constant(np.ones([1] * len(shape), bool)),
        }

    def emit(self, carried: Sequence[Any], stacked: int) -> list[Any]:
        b, inner = self.b, self.inner
        graph = inner.subgraph
        states = self.used(self.at_states)
        brought = {
            self.at_states[k]: self.saved(self.states[k]) for k in states if k not in self.changing
        }
        brought.update(
            (value, self.stacked_grads[j]) for j, value in self.at_stacked.items() if value.uses()
        )
        trips = next(iter(brought.values()), None)
        if trips is None:
            trips = self.saved(self.body.inputs[0])
        count = b.op("Squeeze", b.dim_tensor(trips, 0))
        last = self.scope.symbol(b.op("Sub", count, 1))

        def declare(name: str, dtype: Any) -> ir.Value:
            made: ir.Value = inner.declare(name, np.dtype(dtype), ())
            return made

        step, condition = declare("step", np.int64), declare("keep_going", np.bool_)
        before = list(graph)
        place = inner.op("Sub", last, step)
        ir.convenience.replace_all_uses_with(self.at_iteration, place)
        for value, whole in brought.items():
            part = inner.op("Gather", self.scope.symbol(whole), place, axis=0)
            inner.refine_shape(part, shape_of(value))
            ir.convenience.replace_all_uses_with(value, part)
        if self.changing.intersection(states):
            for k, again in enumerate(self._states_again(place)):
                if k in self.changing:
                    ir.convenience.replace_all_uses_with(self.at_states[k], again)
        known = set(before)
        made = [node for node in graph if node not in known]
        if before:
            graph.remove(made)
            graph.insert_before(before[0], made)
        graph.inputs.extend([step, condition, *self.carried_inputs])
        graph.outputs.insert(0, inner.op("Identity", condition))
        true = b.constant(np.asarray(True))
        return b.emit_with_subgraphs(
            "Loop",
            [count, true, *carried],
            {"body": graph},
            len(carried) + stacked,
            self.scope.values,
        )

    def _states_again(self, place: ir.Value) -> Sequence[ir.Value]:
        """The states that iteration `place` began with, from a Loop up to there.

        Those of changing shapes cannot be stacked, so that no scan output brings them.
        """
        again = self.inner.nested(f"{self.body.name or 'body'}_again")
        graph = again.subgraph
        given = {x: again.input_like(x) for x in self.body.inputs}
        made = copy_into(again, self.body, given)
        add_outputs(again, [again.constant(np.asarray(True)), *made[1 : 1 + self.count]])
        remove_unused(graph)
        outer = [self.b.constant(np.asarray(True)), *self.n.inputs[2 : 2 + self.count]]
        operands = [place, *map(self.scope.symbol, outer)]
        states: Sequence[ir.Value] = self.inner.emit("Loop", operands, {"body": graph}, self.count)
        return states
