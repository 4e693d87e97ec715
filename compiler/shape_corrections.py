"""Corrections of inferred shapes, for operators that `onnx-shape-inference` takes wrongly.

`inference.infer` applies them after the library's own inference.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxtape.compiler.convolution_shapes import conv, conv_transpose
from onnxtape.compiler.dims import Dim, Shape, broadcast_dim, plain, shape_of
from onnxtape.compiler.equations import einsum_labels
from onnxtape.compiler.image_shapes import affine_grid, pooled, regions, resized, unpooled
from onnxtape.compiler.sequence_shapes import concat_from_sequence, sequence_at

#: The shapes of a node's outputs, from those of its inputs; None: the library's will do.
Correction = Callable[[ir.Node, list[Shape | None]], list[Shape | None] | None]


def einsum(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """An index is as long as all its occurrences broadcast to; the library takes the first.

    So does onnx's own inference: a size that it takes for 1 is left open, or its checker objects.
    """
    known = [s for s in shapes if s is not None]
    if len(known) < len(shapes):
        return None
    equation = node.attributes["equation"].as_string()
    terms, out = einsum_labels(equation, [len(s) for s in known])
    sizes: dict[str, Dim] = {}
    for labels, shape in zip(terms, known, strict=True):
        for label, dim in zip(labels, shape, strict=True):
            first = sizes.setdefault(label, dim)
            sizes[label] = None if first is None or first == 1 != dim else broadcast_dim(first, dim)
    return [tuple(sizes[label] for label in out)]


def unique(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """Along an axis, Y keeps the other dimensions; the library takes it for a vector."""
    if "axis" not in node.attributes:
        return None
    shape = shapes[0]
    if shape is None:
        return [None]
    axis = node.attributes["axis"].as_int() % len(shape)
    return [(*shape[:axis], None, *shape[axis + 1 :])]


def stft(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """onnx's own inference forgets that spectra are one-sided by default.

    There the number of bins is left open, or its checker objects.
    """
    inferred = node.outputs[0].shape
    if inferred is None or "onesided" in node.attributes:
        return None
    batch, frames = plain(inferred.dims[:2])
    return [(batch, frames, None, 2)]


def loop(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """A Loop that runs no iteration gives its states as they came in; the library looks inside.

    It also takes for granted that a Loop ends after the number of iterations that it may run.
    """
    inferred = [shape_of(output) for output in node.outputs]
    states: list[Shape | None] = []
    for before, after in zip(shapes[2:], inferred, strict=False):
        if before is None or after is None or len(before) != len(after):
            states.append(None)
            continue
        states.append(tuple(x if x == y else None for x, y in zip(before, after, strict=True)))
    stacks = inferred[len(states) :]
    if _may_end_early(node):
        stacks = [None if shape is None else (None, *shape[1:]) for shape in stacks]
    return [*states, *stacks]


def _may_end_early(node: ir.Node) -> bool:
    body = node.attributes["body"].as_graph()
    again: ir.Value | None = body.outputs[0]
    while (maker := None if again is None else again.producer()) and maker.op_type == "Identity":
        again = maker.inputs[0]
    handed_on = again is body.inputs[1]
    conditions = [node.inputs[1], *([] if handed_on else [again])]
    return not all(x is None or _is_true(x) for x in conditions)


def _is_true(value: ir.Value) -> bool:
    known = ir.convenience.get_const_tensor(value)
    return known is not None and bool(known.numpy().all())


CORRECTIONS: dict[str, Correction] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Einsum": einsum,
    "STFT": stft,
    "ConcatFromSequence": concat_from_sequence,
    "SequenceAt": sequence_at,
    "Loop": loop,
    "Unique": unique,
    **dict.fromkeys(["AveragePool", "LpPool", "MaxPool"], pooled),
    "Resize": resized,
    "MaxUnpool": unpooled,
    "RoiAlign": regions,
    "MaxRoiPool": regions,
    "AffineGrid": affine_grid,
}
