"""Running a graph with NumPy as a runtime would that updates state in place, in the worst way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from tests.compiler.graphs import Array

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mul": lambda x, y: x * y,
    "Neg": lambda x: -x,
    "Tanh": np.tanh,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
}
OTHERS: dict[str, Callable[..., Any]] = {
    "MatMul": lambda x, y: x @ y,
    "Transpose": lambda x: x.T.copy(),
    "ReduceSum": lambda x, axes: x.sum(axis=tuple(axes), keepdims=True),
    "Concat": lambda *x: np.concatenate(x, 0),
}


def simulate(
    graph: ir.Graph, feeds: Mapping[str, Array], in_place: Mapping[str, str]
) -> dict[str, Array]:
    """Run in file order; `in_place`: state input name -> output name that gets its memory."""
    memory = {name: array.copy() for name, array in feeds.items()}
    values: dict[int, Array] = {id(v): memory[v.name or ""] for v in graph.inputs}
    constants = {v for v in graph.initializers.values() if v.const_value is not None}
    values.update({id(v): v.const_value.numpy() for v in constants if v.const_value is not None})
    buffers = {target: memory[source] for source, target in in_place.items()}
    for node in graph:
        execute(node, values, buffers)
    return {v.name or "": values[id(v)].copy() for v in graph.outputs}


def execute(node: ir.Node, values: dict[int, Array], buffers: Mapping[str, Array]) -> None:
    out = node.outputs[0]
    if node.op_type == "If":
        chosen = "then_branch" if values[id(node.inputs[0])] else "else_branch"
        branch = node.attributes[chosen].as_graph()
        for inner in branch:
            execute(inner, values, buffers)
        values[id(out)] = values[id(branch.outputs[0])].copy()
        return
    operands = [values[id(x)] for x in node.inputs if x is not None]
    buffer = buffers.get(out.name or "")
    if node.op_type in ("Reshape", "Identity", "Expand"):
        shape = operands[1].tolist() if len(operands) > 1 else operands[0].shape
        expand = node.op_type == "Expand"
        view = np.broadcast_to(operands[0], shape) if expand else operands[0].reshape(shape)
        if buffer is not None:
            buffer[...] = view
        # What the caller gets is in memory of its own.
        own = view.copy() if out.is_graph_output() else view
        values[id(out)] = own if buffer is None else buffer
    elif node.op_type in ("Max", "Sum"):
        # As ONNX Runtime: the first two operands, then one more at a time into the result.
        combine = np.maximum if node.op_type == "Max" else np.add
        result = np.empty(np.broadcast_shapes(*[x.shape for x in operands]))
        result = result if buffer is None else buffer
        result[...] = combine(operands[0], operands[1])
        for x in operands[2:]:
            result[...] = combine(result, x)
        values[id(out)] = result
    elif node.op_type == "Gemm":
        # As ONNX Runtime: the third operand is copied to the result, then the product is added.
        product, added, result = operands[:2], operands[2], buffer
        result = np.empty_like(added) if result is None else result
        result[...] = added
        result += product[0] @ product[1]
        values[id(out)] = result
    elif node.op_type == "MatMul" and buffer is not None and operands[0].shape == (1, 2):
        # As ONNX Runtime's kernel for such products: each column is read before it is written.
        (first, second), (above, below) = operands[0][0], operands[1]
        buffer[...] = first * above + second * below
        values[id(out)] = buffer
    elif buffer is None:
        function = (ELEMENTWISE | OTHERS)[node.op_type]
        values[id(out)] = function(*operands)
    elif node.op_type in ELEMENTWISE:
        spread_out = [np.broadcast_to(x, buffer.shape) for x in operands]
        for place in np.ndindex(buffer.shape):
            buffer[place] = ELEMENTWISE[node.op_type](*[x[place] for x in spread_out])
        values[id(out)] = buffer
    else:
        # The result's memory is scratch while the operator still reads.
        buffer[...] = np.nan
        buffer[...] = OTHERS[node.op_type](*operands)
        values[id(out)] = buffer
