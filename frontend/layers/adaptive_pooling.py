"""Pooling to a given size, whatever the inputs' size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from onnxtape import ops
from onnxtape.layers.layer import Layer
from onnxtape.ops.convolution import checked_data_format
from onnxtape.tensor import Tensor


class _AdaptivePooling(Layer):
    """The {what} of each of as many windows as asked for; see `ot.ops.{function}`.

    Args:
        output_size: one number for all dimensions, or one for each.
        data_format: "channels_last", which is the default, or "channels_first".
    """

    rank: ClassVar[int]
    pool: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, output_size: int | Sequence[int], data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        sizes = (output_size,) * self.rank if isinstance(output_size, int) else tuple(output_size)
        if len(sizes) != self.rank or not all(isinstance(size, int) for size in sizes):
            raise ValueError(
                f"{type(self).__name__}'s output_size is a number or {self.rank} of them, not "
                f"{output_size!r}"
            )
        self.output_size = sizes
        self.data_format = checked_data_format(data_format)

    def call(self, inputs: Any) -> Tensor:
        return type(self).pool(inputs, self.output_size, self.data_format)


class AdaptiveAveragePooling1D(_AdaptivePooling):
    rank, pool = 1, staticmethod(ops.adaptive_average_pool)


class AdaptiveAveragePooling2D(_AdaptivePooling):
    rank, pool = 2, staticmethod(ops.adaptive_average_pool)


class AdaptiveAveragePooling3D(_AdaptivePooling):
    rank, pool = 3, staticmethod(ops.adaptive_average_pool)


class AdaptiveMaxPooling1D(_AdaptivePooling):
    rank, pool = 1, staticmethod(ops.adaptive_max_pool)


class AdaptiveMaxPooling2D(_AdaptivePooling):
    rank, pool = 2, staticmethod(ops.adaptive_max_pool)


class AdaptiveMaxPooling3D(_AdaptivePooling):
    rank, pool = 3, staticmethod(ops.adaptive_max_pool)


for _cls in (AdaptiveAveragePooling1D, AdaptiveAveragePooling2D, AdaptiveAveragePooling3D):
    _cls.__doc__ = (_AdaptivePooling.__doc__ or "").format(
        what="mean", function="adaptive_average_pool"
    )
for _cls in (AdaptiveMaxPooling1D, AdaptiveMaxPooling2D, AdaptiveMaxPooling3D):  # type: ignore[assignment]
    _cls.__doc__ = (_AdaptivePooling.__doc__ or "").format(
        what="largest", function="adaptive_max_pool"
    )
