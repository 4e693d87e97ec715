"""Images changed by chance, while training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from onnxtape import ops, random
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.image_axes import image_sizes
from onnxtape.layers.layer import Layer
from onnxtape.layers.noise import seeded_generator
from onnxtape.ops.convolution import checked_data_format
from onnxtape.tensor import Tensor


class _RandomImage(Layer):
    """Base of what happens to images in training only, to each another way."""

    _takes_numbers = True

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


class _RandomColour(_RandomImage):
    """Base of what changes the numbers of each image alike, and keeps them in their range."""

    def __init__(
        self, value_range: Sequence[float], seed: Any, lowest: float, factor: Any, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        if not isinstance(value_range, (list, tuple)) or len(value_range) != 2:
            raise ValueError(
                f"{type(self).__name__}'s value_range is (low, high), not {value_range!r}"
            )
        self.value_range = value_range
        pair = isinstance(factor, (list, tuple)) and len(factor) == 2
        low, high = sorted(factor) if pair else (-abs(factor), abs(factor))
        if low > 1 or high < lowest or (not pair and not lowest <= factor <= 1):
            raise ValueError(
                f"{type(self).__name__}'s factor is a number from {lowest} to 1, or two of them, "
                f"not {factor!r}"
            )
        self.factor = (low if pair else max(low, lowest), high)

    def clipped(self, images: Tensor) -> Tensor:
        return ops.clip(images, *map(float, self.value_range))


class RandomContrast(_RandomColour):
    """Each image's distances from its channels' means times another number, while training.

    Args:
        factor: (least, largest): the number is between 1 - least and 1 + largest; one factor is
            (0, factor), as in Keras.
        value_range: of the images, in which they stay.
        seed: an int gives the layer a random stream of its own; by default the global one.
    """

    def __init__(
        self,
        factor: float | Sequence[float],
        value_range: Sequence[float] = (0, 255),
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed, 0, factor, **kwargs)

    def change(self, images: Tensor) -> Tensor:
        low, high = self.factor
        means = ops.mean(images, axis=(2, 3), keepdims=True)
        times = self.draw(images, 1.0 - low, 1.0 + high)
        return self.clipped(ops.add(ops.multiply(ops.subtract(images, means), times), means))


class RandomBrightness(_RandomColour):
    """Another number added to each image, while training.

    Args:
        factor: the largest number to either side, as a share of the range, up to 1; or (least,
            largest).
        value_range: of the images, in which they stay.
        seed: an int gives the layer a random stream of its own; by default the global one.
    """

    def __init__(
        self,
        factor: float | Sequence[float],
        value_range: Sequence[float] = (0, 255),
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed, -1, factor, **kwargs)
        self.value_range = sorted(self.value_range)

    def change(self, images: Tensor) -> Tensor:
        low, high = self.value_range
        more = self.draw(images, *self.factor)
        return self.clipped(ops.add(images, ops.multiply(more, float(high - low))))


class RandomCrop(Layer):
    """A part of the images of the given size, the same of all images of a batch, while training.

    Of images that are not larger, what is left of them from where the new proportions begin is
    resized, and at rest images stay whole, both as in Keras; `CenterCrop` cuts them.

    Args:
        height, width: of the part.
        seed: an int gives the layer a random stream of its own; by default the global one.
        data_format: "channels_last" (the default) or "channels_first".

    Raises:
        ShapeError: (when called) images whose height and width are not known.
    """

    _takes_numbers = True

    def __init__(
        self,
        height: int,
        width: int,
        seed: Any = None,
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.height, self.width, self.seed = height, width, seed
        self.data_format = checked_data_format(data_format)
        self._generator = seeded_generator(seed, self.name)

    def call(self, inputs: Any, training: bool = True) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        if not training:
            return x
        size = (self.height, self.width)
        axes, sizes = image_sizes(self, x, self.data_format)
        if not (sizes[0] > self.height and sizes[1] > self.width):
            rows = max(min(sizes[0], sizes[1] * self.height // self.width), 1)
            columns = max(min(sizes[1], sizes[0] * self.width // self.height), 1)
            begins = np.array([(sizes[0] - rows) // 2, (sizes[1] - columns) // 2])
            part = B.op("Slice", x, begins, begins + size, np.array(axes))
            return ops.image.resize(part, size, data_format=self.data_format)
        starts = [
            random.randint((), 0, whole - part + 1, "int32", self._generator)
            for whole, part in zip(sizes, size, strict=True)
        ]
        for axis, start, count in zip(axes, starts, size, strict=True):
            x = ops.take(x, ops.add(start, ops.arange(count, dtype="int32")), axis=axis)
        return x
