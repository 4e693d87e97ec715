"""Conv and ConvTranspose by blocked convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import onnx_ir as ir

from onnxtape.compiler.inference import known_shape, shape_of
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.passes.blocked.kernel_gradients import DOMAIN, kernel_gradient
from onnxtape.compiler.passes.blocked.layout import NCHWC, BlockedWriter


class BlockedConvolutions(GraphPass):
    """Two-dimensional convolutions between whole blocks of channels, and what was marked.

    Args:
        block: the numbers in a block, see `runtime.blocked_layout.block_size`.
        threads: how many share an operator's work.
    """

    adds = frozenset(
        [
            *("Concat", "Conv", "ReorderInput", "ReorderOutput", "Reshape", "Slice", "Transpose"),
            # To fill up blocks.
            *("Add", "Div", "Max", "Mul", "Pad", "Shape", "Sub"),
        ]
    )
    may_grow = True
    domains: ClassVar[frozenset[str]] = frozenset([NCHWC])

    def __init__(self, block: int, threads: int) -> None:
        self.block = block
        self.threads = threads

    def run(self, model: ir.Model) -> bool:
        writer = BlockedWriter(model, self.block, self.threads)
        changed = False
        for node in list(model.graph):
            writer.before(node)
            made = None
            if applies(node, "Conv"):
                made = _conv(writer, node)
            elif applies(node, "ConvTranspose"):
                made = _conv_transpose(writer, node)
            elif node.domain == DOMAIN:
                made = kernel_gradient(writer, node)
            if made is not None:
                writer.replace(node, made)
                changed = True
        if changed:
            model.graph.opset_imports[NCHWC] = 1
        return changed


@dataclass(frozen=True, slots=True)
class _Window:
    """The attributes of a node that these rewrites understand."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    more: list[int]


def _window(node: ir.Node, kernel: list[int]) -> _Window | None:
    """None where something else is asked for: groups, pads or sizes that go by the image."""

    def ints(name: str, default: list[int]) -> list[int]:
        given = node.attributes.get(name)
        return default if given is None else list(given.as_ints())

    group, auto_pad = node.attributes.get("group"), node.attributes.get("auto_pad")
    if group is not None and group.as_int() != 1:
        return None
    if auto_pad is not None and auto_pad.as_string() != "NOTSET":
        return None
    if "output_shape" in node.attributes:
        return None
    return _Window(
        kernel,
        ints("strides", [1, 1]),
        ints("dilations", [1, 1]),
        ints("pads", [0, 0, 0, 0]),
        ints("output_padding", [0, 0]),
    )


def _kernel_sizes(node: ir.Node) -> list[int] | None:
    """The sizes of a float32 kernel with two spatial axes, all known; else None."""
    w = node.inputs[1]
    shape = known_shape(w)
    if w is None or w.dtype != ir.DataType.FLOAT or shape is None or len(shape) != 4:
        return None
    return list(shape)


def _conv(b: BlockedWriter, node: ir.Node) -> ir.Value | None:
    sizes = _kernel_sizes(node)
    window = None if sizes is None else _window(node, sizes[2:])
    if sizes is None or window is None:
        return None
    outs, ins = sizes[:2]
    # Products do as well where nothing has to be unfolded.
    if max(window.kernel) == 1 and max(window.strides) == 1:
        return None
    if outs % b.block or (ins % b.block and ins > b.block):
        return None
    x, w = node.inputs[:2]
    assert x is not None
    assert w is not None
    made = b.conv(
        b.blocked(x) if ins >= b.block else x,
        b.kernel(w, 0, 1),
        _bias(node),
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
    )
    made.shape = node.outputs[0].shape
    return b.plain(made, outs)


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


# ConvTranspose --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Phase:
    """The places o = stride * q + r of one axis of ConvTranspose's output, for one r.

    They are a convolution of the input with those elements of the kernel that meet them.
    """

    taps: slice
    before: int
    after: int


def _phases(size: int, kernel: int, stride: int, pads: tuple[int, int], more: int) -> list[_Phase]:
    """One for each r; none where they are not equally many places, or see too little.

    Element k of the kernel brings place i of the input to place stride * i + k - pads[0].
    """
    length = stride * (size - 1) + kernel + more - sum(pads)
    if length <= 0 or length % stride:
        return []
    found = []
    for r in range(stride):
        skipped, first = divmod(r + pads[0], stride)
        count = -(-(kernel - first) // stride)
        before = count - 1 - skipped
        after = length // stride - size + skipped
        if count < 1 or before < 0 or after < 0:
            return []
        found.append(_Phase(slice(first + stride * (count - 1), None, -stride), before, after))
    return found


def _conv_transpose(b: BlockedWriter, node: ir.Node) -> ir.Value | None:
    sizes = _kernel_sizes(node)
    window = None if sizes is None else _window(node, sizes[2:])
    x, w = node.inputs[:2]
    image = None if x is None else shape_of(x)
    if sizes is None or window is None or x is None or w is None or image is None:
        return None
    ins, outs = sizes[:2]
    places = [d for d in image[2:] if isinstance(d, int)]
    if len(places) != 2 or max(window.dilations) > 1 or outs % b.block or ins % b.block:
        return None
    down, across = (
        _phases(
            places[i],
            window.kernel[i],
            window.strides[i],
            (window.pads[i], window.pads[i + 2]),
            window.more[i],
        )
        for i in range(2)
    )
    if not down or not across:
        return None
    blocked = b.blocked(x)
    parts = [
        b.conv(
            blocked,
            b.kernel(w, 1, 0, (rows.taps, columns.taps)),
            _bias(node),
            pads=[rows.before, columns.before, rows.after, columns.after],
        )
        for rows, columns in product(down, across)
    ]
    shape = shape_of(node.outputs[0]) or ()
    if len(parts) == 1:
        whole = parts[0]
        whole.shape = ir.Shape(shape)
    else:
        height, width = (int(d) for d in shape[2:] if isinstance(d, int))
        whole = _interleaved(b, parts, len(across), [-1, outs, height, width])
        whole.shape = ir.Shape(shape)
    return b.plain(whole, outs)


def _interleaved(
    b: BlockedWriter, parts: list[ir.Value], across: int, shape: list[int]
) -> ir.Value:
    """The phases' places in their order, blocks of channels as they are."""
    rows = []
    for begin in range(0, len(parts), across):
        pixels = [b.reshape(part, [-1, b.block]) for part in parts[begin : begin + across]]
        rows.append(b.op("Concat", pixels, [None, across * b.block], axis=1))
    length = shape[3] * b.block
    lines = [b.reshape(row, [-1, length]) for row in rows]
    if len(lines) > 1:
        lines = [b.op("Concat", lines, [None, len(lines) * length], axis=1)]
    return b.reshape(lines[0], shape)
