"""Layers that crop, pad and resize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.image_axes import image_sizes
from onnxtape.layers.layer import Layer
from onnxtape.layers.pooling import Sizes, Spatial
from onnxtape.ops import image
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format, spread
from onnxtape.tensor import Tensor

#: A number, one for each dimension, or a pair (before, after) for each.
Margins = int | Sequence[int | Sequence[int]]


def _margins(value: Margins, rank: int, name: str) -> tuple[tuple[int, int], ...]:
    """What is cut off or added before and after each dimension.

    Raises:
        ValueError: another count, or a negative number.
    """
    one_for_all = isinstance(value, int) or rank == 1
    entries: list[Any] = [value] * rank if one_for_all else list(value)  # type: ignore[arg-type]
    pairs = [(e, e) if isinstance(e, int) else tuple(e) for e in entries]
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        each = "a number or a pair" if rank == 1 else f"a number, or {rank} numbers or pairs"
        raise ValueError(f"{name} takes {each}, not {value!r}")
    if min(min(pair) for pair in pairs) < 0:
        raise ValueError(f"{name} takes no negative numbers, as in {value!r}")
    return tuple((int(before), int(after)) for before, after in pairs)


class _Cropping(Spatial):
    """Inputs without their margins, in one, two or three dimensions as the name says.

    Args:
        cropping: a number for all margins; one for each dimension; or a pair (before, after) for
            each. Of Cropping1D a pair is (before, after).
        data_format: "channels_last", which is the default, or "channels_first".

    Raises:
        ValueError: other counts, or negative numbers.
        ShapeError: (when called) inputs of another rank, or of which nothing is left.
    """

    def __init__(self, cropping: Margins, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self._crops = _margins(cropping, self.rank, "cropping")
        self.cropping = self._crops[0] if self.rank == 1 else self._crops

    def _apply(self, x: Tensor) -> Tensor:
        for axis, cut in zip(self._axes, self._crops, strict=True):
            size = B.dim(x, axis)
            if isinstance(size, int) and sum(cut) >= size:
                raise refused(
                    f"{type(self).__name__} '{self.name}': cropping {cut} leaves nothing of axis "
                    f"{axis} of {format_shape(B.shape(x))}"
                )
        starts = [before for before, _ in self._crops]
        ends = [-after if after else np.iinfo(np.int64).max for _, after in self._crops]
        return B.op("Slice", x, starts, ends, self._axes) if any(map(any, self._crops)) else x


class Cropping1D(_Cropping):
    __doc__ = _Cropping.__doc__
    rank = 1

    def __init__(self, cropping: Margins = (1, 1), **kwargs: Any) -> None:
        super().__init__(cropping, "channels_last", **kwargs)


class Cropping2D(_Cropping):
    __doc__ = _Cropping.__doc__
    rank = 2

    def __init__(
        self, cropping: Margins = 0, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(_Cropping):
    __doc__ = _Cropping.__doc__
    rank = 3

    def __init__(
        self, cropping: Margins = 1, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)


class _ZeroPadding(Spatial):
    """Inputs with zeros around them, in one, two or three dimensions as the name says.

    Args:
        padding: a number for all margins; one for each dimension; or a pair (before, after) for
            each. Of ZeroPadding1D a pair is (before, after).
        data_format: "channels_last", which is the default, or "channels_first".

    Raises:
        ValueError: other counts, or negative numbers.
        ShapeError: (when called) inputs of another rank.
    """

    def __init__(self, padding: Margins = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self._pads = _margins(padding, self.rank, "padding")
        self.padding = self._pads[0] if self.rank == 1 else self._pads

    def _apply(self, x: Tensor) -> Tensor:
        margins = ((0, 0), *self._pads, (0, 0))
        return ops.pad(x, margins if self._axes[0] == 1 else ((0, 0), *margins[:-1]))


class ZeroPadding1D(_ZeroPadding):
    __doc__ = _ZeroPadding.__doc__
    rank = 1


class ZeroPadding2D(_ZeroPadding):
    __doc__ = _ZeroPadding.__doc__
    rank = 2


class ZeroPadding3D(_ZeroPadding):
    __doc__ = _ZeroPadding.__doc__
    rank = 3


class _UpSampling(Spatial):
    """Each element repeated along the spatial dimensions: one, two or three as the name says.

    Args:
        size: how often, one number for all dimensions or one for each.
        data_format: "channels_last", which is the default, or "channels_first".
        interpolation: of UpSampling2D: "nearest", "bilinear" or "bicubic".

    Raises:
        ValueError: numbers below 1, or an unknown interpolation.
        ShapeError: (when called) inputs of another rank.
    """

    def __init__(self, size: Sizes, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self._factors = spread(size, self.rank, "size")
        self.size = self._factors[0] if self.rank == 1 else tuple(self._factors)

    def _apply(self, x: Tensor) -> Tensor:
        return image.repeat_pixels(x, self._factors, self.data_format)


class UpSampling1D(_UpSampling):
    __doc__ = _UpSampling.__doc__
    rank = 1

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(size, "channels_last", **kwargs)


class UpSampling2D(_UpSampling):
    __doc__ = _UpSampling.__doc__
    rank = 2

    def __init__(
        self,
        size: Sizes = 2,
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, data_format, **kwargs)
        self.interpolation = interpolation.lower()
        if self.interpolation not in image.INTERPOLATIONS:
            names = ", ".join(map(repr, image.INTERPOLATIONS))
            raise ValueError(
                f"UpSampling2D: interpolation is one of {names}, not {interpolation!r}"
            )

    def _apply(self, x: Tensor) -> Tensor:
        if self.interpolation == "nearest":
            return super()._apply(x)
        sizes = [ops.shape(x)[a] * f for a, f in zip(self._axes, self._factors, strict=True)]
        return image.resize(x, sizes, self.interpolation, data_format=self.data_format)


class UpSampling3D(_UpSampling):
    __doc__ = _UpSampling.__doc__
    rank = 3

    def __init__(self, size: Sizes = 2, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(size, data_format, **kwargs)


class Resizing(Layer):
    """Images of another size; see `ot.ops.image.resize`.

    Args:
        height, width: the new size.
        interpolation: "nearest", "bilinear" or "bicubic".
        crop_to_aspect_ratio: crop first, around the centre, to the new proportions.
        pad_to_aspect_ratio: pad first, on both sides, to the new proportions.
        fill_mode: "constant", what is padded with being `fill_value`.
        antialias: average over all pixels that a new one covers, where images become smaller.
        data_format: "channels_last", which is the default, or "channels_first".

    Raises:
        ValueError, ShapeError: (when called) as `ot.ops.image.resize`.
    """

    _takes_numbers = True

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.height, self.width = height, width
        self.interpolation, self.antialias = interpolation, bool(antialias)
        self.crop_to_aspect_ratio = crop_to_aspect_ratio
        self.pad_to_aspect_ratio = pad_to_aspect_ratio
        self.fill_mode, self.fill_value = fill_mode, fill_value
        self.data_format = checked_data_format(data_format)

    def call(self, inputs: Any) -> Tensor:
        return image.resize(
            inputs,
            (self.height, self.width),
            self.interpolation,
            self.antialias,
            self.crop_to_aspect_ratio,
            self.pad_to_aspect_ratio,
            self.fill_mode,
            self.fill_value,
            self.data_format,
        )


class CenterCrop(Layer):
    """The middle of images.

    Images that are smaller are cut around their middle to the new proportions, and resized.

    Args:
        height, width: of the middle.
        data_format: "channels_last", which is the default, or "channels_first".

    Raises:
        ShapeError: (when called) images whose height and width are not known.
    """

    _takes_numbers = True

    def __init__(
        self, height: int, width: int, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.height, self.width = height, width
        self.data_format = checked_data_format(data_format)

    def call(self, inputs: Any) -> Tensor:
        x, size = convert_to_tensor(inputs, self.compute_dtype), (self.height, self.width)
        axes, sizes = image_sizes(self, x, self.data_format)
        if any(whole < part for whole, part in zip(sizes, size, strict=True)):
            return image.resize(x, size, crop_to_aspect_ratio=True, data_format=self.data_format)
        starts = [(whole - part) // 2 for whole, part in zip(sizes, size, strict=True)]
        ends = [start + part for start, part in zip(starts, size, strict=True)]
        return B.op("Slice", x, np.array(starts), np.array(ends), np.array(axes))
