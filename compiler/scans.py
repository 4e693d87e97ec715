"""The backward pass of Scan, which is a Scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.iterations import Backward


class ScanBackward(Backward):
    keeps_shapes = True

    def other_inputs(self) -> dict[ir.Value, ir.Value]:
        return {}

    def emit(self, carried: Sequence[Any], stacked: int) -> list[Any]:
        n, count = self.n, self.count
        states = self.used(self.at_states)
        # The first tells how many iterations there are, so one is needed.
        slices = self.used(self.at_slices) or ([] if states else [0])
        in_axes = self.per_slice("scan_input_axes")
        in_directions = self.per_slice("scan_input_directions")
        out_axes = self.per_slice("scan_output_axes")
        out_directions = self.per_slice("scan_output_directions")
        axes, directions = [0] * len(states), [1] * len(states)
        inputs = [self.saved(self.states[k]) for k in states]
        values = [self.at_states[k] for k in states]
        for j in slices:
            values.append(self.at_slices[j])
            inputs.append(n.inputs[count + j])
            axes.append(in_axes[j])
            directions.append(1 - in_directions[j])
        for j, value in self.at_stacked.items():
            values.append(value)
            inputs.append(self.stacked_grads[j])
            axes.append(out_axes[j])
            directions.append(1 - out_directions[j])
        self.inner.subgraph.inputs.extend([*self.carried_inputs, *values])
        attributes = {
            "body": self.inner.subgraph,
            "num_scan_inputs": len(values),
            "scan_input_axes": axes,
            "scan_input_directions": directions,
        }
        if self.kept_slices:
            attributes["scan_output_axes"] = [in_axes[j] for j in self.kept_slices]
            attributes["scan_output_directions"] = [1 - in_directions[j] for j in self.kept_slices]
        return self.b.emit_with_subgraphs(
            "Scan", [*carried, *inputs], attributes, len(carried) + stacked, self.scope.values
        )
