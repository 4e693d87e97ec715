"""Layers that normalize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape import constraints, initializers, ops, regularizers
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import normalized, normalized_axes, refused
from onnxtape.ops.promotion import in_float32
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

Shape = tuple[int | None, ...]


def sizes_along(layer: Layer, input_shape: Shape, axes: Sequence[int]) -> tuple[int, ...]:
    """The sizes along the axes, which the layer's weights need."""
    what = f"{type(layer).__name__} '{layer.name}'"
    places = normalized_axes(axes, len(input_shape), what)
    sizes = [input_shape[a] for a in places]
    if any(size is None for size in sizes):
        raise refused(
            f"{what} needs inputs of a known size along axes {tuple(axes)}, "
            f"not {format_shape(input_shape)}"
        )
    return tuple(size for size in sizes if size is not None)


class Scaled(Layer):
    """A layer that normalizes, then scales by gamma and shifts by beta."""

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta: tuple[Any, Any, Any],
        gamma: tuple[Any, Any, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = float(epsilon)
        self.center, self.scale = center, scale
        self.beta_initializer = initializers.get(beta[0])
        self.beta_regularizer = regularizers.get(beta[1])
        self.beta_constraint = constraints.get(beta[2])
        self.gamma_initializer = initializers.get(gamma[0])
        self.gamma_regularizer = regularizers.get(gamma[1])
        self.gamma_constraint = constraints.get(gamma[2])
        self.gamma: Variable | None = None
        self.beta: Variable | None = None

    def _add_gamma(self, shape: tuple[int, ...]) -> None:
        self.gamma = self.add_weight(
            shape,
            self.gamma_initializer,
            name="gamma",
            regularizer=self.gamma_regularizer,
            constraint=self.gamma_constraint,
            autocast=False,
        )

    def _add_beta(self, shape: tuple[int, ...]) -> None:
        self.beta = self.add_weight(
            shape,
            self.beta_initializer,
            name="beta",
            regularizer=self.beta_regularizer,
            constraint=self.beta_constraint,
            autocast=False,
        )


class LayerNormalization(Scaled):
    """Each sample with mean 0 and variance 1 over the axes, then scaled and shifted.

    Args:
        axis: one or several.
        epsilon: added to the variance.
        center, scale: whether there are beta and gamma.
        rms_scaling: Keras's old variant: divided by the deviation without subtracting the mean;
            there is no beta then.

    Shapes: gamma and beta have the sizes of the axes.
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        *,
        rms_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        self.axis = [axis] if isinstance(axis, int) else sorted(axis)
        self.rms_scaling = rms_scaling

    def build(self, input_shape: Shape) -> None:
        shape = sizes_along(self, input_shape, self.axis)
        if self.scale or self.rms_scaling:
            self._add_gamma(shape)
        if self.center and not self.rms_scaling:
            self._add_beta(shape)
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        y = ops.layer_normalization(
            in_float32(x),
            self.gamma,
            self.beta,
            self.axis,
            self.epsilon,
            rms_scaling=self.rms_scaling,
        )
        return B.cast(y, x.dtype)


class GroupNormalization(Scaled):
    """Each group of channels of a sample with mean 0 and variance 1, then scaled and shifted.

    Args:
        groups: into how many the channels are divided; -1: each channel is one.
        axis: of the channels.
        epsilon: added to the variance.
        center, scale: whether there are beta and gamma.

    Shapes: gamma and beta have one entry per channel.
    """

    supports_masking = True

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if groups != -1 and groups <= 0:
            raise ValueError(
                f"GroupNormalization needs a positive number of groups (or -1), not {groups}"
            )
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        self.groups = groups
        self.axis = axis

    def build(self, input_shape: Shape) -> None:
        (channels,) = sizes_along(self, input_shape, [self.axis])
        if self.groups == -1:
            self.groups = channels
        if channels % self.groups:
            raise refused(
                f"GroupNormalization '{self.name}' cannot divide {channels} channels into "
                f"{self.groups} groups"
            )
        if self.scale:
            self._add_gamma((channels,))
        if self.center:
            self._add_beta((channels,))
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        rank = B.known_rank(x, "GroupNormalization")
        axis = normalized(self.axis, rank, "GroupNormalization")
        wide = in_float32(x)
        # Channels first, as convolutions have them: each group's elements lie side by side.
        order = [0, axis, *(a for a in range(1, rank) if a != axis)]
        first = B.op("Transpose", wide, perm=order) if axis != 1 else wide
        groups = B.op("Reshape", first, [0, self.groups, -1])  # 0: the batch as it is
        shifted = B.op("Sub", groups, B.op("ReduceMean", groups, [2]))
        variance = B.op("ReduceMean", B.op("Mul", shifted, shifted), [2])
        factor = B.op("Reciprocal", B.op("Sqrt", B.op("Add", variance, self.epsilon)))
        if self.gamma is None:
            y = B.reshape_like(B.op("Mul", shifted, factor), first)
        else:
            # One factor for each channel: a pass over memory less, forward and backward.
            gamma = B.op("Reshape", B.cast(self.gamma.value, wide.dtype), [1, self.groups, -1])
            factor = B.op("Reshape", B.op("Mul", factor, gamma), [0, -1, *[1] * (rank - 2)])
            y = B.op("Mul", B.reshape_like(shifted, first), factor)
        if self.beta is not None:
            beta = B.cast(self.beta.value, wide.dtype)
            y = B.op("Add", y, B.op("Unsqueeze", beta, list(range(1, rank - 1))))
        if axis != 1:
            y = B.op("Transpose", y, perm=[int(a) for a in np.argsort(order)])
        return B.cast(y, x.dtype)


class RMSNormalization(Layer):
    """inputs / sqrt(mean(inputs^2) + epsilon) * scale, the mean over the axes.

    Args:
        axis: one or several.
        epsilon: added to the mean of squares.

    Shapes: the weight, scale, has the sizes of the axes.
    """

    def __init__(
        self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.axis = [axis] if isinstance(axis, int) else sorted(axis)
        self.epsilon = float(epsilon)
        self.scale: Variable

    def build(self, input_shape: Shape) -> None:
        self.scale = self.add_weight(
            sizes_along(self, input_shape, self.axis), "ones", name="scale", autocast=False
        )
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        return ops.rms_normalization(x, self.scale, self.axis, self.epsilon)


class UnitNormalization(Layer):
    """Each sample divided by its Euclidean norm over the axes (at least 1e-12)."""

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any) -> Tensor:
        return ops.normalize(
            convert_to_tensor(inputs, self.compute_dtype), self.axis, epsilon=1e-12
        )
