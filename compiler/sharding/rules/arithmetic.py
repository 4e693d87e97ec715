"""Arithmetic: element by element, products, over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.sharding.local import ADDITIVE, PARTIAL, Local, only, rule
from onnxtape.compiler.sharding.placement import Placement, Shard

# Element by element ---------------------------------------------------------------------------


@rule(
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
    shard = only({p.at(p.axis + rank - len(n.shape(i))) for i, p in n.shards()})
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


@rule(*ADDITIVE)
def _additive(n: Local) -> list[Placement] | None:
    if all(p is PARTIAL for p in n.placements):
        same = all(n.shape(i) == n.out() for i in range(len(n.placements)))
        return [PARTIAL] if same else None
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
        over = only(summed)
        if over is None or proposed or not all(p in (None, PARTIAL) for p in n.placements[2:]):
            return None
        both = all(n.local(i, over.at(list(names[i]).index("k"))) for i in range(2))
        return [PARTIAL] if both else None
    shard = only(proposed)
    if shard is None:
        return None
    for i in range(2):
        axis = list(names[i]).index(shard.axis) if shard.axis in names[i] else None
        along = axis is not None and n.shape(i)[axis] != 1
        if not (n.local(i, shard.at(axis or 0)) if along else n.is_replicated(i)):
            return None
    return [shard] if _broadcasts(n, shard, n.node.inputs, 2) else None


@rule("MatMul")
def _matmul(n: Local) -> list[Placement] | None:
    ranks = [len(n.shape(0)), len(n.shape(1))]
    outer = max(*ranks, 2) - 2
    rank = len(n.out())
    left: list[Any] = [*range(outer - ranks[0] + 2, outer), outer, "k"] if ranks[0] > 1 else ["k"]
    right: list[Any] = [*range(outer - ranks[1] + 2, outer), "k", rank - 1]
    return _product(n, left, right if ranks[1] > 1 else ["k"])


@rule("Gemm")
def _gemm(n: Local) -> list[Placement] | None:
    left: list[Any] = ["k", 0] if n.attribute("transA", 0) else [0, "k"]
    right: list[Any] = [1, "k"] if n.attribute("transB", 0) else ["k", 1]
    return _product(n, left, right)


# Over axes -------------------------------------------------------------------------------------


@rule(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def _reduction(n: Local) -> list[Placement] | None:
    ((_, shard),) = n.shards()
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
        return [PARTIAL] if n.averaged or n.node.op_type == "ReduceSum" else None
    return [shard.at(_without(shard.axis, over, n))]


def _without(axis: int, over: set[int], n: Local) -> int:
    """Where an axis is when others have been reduced."""
    return axis if n.attribute("keepdims", 1) else axis - sum(a < axis for a in over)


@rule("ArgMax", "ArgMin")
def _argument(n: Local) -> list[Placement] | None:
    ((_, shard),) = n.shards()
    axis = n.axis("axis", 0, len(n.shape(0)))
    return None if axis == shard.axis else [shard.at(_without(shard.axis, {axis}, n))]


@rule("Softmax", "LogSoftmax", "Hardmax")
def _over_one_axis(n: Local) -> list[Placement] | None:
    ((_, shard),) = n.shards()
    return None if n.axis("axis", -1, len(n.out())) == shard.axis else [shard]


@rule("LayerNormalization", "RMSNormalization")
def _over_last_axes(n: Local) -> list[Placement] | None:
    shard = n.shard()
    if shard is None or not n.is_replicated(1, 2):
        return None
    inside = shard.axis < n.axis("axis", -1, len(n.out()))
    return [shard] * len(n.node.outputs) if inside else None


@rule("CumSum")
def _running_sum(n: Local) -> list[Placement] | None:
    shard, axis = n.shard(), n.constant(1)
    if shard is None or axis is None:
        return None
    return None if int(axis.reshape(())) % len(n.out()) == shard.axis else [shard]
