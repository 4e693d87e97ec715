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


def _sizes(layer: Layer, input_shape: Shape, axes: Sequence[int]) -> tuple[int, ...]:
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


class _Scaled(Layer):
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


class BatchNormalization(_Scaled):
    """Each channel with mean 0 and variance 1 over the batch, then scaled and shifted.

    While training, the batch's own statistics normalize, and the moving ones move towards them (the
    variance is divided by the count). At rest, and when the layer is not `trainable`, the moving
    statistics normalize.

    Args:
        axis: of the channels.
        momentum: what the moving statistics keep at each step.
        epsilon: added to the variance.
        center, scale: whether there are beta and gamma.
        renorm, renorm_clipping, renorm_momentum: batch renormalization, which is not here.
        synchronized: over replicas, of which there are none.

    Shapes: any of rank 2 and more; weights are vectors. Weights: gamma, beta, moving_mean,
    moving_variance.
    """

    supports_masking = True

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        if renorm or synchronized:
            raise ValueError(
                "BatchNormalization has neither renorm nor synchronized; leave both at False"
            )
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.moving_mean: Variable
        self.moving_variance: Variable

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2:
            raise refused(
                f"BatchNormalization '{self.name}' takes a batch of channels, not inputs of shape "
                f"{format_shape(input_shape)}"
            )
        shape = _sizes(self, input_shape, [self.axis])
        if self.scale:
            self._add_gamma(shape)
        if self.center:
            self._add_beta(shape)
        self.moving_mean = self.add_weight(
            shape,
            self.moving_mean_initializer,
            trainable=False,
            name="moving_mean",
            autocast=False,
        )
        self.moving_variance = self.add_weight(
            shape,
            self.moving_variance_initializer,
            trainable=False,
            name="moving_variance",
            autocast=False,
        )
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        wide = in_float32(x)
        axis = normalized(self.axis, B.known_rank(x, "BatchNormalization"), "BatchNormalization")
        y = self._trained(wide, axis) if training and self.trainable else self._rested(wide, axis)
        return B.cast(y, x.dtype)

    def _rested(self, x: Tensor, axis: int) -> Tensor:
        return ops.batch_normalization(
            x,
            B.cast(self.moving_mean.value, x.dtype),
            B.cast(self.moving_variance.value, x.dtype),
            axis,
            None if self.beta is None else B.cast(self.beta.value, x.dtype),
            None if self.gamma is None else B.cast(self.gamma.value, x.dtype),
            self.epsilon,
        )

    def _trained(self, x: Tensor, axis: int) -> Tensor:
        """By ONNX's operator, whose channels are axis 1."""
        rank = B.known_rank(x, "BatchNormalization")
        given, back = x, None
        if axis != 1:
            if axis == rank - 1 and rank == 3:
                # Rows are as good as a batch, and need no copy.
                given = B.op("Reshape", x, [-1, self.moving_mean.shape[0]])
            else:
                rest = [a for a in range(rank) if a != axis]
                order = [rest[0], axis, *rest[1:]]
                given = B.op("Transpose", x, perm=order)
                back = [int(a) for a in np.argsort(order)]
        dtype, size = x.dtype, self.moving_mean.shape
        gamma = np.ones(size, dtype) if self.gamma is None else B.cast(self.gamma.value, dtype)
        beta = np.zeros(size, dtype) if self.beta is None else B.cast(self.beta.value, dtype)
        y, mean, variance = B.op_multi(
            "BatchNormalization",
            given,
            gamma,
            beta,
            B.cast(self.moving_mean.value, dtype),
            B.cast(self.moving_variance.value, dtype),
            outputs=3,
            epsilon=self.epsilon,
            # The batch's own statistics come out then, and the gradient need not compute them.
            momentum=0.0,
            training_mode=1,
        )
        for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
            current = B.cast(current, moving.dtype)
            moving.assign(moving * self.momentum + current * (1 - self.momentum))
        return B.reshape_like(y, x) if back is None else B.op("Transpose", y, perm=back)


class LayerNormalization(_Scaled):
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
        shape = _sizes(self, input_shape, self.axis)
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


class GroupNormalization(_Scaled):
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
        (channels,) = _sizes(self, input_shape, [self.axis])
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

    supports_masking = True

    def __init__(
        self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.axis = [axis] if isinstance(axis, int) else sorted(axis)
        self.epsilon = float(epsilon)
        self.scale: Variable

    def build(self, input_shape: Shape) -> None:
        self.scale = self.add_weight(
            _sizes(self, input_shape, self.axis), "ones", name="scale", autocast=False
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
