"""What operators make of inputs that are spread over parts of the batch.

A rule takes a node whose inputs are replicated, partial or shards, and says what its outputs then
are when every part runs the node on what it has; None where they are no such thing. A node without
a rule is one for the time after the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies
from onnxtape.compiler.sharding.placement import (
    Placement,
    Shard,
    Spread,
    local_shape,
    reshaped,
)

_REPLICATED, _PARTIAL = Spread.REPLICATED, Spread.PARTIAL


@dataclass
class Local:
    """A node as it is placed, and what a part has to change about it.

    Attributes:
        placements: of its inputs; None where one is omitted.
        batch: the number of samples.
        parts: how many parts they are divided into.
        cuts: replicated inputs of which a part takes its samples' elements.
        constants: inputs that a part replaces.
        averaged: whether a part's result counts as its share of a mean.
    """

    node: ir.Node
    placements: Sequence[Placement | None]
    batch: int
    parts: int
    cuts: dict[int, Shard] = field(default_factory=dict)
    constants: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    averaged: bool = False

    def shape(self, index: int) -> tuple[int, ...]:
        """The whole shape of an input."""
        return _static(self.node.inputs[index])

    def out(self, index: int = 0) -> tuple[int, ...]:
        """The whole shape of an output."""
        return _static(self.node.outputs[index])

    def shards(self) -> list[tuple[int, Shard]]:
        """The inputs that are shards."""
        return [(i, p) for i, p in enumerate(self.placements) if isinstance(p, Shard)]

    def is_replicated(self, *indices: int) -> bool:
        """Whether these inputs are replicated or omitted."""
        return all(
            i >= len(self.placements) or self.placements[i] in (None, _REPLICATED) for i in indices
        )

    def local(self, index: int, shard: Shard) -> bool:
        """Whether a part has these elements of an input, or can cut them out of all."""
        placed = self.placements[index]
        if placed is _REPLICATED and shard.outer == 1:
            self.cuts[index] = shard
            return True
        return placed == shard

    def attribute(self, name: str, default: Any) -> Any:
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """The value of an input, if it is a constant."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()

    def axis(self, name: str, default: int, rank: int) -> int:
        """An attribute that is an axis, counted from the front."""
        return int(self.attribute(name, default)) % rank


def _static(value: ir.Value | None) -> tuple[int, ...]:
    shape = shape_of(value)
    assert shape is not None
    return tuple(int(size) for size in shape if isinstance(size, int))


#: Operators that take partial sums too.
_ADDITIVE = ("Add", "Sub", "Sum")

Rule = Callable[[Local], "list[Placement] | None"]
_RULES: dict[str, Rule] = {}


def placed(n: Local) -> list[Placement] | None:
    """The placements of a node's outputs; None where no rule tells."""
    if not applies(n.node, *_RULES) or not (n.shards() or n.node.op_type in _ADDITIVE):
        return None
    return _RULES[n.node.op_type](n)


def _rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(op_types, rule))
        return rule

    return register


def _one(shards: set[Shard]) -> Shard | None:
    return next(iter(shards)) if len(shards) == 1 else None


# Element by element ---------------------------------------------------------------------------


@_rule(
    *("Abs", "Acos", "Acosh", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd"),
    *("BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh"),
    *("Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual"),
    *("HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less"),
    *("LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or"),
    *("PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"),
)
def _elementwise(n: Local) -> list[Placement] | None:
    rank = len(n.out())
    shard = _one({p.at(p.axis + rank - len(n.shape(i))) for i, p in n.shards()})
    return None if shard is None or not _broadcasts(n, shard, n.node.inputs) else [shard]


def _broadcasts(n: Local, shard: Shard, inputs: Sequence[ir.Value | None], first: int = 0) -> bool:
    """Whether inputs, from the first one on, can be had to make a shard of the output."""
    for i in range(first, len(inputs)):
        if inputs[i] is None:
            continue
        axis = shard.axis - (len(n.out()) - len(n.shape(i)))
        along = axis >= 0 and n.shape(i)[axis] != 1
        if not (n.local(i, shard.at(axis)) if along else n.is_replicated(i)):
            return False
    return True


@_rule(*_ADDITIVE)
def _additive(n: Local) -> list[Placement] | None:
    if all(p is _PARTIAL for p in n.placements):
        same = all(n.shape(i) == n.out() for i in range(len(n.placements)))
        return [_PARTIAL] if same else None
    return _elementwise(n)


# Products --------------------------------------------------------------------------------------


def _product(n: Local, left: Sequence[Any], right: Sequence[Any]) -> list[Placement] | None:
    """Of the first two inputs, whose axes are named: "k" is summed over, numbers are axes of the
    output. A third input is added."""
    names = (left, right)
    proposed: set[Shard] = set()
    summed: set[Shard] = set()
    for i, p in n.shards():
        name = names[i][p.axis] if i < 2 else p.axis + len(n.out()) - len(n.shape(i))
        (summed if name == "k" else proposed).add(p.at(0 if name == "k" else name))
    if summed:
        over = _one(summed)
        if over is None or proposed or not all(p in (None, _PARTIAL) for p in n.placements[2:]):
            return None
        both = all(n.local(i, over.at(list(names[i]).index("k"))) for i in range(2))
        return [_PARTIAL] if both else None
    shard = _one(proposed)
    if shard is None:
        return None
    for i in range(2):
        axis = list(names[i]).index(shard.axis) if shard.axis in names[i] else None
        along = axis is not None and n.shape(i)[axis] != 1
        if not (n.local(i, shard.at(axis or 0)) if along else n.is_replicated(i)):
            return None
    return [shard] if _broadcasts(n, shard, n.node.inputs, 2) else None


@_rule("MatMul")
def _matmul(n: Local) -> list[Placement] | None:
    ranks = [len(n.shape(0)), len(n.shape(1))]
    outer = max(*ranks, 2) - 2
    rank = len(n.out())
    left: list[Any] = [*range(outer - ranks[0] + 2, outer), outer, "k"] if ranks[0] > 1 else ["k"]
    right: list[Any] = [*range(outer - ranks[1] + 2, outer), "k", rank - 1]
    return _product(n, left, right if ranks[1] > 1 else ["k"])


@_rule("Gemm")
def _gemm(n: Local) -> list[Placement] | None:
    left: list[Any] = ["k", 0] if n.attribute("transA", 0) else [0, "k"]
    right: list[Any] = [1, "k"] if n.attribute("transB", 0) else ["k", 1]
    return _product(n, left, right)


# Over axes -------------------------------------------------------------------------------------


@_rule(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def _reduction(n: Local) -> list[Placement] | None:
    (shard,) = (p for _, p in n.shards())
    rank = len(n.shape(0))
    axes = n.attribute("axes", None)
    if len(n.placements) > 1 and n.placements[1] is not None:
        axes = n.constant(1)
        if axes is None:
            return None
    if axes is None or len(axes) == 0:
        if n.attribute("noop_with_empty_axes", 0):
            return [shard]
        axes = range(rank)
    over = {int(axis) % rank for axis in axes}
    if shard.axis in over:
        dtype = n.node.outputs[0].dtype
        n.averaged = n.node.op_type == "ReduceMean"
        if n.averaged and (dtype is None or not dtype.is_floating_point()):
            return None
        return [_PARTIAL] if n.averaged or n.node.op_type == "ReduceSum" else None
    return [shard.at(_without(shard.axis, over, n))]


def _without(axis: int, over: set[int], n: Local) -> int:
    """Where an axis is when others have been reduced."""
    return axis if n.attribute("keepdims", 1) else axis - sum(a < axis for a in over)


@_rule("ArgMax", "ArgMin")
def _argument(n: Local) -> list[Placement] | None:
    (shard,) = (p for _, p in n.shards())
    axis = n.axis("axis", 0, len(n.shape(0)))
    return None if axis == shard.axis else [shard.at(_without(shard.axis, {axis}, n))]


@_rule("Softmax", "LogSoftmax", "Hardmax")
def _over_one_axis(n: Local) -> list[Placement] | None:
    (shard,) = (p for _, p in n.shards())
    return None if n.axis("axis", -1, len(n.out())) == shard.axis else [shard]


@_rule("LayerNormalization", "RMSNormalization")
def _over_last_axes(n: Local) -> list[Placement] | None:
    shard = n.placements[0]
    if not isinstance(shard, Shard) or not n.is_replicated(1, 2):
        return None
    inside = shard.axis < n.axis("axis", -1, len(n.out()))
    return [shard] * len(n.node.outputs) if inside else None


@_rule("CumSum")
def _running_sum(n: Local) -> list[Placement] | None:
    shard, axis = n.placements[0], n.constant(1)
    if not isinstance(shard, Shard) or axis is None:
        return None
    return None if int(axis.reshape(())) % len(n.out()) == shard.axis else [shard]


# Shapes ----------------------------------------------------------------------------------------


@_rule("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def _reshape(n: Local) -> list[Placement] | None:
    before = n.placements[0]
    if not isinstance(before, Shard):
        return None
    after = reshaped(before, n.shape(0), n.out(), n.batch)
    if after is None:
        return None
    if n.node.op_type == "Reshape":
        n.constants[1] = np.asarray(local_shape(n.out(), after, n.parts), np.int64)
    return [after]


@_rule("Expand")
def _expand(n: Local) -> list[Placement] | None:
    before = n.placements[0]
    if not isinstance(before, Shard):
        return None
    after = before.at(before.axis + len(n.out()) - len(n.shape(0)))
    n.constants[1] = np.asarray(local_shape(n.out(), after, n.parts), np.int64)
    return [after]


@_rule("Transpose")
def _transpose(n: Local) -> list[Placement] | None:
    ((_, shard),) = n.shards()
    order = list(n.attribute("perm", range(len(n.out()) - 1, -1, -1)))
    return [shard.at(order.index(shard.axis))]


@_rule("Concat")
def _concat(n: Local) -> list[Placement] | None:
    axis = n.axis("axis", 0, len(n.out()))
    shards = [p for _, p in n.shards()]
    if shards[0].axis != axis:
        same = all(n.local(i, shards[0]) for i in range(len(n.placements)))
        return [shards[0]] if same else None
    group = n.batch * shards[0].inner
    pieces = []
    for i in range(len(n.placements)):
        outer, rest = divmod(n.shape(i)[axis], group)
        pieces.append(replace(shards[0], outer=outer))
        if rest or not n.local(i, pieces[-1]):
            return None
    return [replace(shards[0], outer=sum(piece.outer for piece in pieces))]


@_rule("Split")
def _split(n: Local) -> list[Placement] | None:
    shard = n.placements[0]
    if not isinstance(shard, Shard):
        return None
    if n.axis("axis", 0, len(n.shape(0))) != shard.axis:
        return [shard] * len(n.node.outputs)
    sizes = [n.out(i)[shard.axis] for i in range(len(n.node.outputs))]
    group = n.batch * shard.inner
    if any(size % group for size in sizes):
        return None
    if len(n.placements) > 1 and n.placements[1] is not None:
        n.constants[1] = np.asarray([size // n.parts for size in sizes], np.int64)
    elif len(set(sizes)) > 1:
        return None
    return [replace(shard, outer=size // group) for size in sizes]


@_rule("Slice")
def _slice(n: Local) -> list[Placement] | None:
    shard = n.placements[0]
    starts, axes = n.constant(1), n.constant(3)
    if not isinstance(shard, Shard) or starts is None or not n.is_replicated(2, 4):
        return None
    cut = range(len(starts)) if axes is None else [int(axis) % len(n.out()) for axis in axes]
    return None if shard.axis in cut else [shard]


# Indexing --------------------------------------------------------------------------------------


@_rule("Gather")
def _gather(n: Local) -> list[Placement] | None:
    data, indices = n.placements[:2]
    axis = n.axis("axis", 0, len(n.shape(0)))
    if isinstance(indices, Shard):
        return [indices.at(axis + indices.axis)] if data is _REPLICATED else None
    if not isinstance(data, Shard) or indices is not _REPLICATED or data.axis == axis:
        return None
    return [data.at(data.axis + (len(n.shape(1)) - 1 if data.axis > axis else 0))]


@_rule("GatherElements", "ScatterElements")
def _elements(n: Local) -> list[Placement] | None:
    axis = n.axis("axis", 0, len(n.out()))
    shard = _one({p for _, p in n.shards()})
    if shard is None or shard.axis == axis:
        return None
    whole = n.shape(0)[shard.axis]
    along = all(n.shape(i)[shard.axis] == whole for i in range(len(n.placements)))
    same = along and all(n.local(i, shard) for i in range(len(n.placements)))
    return [shard] if same else None


@_rule("ScatterND")
def _scatter_nd(n: Local) -> list[Placement] | None:
    data, indices, updates = n.placements
    if n.attribute("reduction", "none") != "add" or not isinstance(indices, Shard):
        return None
    if indices != updates or indices.axis == len(n.shape(1)) - 1:
        return None
    return [_PARTIAL] if data is _PARTIAL or _is_zero(n.node.inputs[0]) else None


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is zeros, which are a sum of zeros as well."""
    if value is None:
        return False
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return not np.any(tensor.numpy())
    node = value.producer()
    if node is None or node.op_type != "ConstantOfShape":
        return False
    fill = node.attributes.get("value")
    return fill is None or not np.any(fill.as_tensor().numpy())


@_rule("OneHot")
def _one_hot(n: Local) -> list[Placement] | None:
    shard = n.placements[0]
    if not isinstance(shard, Shard) or not n.is_replicated(1, 2):
        return None
    axis = n.axis("axis", -1, len(n.out()))
    return [shard.at(shard.axis + (shard.axis >= axis))]
