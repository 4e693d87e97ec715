"""The gradient by a convolution's kernel as a blocked convolution.

It is a convolution itself: of the image, with the maps' gradient as the kernel, where the images of
the batch are the channels, the image's channels the batch, and strides and dilations exchanged.
ONNX Runtime's Conv takes ten times as long for it as for the convolution it belongs to; a blocked
one takes as long. On two cores with AVX-512, 32x16x32x32 and 16 kernels of 3x3: 1.3 ms in all
instead of 2.9 by products, 64x128x28x28 and 128 kernels of 4x4 with stride 2: 36 instead of 71.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.notes import Composite, composites
from onnxtape.compiler.passes import GraphPass, applies
from onnxtape.compiler.passes.blocked.layout import NCHWC, BlockedWriter, known_sizes

#: The domain of operators that only graphs between two passes hold.
DOMAIN = "onnxtape"


class MarkKernelGradients(GraphPass):
    """Puts one node of a private operator in the place of the products that a gradient is made of.

    `BlockedConvolutions` lowers it. In between, other passes see what it takes and gives.
    """

    adds = frozenset(["KernelGradient"])
    may_grow = True
    domains: ClassVar[frozenset[str]] = frozenset([DOMAIN])

    def __init__(self, block: int) -> None:
        self.block = block

    def run(self, model: ir.Model) -> bool:
        noted = [c for c in composites(model.graph) if self._takes(c)]
        for composite in noted:
            old, maker = composite.output, composite.output.producer()
            assert maker is not None
            node = ir.Node(
                DOMAIN,
                composite.op_type,
                composite.inputs,
                attributes=[ir.AttrInt64s(k, v) for k, v in composite.attributes.items()],
                metadata_props=dict(maker.metadata_props),
            )
            value = node.outputs[0]
            value.type, value.shape = old.type, old.shape
            model.graph.insert_after(maker, node)
            ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
            value.name, old.name = old.name, f"{old.name}.products"
            node.name = f"{value.name}_node"
        return bool(noted)

    def _takes(self, composite: Composite) -> bool:
        if composite.op_type != "KernelGradient" or composite.output.dtype != ir.DataType.FLOAT:
            return False
        image, maps = (shape_of(value) for value in composite.inputs)
        if image is None or maps is None or len(image) != 4 or len(maps) != 4:
            return False
        if not is_static(image[1:]) or not is_static(maps[1:]):
            return False
        # Images of zeros fill up the last block; where they would be most of it, products are less.
        if isinstance(image[0], int) and 2 * image[0] < self.block:
            return False
        if (
            list(composite.attributes["group"]) != [1]
            or known_sizes(composite.inputs[1])[-3] % self.block
        ):
            return False
        return _cut(composite) is not None


def _cut(composite: Composite) -> tuple[list[int], list[int]] | None:
    """The pads that the image needs, and how much larger than the kernel the result then is.

    Strides may leave the image's end unseen: it is not padded, or the result has to be cut. None
    where the maps do not fit the image.
    """
    image, maps = (known_sizes(value)[-2:] for value in composite.inputs)
    given = composite.attributes
    pads, larger = list(given["pads"]), [0, 0]
    for i in range(2):
        size, places, stride = image[i], maps[i], given["strides"][i]
        reach = (given["kernel"][2 + i] - 1) * given["dilations"][i] + 1
        unseen = size + pads[i] + pads[i + 2] - reach - stride * (places - 1)
        if not 0 <= unseen < stride:
            return None
        spared = min(unseen, pads[i + 2])
        pads[i + 2] -= spared
        larger[i] = (unseen - spared) // given["dilations"][i]
    return pads, larger


def kernel_gradient(b: BlockedWriter, node: ir.Node) -> ir.Value:
    """The nodes that compute a marked gradient."""
    image, maps = node.inputs
    assert image is not None
    assert maps is not None
    attributes = {name: list(attr.as_ints()) for name, attr in node.attributes.items()}
    found = _cut(Composite(node.op_type, (image, maps), node.outputs[0], attributes))
    assert found is not None
    pads, larger = found
    outs, ins, *sizes = attributes["kernel"]
    strides, dilations = attributes["strides"], attributes["dilations"]
    batch = (shape_of(image) or ())[0]
    if not isinstance(batch, int) or batch % b.block:
        image, maps = _filled_up(b, image, pads), _filled_up(b, maps, [0, 0, 0, 0])
        pads = [0, 0, 0, 0]
    # How many channels of the image lie side by side.
    beside = b.block if _in_rows(b, attributes) else 1
    seen = _channels_in_rows(b, image) if beside > 1 else _as_image(b, image)
    made = b.conv(
        _with_edge(b, seen, [pads[0], beside * pads[1], pads[2], beside * pads[3]]),
        _as_kernel(b, maps),
        None,
        strides=dilations,
        dilations=[strides[0], beside * strides[1]],
    )
    whole = [size + more for size, more in zip(sizes, larger, strict=True)]
    shape = [ins // beside, outs // b.block, *whole, beside, b.block]
    table = b.reshape(made, shape)
    if any(larger):
        shape[2:4] = sizes
        table = b.op("Slice", [table, [0, 0], sizes, [2, 3]], shape)
    return _in_wanted_order(b, node, table, [outs, ins, *sizes])


def _in_rows(b: BlockedWriter, attributes: Mapping[str, list[int]]) -> bool:
    """Whether the channels of the image lie in its rows, rather than each in an image of its own.

    Rows of the result are then as many times longer, and faster: 31 ms instead of 42 for
    64x128x28x28 and 128 kernels of 4x4, on 2 cores. But it has fewer of them, and threads share it
    by rows (of 64 of the maps' channels).
    """
    outs, ins, height, _ = attributes["kernel"]
    rows = ins // b.block * height * -(-outs // 64)
    return ins % b.block == 0 and attributes["dilations"][1] == 1 and rows >= 3 * b.threads


def _as_image(b: BlockedWriter, image: ir.Value) -> ir.Value:
    """(n, ins, height, width) as ins blocked images of n channels, whole blocks of them."""
    turned = b.transpose(image, [1, 0, 2, 3])
    return b.op("ReorderInput", [turned], shape_of(turned) or (), NCHWC)


def _channels_in_rows(b: BlockedWriter, image: ir.Value) -> ir.Value:
    """As ins / block blocked images of n channels, a place's block of ins side by side."""
    ins, height, width = known_sizes(image)[-3:]
    block, batch = b.block, (shape_of(image) or ())[0]
    known = batch if isinstance(batch, int) else -1
    images = b.reshape(b.blocked(image), [1, known, ins * height, width])
    turned = b.op("ReorderInput", [images], shape_of(images) or (), NCHWC)
    if ins > block and known != block:
        blocks = -1 if known < 0 else known // block
        parts = b.reshape(turned, [blocks, ins // block, height * width * block * block])
        turned = b.transpose(parts, [1, 0, 2])
    return b.reshape(turned, [ins // block, known, height, width * block])


def _with_edge(b: BlockedWriter, image: ir.Value, pads: list[int]) -> ir.Value:
    """The blocked image with zeros around it.

    Convolutions whose kernels reach over the edge take three times as long. This one, with a kernel
    of a single 1 for each channel, copies, on all cores.
    """
    if not any(pads):
        return image
    count, channels, height, width = known_sizes(image)
    shape = [count, channels, height + pads[0] + pads[2], width + pads[1] + pads[3]]
    ones = b.constant(np.ones((channels, 1, 1, 1), np.float32))
    window = {"group": channels, "pads": pads, "kernel_shape": [1, 1]}
    return b.op("Conv", [image, ones], shape, NCHWC, **window)


def _filled_up(b: BlockedWriter, value: ir.Value, pads: list[int]) -> ir.Value:
    """(n, channels, height, width) with zeros around it, and images of zeros to fill a block."""
    batch, channels, height, width = shape_of(value) or ()
    assert isinstance(height, int)
    assert isinstance(width, int)
    top, left, bottom, right = pads
    shape = [None, channels, height + top + bottom, width + left + right]
    if isinstance(batch, int):
        missing = -batch % b.block
        shape[0] = batch + missing
        return b.op("Pad", [value, [0, 0, top, left, missing, 0, bottom, right]], shape)
    ends = [b.integers([0, 0, top, left]), b.missing(value), b.integers([0, bottom, right])]
    return b.op("Pad", [value, b.op("Concat", ends, [8], axis=0)], shape)


def _in_wanted_order(
    b: BlockedWriter, node: ir.Node, table: ir.Value, shape: list[int]
) -> ir.Value:
    """(ins / k, outs / block, height, width, k, block) as (outs, ins, height, width).

    Where that only is transposed to (height, width, ins, outs), in which channels-last layers keep
    their kernels, blocks are moved to there as they are.
    """
    outs, ins, *sizes = shape
    users = [use.node for use in node.outputs[0].uses()]
    if users and not node.outputs[0].is_graph_output() and all(map(_to_channels_last, users)):
        moved = b.reshape(b.transpose(table, [2, 3, 0, 4, 1, 5]), [*sizes, ins, outs])
        for user in users:
            ir.convenience.replace_all_uses_with(user.outputs[0], moved)
    return b.reshape(b.transpose(table, [1, 5, 0, 4, 2, 3]), shape)


def _to_channels_last(node: ir.Node) -> bool:
    return (
        applies(node, "Transpose")
        and list(node.attributes["perm"].as_ints()) == [2, 3, 1, 0]
        and not node.outputs[0].is_graph_output()
    )


def _as_kernel(b: BlockedWriter, maps: ir.Value) -> ir.Value:
    """(n, outs, height, width) as blocked kernels of n channels, whole blocks of them, to outs."""
    outs, height, width = known_sizes(maps)[-3:]
    block = b.block
    split = b.reshape(b.blocked(maps), [-1, block, outs // block, height, width, block])
    return b.reshape(b.transpose(split, [2, 0, 3, 4, 1, 5]), [outs, -1, height, width])
