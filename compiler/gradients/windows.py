"""How kernels slide over images: what convolutions and their gradients know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel slides over an image.

    Attributes:
        pads: zeros before each spatial axis, then those after each; an int64 vector where they
            depend on sizes that are known only at run time.
    """

    strides: list[int]
    dilations: list[int]
    group: int
    pads: Any

    @classmethod
    def of(cls, b: B, n: N) -> Window:
        """The node's, but for its pads, which are the node's attribute or zeros."""
        rank = b.known_rank(n.required(0), f"{n.op_type}'s gradient") - 2
        return cls(
            list(n.attribute("strides") or [1] * rank),
            list(n.attribute("dilations") or [1] * rank),
            n.attribute("group", 1),
            list(n.attribute("pads") or [0] * 2 * rank),
        )

    @property
    def rank(self) -> int:
        return len(self.strides)

    @property
    def axes(self) -> list[int]:
        return list(range(2, self.rank + 2))

    @property
    def axes_from_0(self) -> range:
        return range(self.rank)

    @property
    def padless(self) -> Window:
        return replace(self, pads=[0] * 2 * self.rank)

    def extents(self, kernel: Sequence[int]) -> list[int]:
        """How far a kernel of these sizes reaches over the image."""
        return [(k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True)]

    def attributes(self) -> dict[str, Any]:
        """As Conv and ConvTranspose take them."""
        return {
            "strides": self.strides,
            "dilations": self.dilations,
            "group": self.group,
            "pads": self.pads,
        }


def padded(b: B, image: Any, window: Window) -> tuple[Any, Window]:
    """The image with pads that are known only at run time, and the window without them."""
    if isinstance(window.pads, list):
        return image, window
    none, rank = b.constant([0, 0]), window.rank
    before, after = (b.op("Slice", window.pads, [i], [i + rank], [0]) for i in (0, rank))
    pads = b.op("Concat", none, before, none, after, axis=0)
    return b.op("Pad", image, pads), window.padless


def spatial_sizes(b: B, value: Any) -> Shape:
    """The value's dimensions after batch and channels."""
    b.known_rank(value, "a convolution's gradient")
    return (b.shape(value) or ())[2:]
