"""Images changed by chance, while training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from onnxtape import ops, random
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.layers.noise import seeded_generator
from onnxtape.ops.convolution import checked_data_format
from onnxtape.tensor import Tensor


class _RandomImage(Layer):
    """Base of what happens to images in training only, to each another way."""

    def __init__(self, seed: Any = None, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.data_format = checked_data_format(data_format)
        self._generator = seeded_generator(seed, self.name)

    def call(self, inputs: Any, training: bool = True) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        if not training:
            return x
        alone = B.known_rank(x, f"{type(self).__name__} '{self.name}'") == 3
        batch = ops.expand_dims(x, 0) if alone else x
        first = self.data_format == "channels_first"
        changed = self.change(batch if first else ops.transpose(batch, (0, 3, 1, 2)))
        changed = changed if first else ops.transpose(changed, (0, 2, 3, 1))
        return ops.squeeze(changed, 0) if alone else changed

    def change(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width), changed; subclasses write this."""
        raise NotImplementedError(f"{type(self).__name__} has no change method")

    def draw(self, images: Tensor, low: float, high: float) -> Tensor:
        """A number for each image, (batch, 1, 1, 1)."""
        shape = (ops.shape(images)[0], 1, 1, 1)
        return random.uniform(shape, low, high, self.compute_dtype, self._generator)


class RandomFlip(_RandomImage):
    """Each image mirrored or not, by chance, while training.

    Args:
        mode: "horizontal", "vertical", or both of them, each by itself.
        seed: an int gives the layer a random stream of its own; by default the global one.
        data_format: "channels_last" (the default) or "channels_first".
    """

    def __init__(
        self,
        mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = (
            "horizontal_and_vertical"
        ),
        seed: Any = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        if mode not in ("horizontal", "vertical", "horizontal_and_vertical"):
            raise ValueError(
                f"RandomFlip's mode is 'horizontal', 'vertical' or 'horizontal_and_vertical', not "
                f"{mode!r}"
            )
        self.mode = mode

    def change(self, images: Tensor) -> Tensor:
        for word, axis in (("horizontal", 3), ("vertical", 2)):
            if word in self.mode:
                chosen = ops.less(self.draw(images, 0.0, 1.0), 0.5)
                images = ops.where(chosen, ops.flip(images, axis), images)
        return images


class _RandomGrid(_RandomImage):
    """Base of what samples each image at other places, while training."""

    _PADDING = {"reflect": "reflection", "nearest": "border", "constant": "zeros"}  # noqa: RUF012
    _MODES = {"bilinear": "linear", "nearest": "nearest"}  # noqa: RUF012

    def __init__(
        self, fill_mode: str, interpolation: str, fill_value: float, *base: Any, **kwargs: Any
    ) -> None:
        super().__init__(*base, **kwargs)
        if fill_mode not in self._PADDING or interpolation not in self._MODES or fill_value:
            raise ValueError(
                f"{type(self).__name__} takes fill_mode 'reflect', 'nearest' or 'constant' (with "
                f"zeros) and interpolation 'bilinear' or 'nearest', not {fill_mode!r} (with "
                f"{fill_value}) and {interpolation!r}"
            )
        self.fill_mode, self.interpolation = fill_mode, interpolation
        self.fill_value = fill_value

    def places(self, images: Tensor, height: Tensor, width: Tensor) -> list[list[Tensor]]:
        """Where an image is sampled: two rows of factors of x, y and 1, (batch, 1, 1) each.

        Coordinates go from -1 to 1 in both directions, whatever the sizes. Subclasses write this.
        """
        raise NotImplementedError(f"{type(self).__name__} has no places method")

    def change(self, images: Tensor) -> Tensor:
        size = B.shape_tensor(images)
        height, width = (ops.cast(ops.take(size, i), self.compute_dtype) for i in (2, 3))
        rows = [ops.concatenate(row, axis=2) for row in self.places(images, height, width)]
        grid = B.op("AffineGrid", ops.concatenate(rows, axis=1), size, align_corners=0)
        return B.op(
            "GridSample",
            images,
            grid,
            align_corners=0,
            mode=self._MODES[self.interpolation],
            padding_mode=self._PADDING[self.fill_mode],
        )

    def draw_one(self, images: Tensor, bounds: tuple[float, float]) -> Tensor:
        """A number for each image, (batch, 1, 1)."""
        return ops.reshape(self.draw(images, *bounds), (-1, 1, 1))


def _bounds(factor: float | Sequence[float]) -> tuple[float, float]:
    low, high = (-factor, factor) if isinstance(factor, (int, float)) else factor
    return float(low), float(high)


class RandomRotation(_RandomGrid):
    """Each image turned about its middle by another angle, while training.

    Args:
        factor: the largest angle to either side, as a share of a full turn; or (least, largest),
            counted against the clock.
        fill_mode: what lies outside of the image: "reflect" (d c b a | a b c d | d c b a),
            "nearest" (the edge), or "constant" (zeros).
        interpolation: "bilinear" or "nearest".
        seed: an int gives the layer a random stream of its own; by default the global one.
        fill_value: 0.
        data_format: "channels_last" (the default) or "channels_first".
    """

    def __init__(
        self,
        factor: float | Sequence[float],
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: Any = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed, data_format, **kwargs)
        self.factor = _bounds(factor)

    def places(self, images: Tensor, height: Tensor, width: Tensor) -> list[list[Tensor]]:
        low, high = self.factor
        angle = self.draw_one(images, (2 * math.pi * low, 2 * math.pi * high))
        cosine, sine = ops.cos(angle), ops.sin(angle)
        none = ops.zeros_like(sine)
        return [[cosine, -sine * (height / width), none], [sine * (width / height), cosine, none]]


class RandomTranslation(_RandomGrid):
    """Each image moved by another way, while training.

    Args:
        height_factor: how far down at most, as a share of the height, and up; or (least, largest).
        width_factor: how far to the right and left.
        fill_mode, interpolation, seed, fill_value, data_format: see `RandomRotation`.
    """

    def __init__(
        self,
        height_factor: float | Sequence[float],
        width_factor: float | Sequence[float],
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: Any = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed, data_format, **kwargs)
        self.height_factor, self.width_factor = _bounds(height_factor), _bounds(width_factor)

    def places(self, images: Tensor, height: Tensor, width: Tensor) -> list[list[Tensor]]:
        down = self.draw_one(images, self.height_factor)
        right = self.draw_one(images, self.width_factor)
        one, none = ops.ones_like(down), ops.zeros_like(down)
        return [[one, none, -2.0 * right], [none, one, -2.0 * down]]


class RandomZoom(_RandomGrid):
    """Each image made smaller or larger about its middle, while training.

    Args:
        height_factor: how much smaller at most, as a share, and how much larger; or (least,
            largest), where what is negative makes the image larger.
        width_factor: the same for the width; by default as the height, with its proportions kept.
        fill_mode, interpolation, seed, fill_value, data_format: see `RandomRotation`.
    """

    def __init__(
        self,
        height_factor: float | Sequence[float],
        width_factor: float | Sequence[float] | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: Any = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed, data_format, **kwargs)
        self.height_factor = _bounds(height_factor)
        self.width_factor = None if width_factor is None else _bounds(width_factor)

    def places(self, images: Tensor, height: Tensor, width: Tensor) -> list[list[Tensor]]:
        tall = 1.0 + self.draw_one(images, self.height_factor)
        wide = tall
        if self.width_factor is not None:
            wide = 1.0 + self.draw_one(images, self.width_factor)
        none = ops.zeros_like(tall)
        return [[wide, none, none], [none, tall, none]]
