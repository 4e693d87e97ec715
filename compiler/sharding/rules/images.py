"""Images: convolutions, pooling, sizes. Their first axis holds the batch, alone or with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxtape.compiler.sharding.local import PARTIAL, Local, rule
from onnxtape.compiler.sharding.placement import Placement, Shard


def _images(n: Local, axes: Sequence[int] = (0,)) -> Shard | None:
    """The shard that the first input is, if along one of these axes, and the others are whole."""
    shard = n.shard()
    others = range(1, len(n.placements))
    return shard if shard is not None and shard.axis in axes and n.is_replicated(*others) else None


def _of_equal_length(n: Local) -> Shard | None:
    """The same along any axis that is as long in the output."""
    shard = _images(n, range(len(n.out())))
    return shard if shard is not None and n.out()[shard.axis] == n.shape(0)[shard.axis] else None


@rule("Conv", "ConvTranspose", "GroupNormalization", "InstanceNormalization", "DepthToSpace")
def _image_by_image(n: Local) -> list[Placement] | None:
    shard = _images(n)
    return None if shard is None else [shard]


@rule("KernelGradient")
def _kernel_gradient(n: Local) -> list[Placement] | None:
    image, maps = n.shard(0), n.shard(1)
    return [PARTIAL] if image is not None and image == maps and image.axis == 0 else None


@rule("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool")
def _pooling(n: Local) -> list[Placement] | None:
    shard = _images(n, (0, 1))
    # Places of maxima are counted over all images.
    return None if shard is None or len(n.node.outputs) > 1 else [shard]


@rule("Resize")
def _resize(n: Local) -> list[Placement] | None:
    shard = _of_equal_length(n)
    if shard is None:
        return None
    if len(n.placements) > 3 and n.placements[3] is not None:
        sizes = n.constant(3)
        if sizes is None or len(sizes) != len(n.out()):
            return None
        n.constants[3] = np.where(np.arange(len(sizes)) == shard.axis, sizes // n.parts, sizes)
    return [shard]


@rule("Pad")
def _pad(n: Local) -> list[Placement] | None:
    shard = _of_equal_length(n)
    if shard is None:
        return None
    pads, axes = n.constant(1), n.constant(3)
    if pads is None or (axes is None and len(n.placements) > 3 and n.placements[3] is not None):
        return None
    padded = range(len(n.out())) if axes is None else [int(axis) % len(n.out()) for axis in axes]
    both = pads.reshape(2, -1)[:, [axis == shard.axis for axis in padded]]
    return None if both.any() else [shard]
