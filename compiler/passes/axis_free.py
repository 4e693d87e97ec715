"""Operators that can work on transposed inputs as well, giving the transposed output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import BROADCASTING
from onnxtape.compiler.passes import applies

_UNARY = frozenset(
    [
        *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil"),
        *("Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not"),
        *("Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
        *("Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu"),
    ]
)
_REDUCTIONS = frozenset(
    f"Reduce{name}"
    for name in (
        *("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"),
    )
)
_ALONG_AN_AXIS = frozenset(["Concat", "Hardmax", "LogSoftmax", "Softmax"])


@dataclass(frozen=True, slots=True)
class AxisFree:
    """An operator's use of axes.

    Attributes:
        values: the inputs of the rank in question that are to be transposed with the output.
        others: places of the inputs that broadcast against these: constants, or of lower rank.
        keeps_rank: whether the outputs are to be transposed too; they stay as they are otherwise.
        axes: the place of the input that holds axes, if any.
        listed: those axes, or the attribute `axis`.
    """

    node: ir.Node
    values: list[ir.Value]
    others: tuple[int, ...] = ()
    keeps_rank: bool = True
    axes: int | None = None
    listed: tuple[int, ...] | None = None

    def turn(self, b: GraphBuilder, perm: tuple[int, ...]) -> None:
        """Make the operator work on inputs whose axis perm[i] is what axis i was.

        The inputs `values` are exchanged already.
        """
        node = self.node
        if applies(node, "Shape"):
            self._turn_shape(b, perm)
        elif applies(node, "Pad"):
            self._turn_pad(b, perm)
        elif "axis" in node.attributes and self.listed is not None:
            node.attributes["axis"] = ir.AttrInt64("axis", perm[self.listed[0]])
        elif self.axes is not None and self.listed is not None:
            moved = b.constant(np.asarray([perm[a] for a in self.listed], np.int64))
            node.resize_inputs(max(len(node.inputs), self.axes + 1))
            node.replace_input_with(self.axes, moved)
        back = [int(i) for i in np.argsort(perm)]
        for index in self.others:
            node.replace_input_with(index, _transposed(b, node, node.inputs[index], back))

    def reads_any(self, perm: tuple[int, ...]) -> bool:
        """Whether the outputs, which are not transposed, stay the same after `turn` with this."""
        if applies(self.node, "Shape") or self.listed is None:
            return True
        kept = [moved for axis, moved in enumerate(perm) if axis not in self.listed]
        return kept == sorted(kept)

    def _turn_pad(self, b: GraphBuilder, perm: tuple[int, ...]) -> None:
        """All axes' pads: ONNX Runtime 1.32 fails where it moves Transposes past `axes`."""
        node, given = self.node, self.node.inputs[1]
        assert given is not None
        pads = b.constant_value(given)
        assert pads is not None
        assert self.listed is not None
        moved = np.zeros((2, len(perm)), np.int64)
        for axis, widths in zip(self.listed, pads.reshape(2, -1).T, strict=True):
            moved[:, perm[axis]] = widths
        node.replace_input_with(1, b.constant(moved.reshape(-1)))
        if len(node.inputs) > 3:
            node.replace_input_with(3, None)
            node.resize_inputs(3)

    def _turn_shape(self, b: GraphBuilder, perm: tuple[int, ...]) -> None:
        node, graph = self.node, self.node.graph
        assert graph is not None
        start = node.attributes.pop("start", None)
        end = node.attributes.pop("end", None)
        kept = perm[start.as_int() if start else 0 : end.as_int() if end else None]
        whole = node.outputs[0]
        picked = ir.Node(
            "",
            "Gather",
            [whole, b.constant(np.asarray(kept, np.int64))],
            metadata_props=dict(node.metadata_props),
        )
        made = picked.outputs[0]
        made.name = b.unique_name("Gather")
        made.type, made.shape = whole.type, ir.Shape([len(kept)])
        whole.shape = ir.Shape([len(perm)])
        ir.convenience.replace_all_uses_with(whole, made)
        picked.replace_input_with(0, whole)
        graph.insert_after(node, picked)


def axis_free(b: GraphBuilder, node: ir.Node, rank: int) -> AxisFree | None:
    """How the operator uses axes, if it can work on its inputs of this rank transposed."""
    x = node.inputs[0] if node.inputs else None
    if node.domain not in ("", "ai.onnx") or x is None:
        return None
    if node.op_type in BROADCASTING:
        return _broadcasting(b, node, rank)
    if b.rank(x) != rank:
        return None
    if node.op_type in _UNARY:
        return AxisFree(node, [x])
    if node.op_type == "Shape":
        return AxisFree(node, [x], keeps_rank=False)
    if node.op_type in _ALONG_AN_AXIS:
        if "axis" not in node.attributes:
            return None
        values = [value for value in node.inputs if value is not None]
        return AxisFree(node, values, listed=(node.attributes["axis"].as_int() % rank,))
    if node.op_type in _REDUCTIONS:
        return _reduction(b, node, x, rank)
    if node.op_type not in ("Slice", "Pad"):
        return None
    given = node.inputs[3] if len(node.inputs) > 3 else None
    listed = _axes(b, given, rank)
    if node.op_type == "Slice" and listed is not None:
        return AxisFree(node, [x], axes=3, listed=listed)
    if node.op_type == "Pad":
        pads = node.inputs[1]
        listed = tuple(range(rank)) if given is None else listed
        if pads is not None and b.constant_value(pads) is not None and listed is not None:
            return AxisFree(node, [x], listed=listed)
    return None


def _broadcasting(b: GraphBuilder, node: ir.Node, rank: int) -> AxisFree | None:
    values, others = [], []
    for index, value in enumerate(node.inputs):
        shape = None if value is None else b.shape(value)
        if value is None or shape is None or len(shape) > rank:
            return None
        if all(d == 1 for d in shape) and len(shape) < rank:
            continue
        if len(shape) < rank or b.constant_value(value) is not None:
            others.append(index)
        else:
            values.append(value)
    return AxisFree(node, values, tuple(others)) if values else None


def _reduction(b: GraphBuilder, node: ir.Node, x: ir.Value, rank: int) -> AxisFree | None:
    keepdims = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    listed = _axes(b, axes, rank)
    if axes is not None and not listed:
        return None
    return AxisFree(
        node, [x], keeps_rank=bool(keepdims), axes=None if axes is None else 1, listed=listed
    )


def _axes(b: GraphBuilder, value: ir.Value | None, rank: int) -> tuple[int, ...] | None:
    known = None if value is None else b.constant_value(value)
    return None if known is None else tuple(int(a) % rank for a in known)


def _transposed(
    b: GraphBuilder, node: ir.Node, value: ir.Value | None, perm: list[int]
) -> ir.Value | None:
    """What broadcasts against transposed values as `value` does against these."""
    assert value is not None
    array = b.constant_value(value)
    missing = len(perm) - len(b.shape(value) or ())
    if array is not None:
        return b.constant(array.reshape((1,) * missing + array.shape).transpose(perm))
    with b.before(node):
        if missing:
            value = b.op("Unsqueeze", value, list(range(missing)))
        return b.op("Transpose", value, perm=perm)
