"""Shapes, and places in an array."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.sharding.local import PARTIAL, REPLICATED, Local, only, rule
from onnxtape.compiler.sharding.placement import Placement, Shard, local_shape, reshaped

# Shapes ----------------------------------------------------------------------------------------


@rule("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def _reshape(n: Local) -> list[Placement] | None:
    before = n.shard()
    if before is None:
        return None
    after = reshaped(before, n.shape(0), n.out(), n.batch)
    if after is None:
        return None
    if n.node.op_type == "Reshape":
        n.constants[1] = np.asarray(local_shape(n.out(), after, n.parts), np.int64)
    return [after]


@rule("Expand")
def _expand(n: Local) -> list[Placement] | None:
    before = n.shard()
    if before is None:
        return None
    after = before.at(before.axis + len(n.out()) - len(n.shape(0)))
    n.constants[1] = np.asarray(local_shape(n.out(), after, n.parts), np.int64)
    return [after]


@rule("Transpose")
def _transpose(n: Local) -> list[Placement] | None:
    ((_, shard),) = n.shards()
    order = list(n.attribute("perm", range(len(n.out()) - 1, -1, -1)))
    return [shard.at(order.index(shard.axis))]


@rule("Concat")
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


@rule("Split")
def _split(n: Local) -> list[Placement] | None:
    shard = n.shard()
    if shard is None:
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


@rule("Slice")
def _slice(n: Local) -> list[Placement] | None:
    shard, starts, axes = n.shard(), n.constant(1), n.constant(3)
    if shard is None or starts is None or not n.is_replicated(2, 4):
        return None
    cut = range(len(starts)) if axes is None else [int(axis) % len(n.out()) for axis in axes]
    return None if shard.axis in cut else [shard]


# Indexing --------------------------------------------------------------------------------------


@rule("Gather")
def _gather(n: Local) -> list[Placement] | None:
    data, indices = n.placements[:2]
    axis = n.axis("axis", 0, len(n.shape(0)))
    if isinstance(indices, Shard):
        return [indices.at(axis + indices.axis)] if data is REPLICATED else None
    if not isinstance(data, Shard) or indices is not REPLICATED or data.axis == axis:
        return None
    return [data.at(data.axis + (len(n.shape(1)) - 1 if data.axis > axis else 0))]


@rule("GatherND")
def _gather_nd(n: Local) -> list[Placement] | None:
    data, indices = n.placements[:2]
    if data != Shard(0):
        return None
    if n.attribute("batch_dims", 0):
        return [data] if n.local(1, data) else None
    # Whose first index is the sample that they belong to: a part counts its samples from 0.
    places = n.constant(1) if indices is REPLICATED else None
    if places is None or places.ndim < 2 or len(places) != n.batch:
        return None
    own = np.reshape(places, (n.parts, -1, *places.shape[1:])).copy()
    own[..., 0] -= np.reshape(np.arange(n.parts) * own.shape[1], (-1, *[1] * (places.ndim - 1)))
    samples = np.reshape(np.arange(own.shape[1]), (-1, *[1] * (places.ndim - 2)))
    if (own != own[0]).any() or (own[0, ..., 0] != samples).any():
        return None
    n.constants[1] = own[0]
    return [data]


@rule("GatherElements", "ScatterElements")
def _elements(n: Local) -> list[Placement] | None:
    axis = n.axis("axis", 0, len(n.out()))
    shard = only({p for _, p in n.shards()})
    if shard is None or shard.axis == axis:
        return None
    whole = n.shape(0)[shard.axis]
    along = all(n.shape(i)[shard.axis] == whole for i in range(len(n.placements)))
    same = along and all(n.local(i, shard) for i in range(len(n.placements)))
    return [shard] if same else None


@rule("ScatterND")
def _scatter_nd(n: Local) -> list[Placement] | None:
    data, indices, updates = n.placements
    if isinstance(updates, Shard) and indices is REPLICATED:
        # Along axes of the data that the indices do not choose from.
        *given, chosen = n.shape(1)
        into = updates.at(updates.axis - len(given) + chosen)
        return [into] if into.axis >= chosen and n.local(0, into) else None
    if n.attribute("reduction", "none") != "add" or not isinstance(indices, Shard):
        return None
    if indices != updates or indices.axis == len(n.shape(1)) - 1:
        return None
    return [PARTIAL] if data is PARTIAL or _is_zero(n.node.inputs[0]) else None


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


@rule("OneHot")
def _one_hot(n: Local) -> list[Placement] | None:
    shard = n.shard()
    if shard is None or not n.is_replicated(1, 2):
        return None
    axis = n.axis("axis", -1, len(n.out()))
    return [shard.at(shard.axis + (shard.axis >= axis))]
