"""What inputs go through before a model: brought to mean 0 and variance 1, flipped, turned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from onnxtape import ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.layers.noise import seeded_generator
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Normalization(Layer):
    """(inputs - mean) / max(sqrt(variance), 1e-7), with numbers from `adapt` or given.

    Args:
        axis: which axes have a mean and a variance for each of their places; None for one of all.
        mean, variance: both, or neither and `adapt(data)` finds them.
        invert: the other way round, inputs * max(sqrt(variance), 1e-7) + mean.

    Weights, if they are not given: mean and variance, of the sizes of the axes, and count.

    Raises:
        ValueError: only one of mean and variance, or of different shapes.
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if np.shape(mean) != np.shape(variance) or (mean is None) != (variance is None):
            raise ValueError(
                "Normalization takes mean and variance together, and of one shape, not "
                f"mean={mean!r} and variance={variance!r}"
            )
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        self.input_mean, self.input_variance = mean, variance
        self.invert = invert
        self.mean: Variable
        self.variance: Variable

    def build(self, input_shape: Any) -> None:
        rank = len(input_shape)
        self._kept = sorted(axis % rank for axis in self.axis)
        sizes = tuple(input_shape[axis] for axis in self._kept)
        if None in sizes:
            raise refused(
                f"Normalization '{self.name}' needs inputs whose axes {self.axis} are known, not "
                f"{format_shape(input_shape)}"
            )
        if self.input_mean is None:
            self.mean = self.add_weight(sizes, "zeros", trainable=False, name="mean")
            self.variance = self.add_weight(sizes, "ones", trainable=False, name="variance")
            self.count = self.add_weight((), "zeros", "int32", trainable=False, name="count")
        self.built = True

    def adapt(self, data: Any) -> None:
        """Find mean and variance.

        Args:
            data: an array, or an iterable of batches; of batches that are tuples the first part.

        Raises:
            ValueError: the layer was given its mean and variance; or there is no data.
        """
        if self.input_mean is not None:
            raise ValueError(f"Normalization '{self.name}' was given its mean: nothing to adapt")
        batches = [data] if isinstance(data, (np.ndarray, Tensor)) else data
        count, total, squares = 0, np.float64(0.0), np.float64(0.0)
        for batch in batches:
            x = np.asarray(batch[0] if isinstance(batch, (tuple, list)) else batch, np.float64)
            if not self.built:
                self.build((None, *x.shape[1:]))
            axes = tuple(axis for axis in range(x.ndim) if axis not in self._kept)
            count += math.prod(x.shape[axis] for axis in axes)
            total = total + x.sum(axes)
            squares = squares + np.square(x).sum(axes)
        if count == 0:
            raise ValueError(f"Normalization '{self.name}' cannot adapt to no data")
        mean = total / count
        self.mean.assign(mean)
        self.variance.assign(np.maximum(squares / count - mean**2, 0.0))

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        rank = B.known_rank(x, f"Normalization '{self.name}'")
        if self.input_mean is None:
            others = [axis for axis in range(rank) if axis not in self._kept]
            mean, variance = (ops.expand_dims(v, others) for v in (self.mean, self.variance))
        else:
            mean, variance = (self._given(v, rank) for v in (self.input_mean, self.input_variance))
        deviation = ops.maximum(ops.sqrt(variance), 1e-7)
        if self.invert:
            return ops.add(mean, ops.multiply(x, deviation))
        return ops.divide(ops.subtract(x, mean), deviation)

    def _given(self, value: Any, rank: int) -> Tensor:
        """A given mean or variance, its last axes at the kept ones."""
        array = np.asarray(value, self.compute_dtype)
        shape = [1] * rank
        for axis, size in zip(reversed(self._kept), reversed(array.shape), strict=False):
            shape[axis] = size
        return convert_to_tensor(array.reshape(shape))


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


class RandomRotation(_RandomImage):
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

    _PADDING = {"reflect": "reflection", "nearest": "border", "constant": "zeros"}  # noqa: RUF012
    _MODES = {"bilinear": "linear", "nearest": "nearest"}  # noqa: RUF012

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
        super().__init__(seed, data_format, **kwargs)
        if fill_mode not in self._PADDING or interpolation not in self._MODES or fill_value:
            raise ValueError(
                f"RandomRotation takes fill_mode 'reflect', 'nearest' or 'constant' (with zeros) "
                f"and interpolation 'bilinear' or 'nearest', not {fill_mode!r} (with {fill_value}) "
                f"and {interpolation!r}"
            )
        low, high = (-factor, factor) if isinstance(factor, (int, float)) else factor
        self.factor = (float(low), float(high))
        self.fill_mode, self.interpolation = fill_mode, interpolation
        self.fill_value = fill_value

    def change(self, images: Tensor) -> Tensor:
        low, high = (2 * math.pi * share for share in self.factor)
        angle = ops.reshape(self.draw(images, low, high), (-1, 1, 1))
        cosine, sine = ops.cos(angle), ops.sin(angle)
        size = B.shape_tensor(images)
        height, width = (ops.cast(ops.take(size, i), self.compute_dtype) for i in (2, 3))
        # The grid's coordinates go from -1 to 1 in both directions, whatever the sizes.
        rows = [
            ops.concatenate([cosine, -sine * (height / width), ops.zeros_like(sine)], axis=2),
            ops.concatenate([sine * (width / height), cosine, ops.zeros_like(sine)], axis=2),
        ]
        grid = B.op("AffineGrid", ops.concatenate(rows, axis=1), size, align_corners=0)
        return B.op(
            "GridSample",
            images,
            grid,
            align_corners=0,
            mode=self._MODES[self.interpolation],
            padding_mode=self._PADDING[self.fill_mode],
        )
