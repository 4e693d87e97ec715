"""How much a model from a stranger may make of itself while it is read.

A few bytes can stand for terabytes: a shape to expand to, functions that call functions twice each.
What is made is counted before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape.errors import ModelError
from onnxtape.runtime.weights import LARGEST_MODEL

if TYPE_CHECKING:
    import onnx

    from onnxtape.interop.graph import Node

#: More nodes than that are not inlined.
MOST_NODES = 1_000_000
# Longer inputs are no shapes.
_LONGEST_SHAPE = 64


class Budget:
    """The bytes that a model's constants may take, made ones included: `LARGEST_MODEL`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._spent = 0

    def spend(self, size: int, title: str) -> None:
        """Account for a constant.

        Raises:
            ModelError: it is too much.
        """
        self._spent += size
        if self._spent > LARGEST_MODEL:
            raise ModelError(
                f"'{self._source}' makes constants of more than {LARGEST_MODEL} bytes when it is "
                f"read; {title} makes {size}"
            )

    def fill(self, shape: npt.NDArray[Any], value: npt.NDArray[Any], title: str) -> Any:
        """An array of that shape and one value."""
        sizes = [int(d) for d in shape]
        if min(sizes, default=0) < 0:
            raise ModelError(f"'{self._source}' has {title} of shape {tuple(sizes)}")
        self.spend(math.prod(sizes) * value.itemsize, title)
        return np.full(sizes, value)

    def spend_on(self, node: Node, constants: Mapping[str, npt.NDArray[Any]]) -> None:
        """Account for what an operator on constants makes, as far as its shape is known before.

        Otherwise (NonZero and its like) it is no larger than what goes in.
        """
        import onnx
        from onnx import helper, numpy_helper

        names = [name for name in node.inputs if name]
        types = {
            name: helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(constants[name].dtype), constants[name].shape
            )
            for name in names
        }
        shapes = {
            name: numpy_helper.from_array(constants[name])
            for name in names
            if constants[name].size <= _LONGEST_SHAPE
        }
        attributes = {
            name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            for name, value in node.attributes.items()
        }
        proto = helper.make_node(node.op_type, node.inputs, node.outputs, **attributes)
        schema = onnx.defs.get_schema(node.op_type)
        try:
            made = onnx.shape_inference.infer_node_outputs(schema, proto, types, shapes)
        except onnx.shape_inference.InferenceError:
            return  # It will fail, and say why.
        for value in made.values():
            kind = value.tensor_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                item = helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
                count = math.prod(d.dim_value for d in kind.shape.dim)
                self.spend(count * item, node.title)


def require_few_nodes(model: onnx.ModelProto) -> None:
    """Count what inlining the local functions will give.

    Raises:
        ValueError: it is too much, or without end.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    counts: dict[tuple[str, str], int] = {}
    open_calls: set[tuple[str, str]] = set()

    def count(nodes: Any) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += counts[key] if key in counts else call(key) if key in bodies else 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    total += count(attribute.g.node)
        return total

    def call(key: tuple[str, str]) -> int:
        if key in open_calls:
            raise ValueError(f"its function {key[1]} calls itself")
        open_calls.add(key)
        counts[key] = count(bodies[key])
        open_calls.remove(key)
        return counts[key]

    if (total := count(model.graph.node)) > MOST_NODES:
        raise ValueError(f"its local functions stand for {total} nodes; {MOST_NODES} are allowed")
