"""Corrections of inferred shapes of convolutions; see `shape_corrections`."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.dims import Dim, Shape, format_shape, shape_of


def conv(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """Channels must fit and the kernel must meet the image; sizes are rounded up as floors.

    The library checks neither, and its symbols hold no ceiling that it would read again.
    """
    x, w, dims = shapes[0], shapes[1], _dims(node)
    if x is None or w is None or dims is None:
        return None
    group = _int(node, "group", 1)
    if isinstance(x[1], int) and isinstance(w[1], int) and x[1] != w[1] * group:
        raise ValueError(
            f"kernels of shape {format_shape(w)} in {group} group(s) take images of "
            f"{w[1] * group} channels, not {x[1]}"
        )
    _check_outputs_split(w[0], group)
    strides = _ints(node, "strides") or [1] * len(dims[2:])
    same = _auto_pad(node).startswith("SAME")
    for axis, stride in enumerate(strides, 2):
        size, made = x[axis], dims[axis]
        if isinstance(size, int):
            if size > 0 and isinstance(made, int) and made <= 0:
                raise ValueError(
                    f"the kernel {format_shape(w[2:])} is larger than the padded image "
                    f"{format_shape(x[2:])}"
                )
        elif same:
            dims[axis] = size if stride == 1 else f"floor(({size} + {stride - 1})/{stride})"
    return [tuple(dims)]


def conv_transpose(node: ir.Node, shapes: list[Shape | None]) -> list[Shape | None] | None:
    """Channels must fit, which the library does not check.

    Where strides leave gaps that SAME cannot fill, ONNX and ONNX Runtime differ in the size.
    """
    x, w, dims = shapes[0], shapes[1], _dims(node)
    if x is None or w is None or dims is None:
        return None
    if isinstance(x[1], int) and isinstance(w[0], int) and x[1] != w[0]:
        raise ValueError(f"kernels of shape {format_shape(w)} take {w[0]} channels, not {x[1]}")
    _check_outputs_split(w[0], _int(node, "group", 1))
    if _auto_pad(node).startswith("SAME") and not _ints(node, "output_shape"):
        dilations = _ints(node, "dilations") or [1] * len(dims[2:])
        more = _ints(node, "output_padding") or [0] * len(dims[2:])
        for i, stride in enumerate(_ints(node, "strides") or []):
            kernel = w[i + 2]
            if not isinstance(kernel, int) or (kernel - 1) * dilations[i] + 1 + more[i] < stride:
                dims[i + 2] = None
    return [tuple(dims)]


def _check_outputs_split(count: Dim, group: int) -> None:
    if isinstance(count, int) and count % group:
        raise ValueError(f"{count} kernels do not split into {group} groups")


def _dims(node: ir.Node) -> list[Dim] | None:
    shape = shape_of(node.outputs[0])
    return None if shape is None else list(shape)


def _auto_pad(node: ir.Node) -> str:
    return node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _ints(node: ir.Node, name: str) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else []
