"""What convolutions and poolings say of inputs that have not the axes they work on."""

from __future__ import annotations

from typing import Any

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor

_SPATIAL = {1: ("steps",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def image_sizes(layer: Layer, x: Tensor, data_format: str) -> tuple[list[int], list[int]]:
    """The axes of height and width of an image or a batch, and their sizes.

    Raises:
        ShapeError: another rank, or sizes that are not known.
    """
    shape = B.shape(x) or ()
    last = len(shape) - (1 if data_format == "channels_last" else 0)
    sizes = [dim for dim in shape[last - 2 : last] if isinstance(dim, int)]
    if len(shape) not in (3, 4) or len(sizes) != 2:
        raise refused(
            f"{type(layer).__name__} '{layer.name}' takes images, or a batch of them, whose height "
            f"and width are known, not {format_shape(B.shape(x))}"
        )
    return [last - 2, last - 1], sizes


def wrong_rank(layer: Layer, rank: int, data_format: str, shape: Any) -> Exception:
    """The error of inputs that are not a batch of `rank` spatial axes with channels.

    Args:
        data_format: whose order the axes are listed in.
        shape: that of the inputs.
    """
    axes = (
        ("channels", *_SPATIAL[rank])
        if data_format == "channels_first"
        else (
            *_SPATIAL[rank],
            "channels",
        )
    )
    return refused(
        f"{type(layer).__name__} '{layer.name}' takes inputs of rank {rank + 2} "
        f"(batch, {', '.join(axes)}), not {format_shape(shape)}"
    )
