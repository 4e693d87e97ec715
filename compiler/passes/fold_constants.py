"""Replace what does not depend on the inputs by its value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxtape.compiler.autodiff import record_of
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.operators import RANDOM
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.subgraphs import unlink

Array = npt.NDArray[Any]
#: (op_type, inputs, attributes, number of outputs) -> outputs
Evaluator = Callable[[str, Sequence[Array | None], dict[str, Any], int], Sequence[Array]]

_CONTROL_FLOW = ("If", "Loop", "Scan")


class FoldConstants(GraphPass):
    """Evaluates nodes whose inputs are all constants, and takes values that shapes determine.

    A node is left alone when folding it would store more than `size_limit` elements that it makes
    out of fewer.

    Args:
        evaluate: runs one operator; default: ONNX's reference implementation.
        size_limit: in elements.
    """

    def __init__(self, evaluate: Evaluator | None = None, size_limit: int = 1024) -> None:
        self._evaluate = evaluate
        self._size_limit = size_limit

    def run(self, model: ir.Model) -> bool:
        graph = model.graph
        opset = model.opset_imports.get("", 21)
        builder = GraphBuilder(graph, opset=opset)
        evaluate = self._evaluate or functools.partial(evaluate_by_reference, opset=opset)
        removed = []
        for node in list(graph):
            if node.domain not in ("", "ai.onnx") or applies(node, *_CONTROL_FLOW, *RANDOM):
                continue
            if any(output.is_graph_output() for output in node.outputs):
                continue
            values = self._values(builder, node, evaluate)
            if values is None:
                continue
            for output, value in zip(node.outputs, values, strict=True):
                ir.convenience.replace_all_uses_with(output, builder.constant(value))
            unlink(node)
            removed.append(node)
        graph.remove(removed)
        return bool(removed)

    def _values(
        self, builder: GraphBuilder, node: ir.Node, evaluate: Evaluator
    ) -> list[Array] | None:
        known = [builder.constant_value(output) for output in node.outputs]
        if all(value is not None for value in known):
            return [value for value in known if value is not None]
        inputs = [None if x is None else builder.constant_value(x) for x in node.inputs]
        if any(x is not None and v is None for x, v in zip(node.inputs, inputs, strict=True)):
            return None
        # What is made out of little where it is used costs no storage.
        limit = max(self._size_limit, sum(np.size(x) for x in inputs if x is not None))
        if node.op_type == "ConstantOfShape" and inputs[0] is not None:
            limit = 1
            if np.prod(inputs[0], dtype=np.float64) > limit:
                return None
        shapes = [builder.shape(output) for output in node.outputs]
        if sum(math.prod(s) for s in shapes if is_static(s)) > limit:
            return None
        try:
            values = evaluate(
                node.op_type, inputs, dict(record_of(node).attributes), len(node.outputs)
            )
        except Exception:
            # Whatever is wrong with it, the runtime reports it when the step runs the node.
            return None
        if sum(np.size(v) for v in values) > limit:
            return None
        return [np.asarray(v) for v in values]


def evaluate_by_reference(
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: dict[str, Any],
    outputs: int,
    *,
    opset: int = 21,
) -> Sequence[Array]:
    """Run one operator in `onnx.reference`."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    plain = {
        k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v
        for k, v in attributes.items()
    }
    node = helper.make_node(
        op_type,
        ["" if x is None else f"x{i}" for i, x in enumerate(inputs)],
        [f"y{i}" for i in range(outputs)],
        **plain,
    )
    infos = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for i, x in enumerate(inputs)
        if x is not None
    ]
    graph = helper.make_graph(
        [node], "fold", infos, [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    feeds = {f"x{i}": x for i, x in enumerate(inputs) if x is not None}
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, feeds)]
