"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from onnxtape import ops
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.image_axes import wrong_rank
from onnxtape.layers.layer import Layer
from onnxtape.ops.convolution import checked_data_format, checked_padding, spread
from onnxtape.tensor import Tensor

#: One number for all spatial dimensions, or one for each.
Sizes = int | Sequence[int]


class Spatial(Layer):
    """What layers without weights over one to three spatial dimensions share: the layout.

    Args:
        data_format: "channels_last", which is the default, or "channels_first".
    """

    #: How many spatial dimensions there are.
    rank: ClassVar[int]

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = checked_data_format(data_format)

    def call(self, inputs: Any) -> Tensor:
        return self._apply(self._checked(inputs))

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _checked(self, inputs: Any) -> Tensor:
        """The inputs as a tensor of the right rank."""
        x = convert_to_tensor(inputs)
        shape = B.shape(x)
        if shape is not None and len(shape) != self.rank + 2:
            raise wrong_rank(self, self.rank, self.data_format, shape)
        return x

    @property
    def _axes(self) -> list[int]:
        """The spatial axes."""
        first = 1 if self.data_format == "channels_last" else 2
        return list(range(first, first + self.rank))


class _Pooling(Spatial):
    """One number for each window, over one, two or three spatial dimensions as the name says.

    Args:
        pool_size: the windows' sizes, one number for all dimensions or one for each.
        strides: how far windows are apart; by default their sizes.
        padding: "valid" for whole windows only, "same" for as many as inputs (divided by the
            strides and rounded up).
        data_format: "channels_last", which is the default, or "channels_first".

    Shapes: (batch, sizes..., channels) to (batch, new sizes..., channels).

    Raises:
        ValueError: sizes or strides below 1, an unknown padding or data format.
        ShapeError: (when called) inputs of another rank, or smaller than a window.
    """

    def __init__(
        self,
        pool_size: Sizes,
        strides: Sizes | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.pool_size = tuple(spread(pool_size, self.rank, "pool_size"))
        self.strides = tuple(
            spread(pool_size if strides is None else strides, self.rank, "strides")
        )
        self.padding = checked_padding(padding, type(self).__name__)


class _MaxPooling(_Pooling):
    __doc__ = _Pooling.__doc__

    def __init__(
        self,
        pool_size: Sizes = 2,
        strides: Sizes | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, **kwargs)

    def _apply(self, x: Tensor) -> Tensor:
        return ops.max_pool(x, self.pool_size, self.strides, self.padding, self.data_format)


class _AveragePooling(_Pooling):
    __doc__ = _Pooling.__doc__

    def _apply(self, x: Tensor) -> Tensor:
        return ops.average_pool(x, self.pool_size, self.strides, self.padding, self.data_format)


class MaxPooling1D(_MaxPooling):
    __doc__ = _Pooling.__doc__
    rank = 1


class MaxPooling2D(_MaxPooling):
    __doc__ = _Pooling.__doc__
    rank = 2


class MaxPooling3D(_MaxPooling):
    __doc__ = _Pooling.__doc__
    rank = 3


class AveragePooling1D(_AveragePooling):
    __doc__ = _Pooling.__doc__
    rank = 1


class AveragePooling2D(_AveragePooling):
    __doc__ = _Pooling.__doc__
    rank = 2


class AveragePooling3D(_AveragePooling):
    __doc__ = _Pooling.__doc__
    rank = 3


class _GlobalPooling(Spatial):
    """One number for each channel, from all places.

    Args:
        data_format: "channels_last", which is the default, or "channels_first".
        keepdims: keep the spatial dimensions, with size 1.

    Shapes: (batch, sizes..., channels) to (batch, channels).

    Raises:
        ShapeError: (when called) inputs of another rank.
    """

    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.keepdims = keepdims


class _GlobalMaxPooling(_GlobalPooling):
    __doc__ = _GlobalPooling.__doc__

    def _apply(self, x: Tensor) -> Tensor:
        return ops.max(x, axis=self._axes, keepdims=self.keepdims)


class _GlobalAveragePooling(_GlobalPooling):
    __doc__ = _GlobalPooling.__doc__

    def _apply(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=self._axes, keepdims=self.keepdims)


class GlobalMaxPooling1D(_GlobalMaxPooling):
    __doc__ = _GlobalPooling.__doc__
    rank = 1


class GlobalMaxPooling2D(_GlobalMaxPooling):
    __doc__ = _GlobalPooling.__doc__
    rank = 2


class GlobalMaxPooling3D(_GlobalMaxPooling):
    __doc__ = _GlobalPooling.__doc__
    rank = 3


class GlobalAveragePooling1D(_GlobalAveragePooling):
    """The mean of each channel over all steps.

    Args:
        data_format: "channels_last", which is the default, or "channels_first".
        keepdims: keep the steps' dimension, with size 1.

    Called with `mask`, (batch, steps) of booleans, it takes the mean of the steps where the mask
    is true.

    Shapes: (batch, steps, channels) to (batch, channels).

    Raises:
        ShapeError: (when called) inputs of another rank.
    """

    supports_masking = True

    rank = 1

    def call(self, inputs: Any, mask: Any = None) -> Tensor:
        x = self._checked(inputs)
        if mask is None:
            return self._apply(x)
        channels = -1 if self.data_format == "channels_last" else 1
        kept = ops.expand_dims(ops.cast(mask, "bool"), channels)
        total = ops.sum(ops.where(kept, x, 0), axis=self._axes, keepdims=self.keepdims)
        count = ops.sum(ops.cast(kept, x.dtype), axis=self._axes, keepdims=self.keepdims)
        return ops.divide(total, count)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: the steps are gone."""


class GlobalAveragePooling2D(_GlobalAveragePooling):
    __doc__ = _GlobalPooling.__doc__
    rank = 2


class GlobalAveragePooling3D(_GlobalAveragePooling):
    __doc__ = _GlobalPooling.__doc__
    rank = 3


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
GlobalMaxPool3D = GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalAvgPool3D = GlobalAveragePooling3D
