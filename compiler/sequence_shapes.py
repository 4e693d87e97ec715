"""What is known of the shapes of tensors in sequences, which types do not tell."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxtape.compiler.dims import Dim, Shape, same_dim, shape_of


def sequence_at(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """A tensor of the sequence; the library tells its dtype only."""
    return [_common(_held(node.inputs[0]))]


def concat_from_sequence(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """The tensors of the sequence, joined along an old or a new axis; the library tells none."""
    shape = _common(_held(node.inputs[0]))
    if shape is None:
        return None
    axis = node.attributes["axis"].as_int()
    if _int(node, "new_axis", 0):
        axis %= len(shape) + 1
        return [(*shape[:axis], None, *shape[axis:])]
    return [_with_dim(shape, axis, None)]


def _held(value: ir.Value | None) -> list[Shape | None]:
    """Shapes, one or another of which each tensor of the sequence has; none of an empty one."""
    node = None if value is None else value.producer()
    if node is None:
        return [None]
    if node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return [shape_of(x) for x in node.inputs]
    if node.op_type == "SequenceInsert":
        return [*_held(node.inputs[0]), shape_of(node.inputs[1])]
    if node.op_type in ("SequenceErase", "Identity"):
        return _held(node.inputs[0])
    if node.op_type == "SplitToSequence":
        return [_part(node)]
    return [None]


def _part(node: ir.Node) -> Shape | None:
    """The shape of the tensors that SplitToSequence makes."""
    shape, axis = shape_of(node.inputs[0]), _int(node, "axis", 0)
    if shape is None:
        return None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return _with_dim(shape, axis, None)
    if _int(node, "keepdims", 1):
        return _with_dim(shape, axis, 1)
    axis %= len(shape)
    return (*shape[:axis], *shape[axis + 1 :])


def _common(shapes: Sequence[Shape | None]) -> Shape | None:
    """What holds of all the shapes."""
    known = [s for s in shapes if s is not None]
    if not known or len(known) < len(shapes) or len({len(s) for s in known}) > 1:
        return None
    first = known[0]
    return tuple(
        dim if all(same_dim(dim, s[i]) for s in known) else None for i, dim in enumerate(first)
    )


def _with_dim(shape: Shape, axis: int, dim: Dim) -> Shape:
    axis %= len(shape)
    return (*shape[:axis], dim, *shape[axis + 1 :])


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
