"""What convolutions and poolings say of inputs that have not the axes they work on."""

from __future__ import annotations

from typing import Any

from onnxtape.compiler.dims import format_shape
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused

_SPATIAL = {1: ("steps",), 2: ("height", "width"), 3: ("depth", "height", "width")}


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
