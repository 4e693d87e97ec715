"""Corrections of inferred shapes of pooling and image operators; see `shape_corrections`."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.dims import Dim, Shape, plain


def pooled(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """With ceil_mode a last window that begins beyond the image is left out.

    The library forgets that where sizes are symbols, and onnx's own inference always: what it
    takes for one more is left open, or its checker objects. SAME pads with strides of 1 keep sizes.
    """
    x, out = shapes[0], node.outputs[0].shape
    if x is None or out is None:
        return None
    attributes = node.attributes
    window = attributes["kernel_shape"].as_ints()
    strides = attributes["strides"].as_ints() if "strides" in attributes else [1] * len(window)
    auto_pad = attributes["auto_pad"].as_string() if "auto_pad" in attributes else "NOTSET"
    dims = list(plain(out.dims))
    ceil_mode = "ceil_mode" in attributes and attributes["ceil_mode"].as_int() != 0
    padded = "pads" in attributes and any(attributes["pads"].as_ints())
    for axis, stride in enumerate(strides, 2):
        is_symbol = not isinstance(x[axis], int)
        if auto_pad.startswith("SAME"):
            if is_symbol:
                dims[axis] = x[axis] if stride == 1 else None
        elif ceil_mode and (is_symbol or padded):
            dims[axis] = None
    return [tuple(dims)] * len(node.outputs)


def unpooled(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """The library leaves sizes open where no output_shape is given."""
    x, attributes = shapes[0], node.attributes
    if x is None or (len(node.inputs) > 2 and node.inputs[2] is not None):
        return None
    window = attributes["kernel_shape"].as_ints()
    strides = attributes["strides"].as_ints() if "strides" in attributes else [1] * len(window)
    pads = attributes["pads"].as_ints() if "pads" in attributes else [0] * 2 * len(window)
    dims: list[Dim] = list(x[:2])
    for i, size in enumerate(x[2:]):
        cut = pads[i] + pads[i + len(window)]
        known = isinstance(size, int)
        dims.append((int(str(size)) - 1) * strides[i] + window[i] - cut if known else None)
    return [tuple(dims)]


def regions(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """One result for each region, with the image's channels; the library forgets symbols."""
    x, rois, out = shapes[0], shapes[1], node.outputs[0].shape
    if x is None or rois is None or out is None:
        return None
    bins = [d if isinstance(d, int) else None for d in out.dims[2:]]
    return [(rois[0], x[1], *bins)]


def resized(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """Sizes that keep the aspect ratio are rounded; the library takes the next smaller number."""
    policy = node.attributes.get("keep_aspect_ratio_policy")
    if shapes[0] is None or policy is None or policy.as_string() == "stretch":
        return None
    rank = len(shapes[0])
    axes = node.attributes["axes"].as_ints() if "axes" in node.attributes else range(rank)
    changed = {axis % rank for axis in axes}
    return [tuple(None if i in changed else d for i, d in enumerate(shapes[0]))]


def affine_grid(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """A size that is computed has a known length at least."""
    theta, size = shapes
    if node.outputs[0].shape is not None or size is None or not isinstance(size[0], int):
        return None
    spatial = size[0] - 2
    return [(None if theta is None else theta[0], *[None] * spatial, spatial)]
