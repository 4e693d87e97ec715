"""What inputs go through before a model: brought to mean 0 and variance 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
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

    _takes_numbers = True

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
