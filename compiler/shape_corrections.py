"""Corrections of inferred shapes, for operators that `onnx-shape-inference` takes wrongly.

`inference.infer` applies them after the library's own inference.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxtape.compiler.convolution_shapes import conv, conv_transpose
from onnxtape.compiler.dims import Dim, Shape, broadcast_dim
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
    batch, frames = (d if isinstance(d, int) else d.value for d in inferred.dims[:2])
    return [(batch, frames, None, 2)]


def loop(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """A Loop that runs no iteration gives its states as they came in; the library looks inside."""
    states: list[Shape | None] = []
    for before, output in zip(shapes[2:], node.outputs, strict=False):
        if before is None or output.shape is None or len(before) != output.shape.rank():
            states.append(None)
            continue
        after = [d if isinstance(d, int) else d.value for d in output.shape.dims]
        states.append(tuple(x if x == y else None for x, y in zip(before, after, strict=True)))
    return states


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
