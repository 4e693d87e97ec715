"""Loop and Scan for ONNX's reference evaluator, which has them in part.

The original Loop stacks scalars into columns, knows no scan outputs of no iterations, and runs no
iteration where the condition is omitted. The original Scan knows neither directions nor axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference.op_run import OpRun


def stacked(slices: Sequence[Any], output: onnx.ValueInfoProto, axis: int = 0) -> npt.NDArray[Any]:
    """The slices as one array, which is empty in the declared way where there are none."""
    if slices:
        return np.stack(slices, axis)
    declared = output.type.tensor_type
    shape = [d.dim_value for d in declared.shape.dim]
    shape.insert(axis, 0)
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type))


class Loop(OpRun):
    op_domain = ""

    def need_context(self) -> bool:
        return True

    def _run(
        self,
        trips: Any,
        condition: Any,
        *states: Any,
        context: Any = None,
        body: Any = None,
        attributes: Any = None,
    ) -> Any:
        going, count = condition is None or bool(condition), len(states)
        stacks: list[list[Any]] = [[] for _ in body.output_names[1 + count :]]
        step = 0
        while going and (trips is None or step < trips):
            given = (np.asarray(step, np.int64), np.asarray(True), *states)
            feeds = {**context, **dict(zip(body.input_names, given, strict=True))}
            going, *results = body.run(None, feeds, attributes=attributes)
            states = tuple(results[:count])
            for stack, value in zip(stacks, results[count:], strict=True):
                stack.append(value)
            step += 1
        outputs = body.proto_.output[1 + count :]
        return (*states, *map(stacked, stacks, outputs))


class Scan(OpRun):
    op_domain = ""

    def need_context(self) -> bool:
        return True

    def _run(
        self,
        *inputs: Any,
        context: Any = None,
        body: Any = None,
        num_scan_inputs: int = 0,
        scan_input_axes: Any = None,
        scan_input_directions: Any = None,
        scan_output_axes: Any = None,
        scan_output_directions: Any = None,
        attributes: Any = None,
    ) -> Any:
        count = len(inputs) - num_scan_inputs
        states, scanned = inputs[:count], inputs[count:]
        outputs = body.proto_.output[count:]
        in_axes = scan_input_axes or [0] * len(scanned)
        in_directions = scan_input_directions or [0] * len(scanned)
        out_axes = scan_output_axes or [0] * len(outputs)
        out_directions = scan_output_directions or [0] * len(outputs)
        (length,) = {x.shape[axis] for x, axis in zip(scanned, in_axes, strict=True)}
        stacks: list[list[Any]] = [[] for _ in outputs]
        for step in range(length):
            slices = [
                np.take(x, length - 1 - step if backward else step, axis)
                for x, axis, backward in zip(scanned, in_axes, in_directions, strict=True)
            ]
            feeds = {**context, **dict(zip(body.input_names, [*states, *slices], strict=True))}
            results = body.run(None, feeds, attributes=attributes)
            states = tuple(results[:count])
            for stack, value, backward in zip(stacks, results[count:], out_directions, strict=True):
                stack.insert(0 if backward else len(stack), value)
        return (*states, *map(stacked, stacks, outputs, out_axes))


CONTROL_FLOW: list[type[OpRun]] = [Loop, Scan]
