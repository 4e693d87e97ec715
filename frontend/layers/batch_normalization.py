"""Batch normalization and batch renormalization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxtape import initializers, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.normalization import Scaled, Shape, sizes_along
from onnxtape.losses.operands import EPSILON
from onnxtape.ops.axes import normalized, refused
from onnxtape.ops.promotion import BOOL, in_float32
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class BatchNormalization(Scaled):
    """Each channel with mean 0 and variance 1 over the batch, then scaled and shifted.

    While training, the batch's own statistics normalize, and the moving ones move towards them (the
    variance is divided by the count). At rest, and when the layer is not `trainable`, the moving
    statistics normalize.

    Args:
        axis: of the channels.
        momentum: what the moving statistics keep at each step.
        epsilon: added to the variance.
        center, scale: whether there are beta and gamma.
        renorm: batch renormalization (S. Ioffe, arXiv:1702.03275): what the batch's statistics
            have normalized, y, becomes r * y + d, as the statistics of many batches would have it.
        renorm_clipping: bounds, under "rmin" and "rmax" for r, and "dmax" for the size of d.
        renorm_momentum: what the statistics of r and d keep at each step.
        synchronized: over replicas, of which there are none.

    Call arguments:
        mask: booleans, of the inputs' shape without the last axis. The batch's statistics leave out
            where they are False.

    Shapes: any of rank 2 and more; weights are vectors. Weights: gamma, beta, moving_mean,
    moving_variance; with `renorm` moving_stddev, renorm_mean, renorm_stddev, too.
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
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        if synchronized:
            raise ValueError(
                "BatchNormalization: there are no replicas to be synchronized with; leave "
                "synchronized at False"
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
        self.renorm = renorm
        self.renorm_clipping = _bounds(renorm_clipping or {}) if renorm else renorm_clipping
        self.renorm_momentum = float(renorm_momentum)
        self.moving_mean: Variable
        self.moving_variance: Variable

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2:
            raise refused(
                f"BatchNormalization '{self.name}' takes a batch of channels, not inputs of shape "
                f"{format_shape(input_shape)}"
            )
        shape = sizes_along(self, input_shape, [self.axis])
        if self.scale:
            self._add_gamma(shape)
        if self.center:
            self._add_beta(shape)
        mean, variance = self.moving_mean_initializer, self.moving_variance_initializer
        self.moving_mean = self._add_statistic("moving_mean", shape, mean)
        self.moving_variance = self._add_statistic("moving_variance", shape, variance)
        if self.renorm:

            def deviation(shape: Any, dtype: Any = None) -> Tensor:
                return ops.sqrt(variance(shape, dtype=dtype))

            self.moving_stddev = self._add_statistic("moving_stddev", shape, deviation)
            self.renorm_mean = self._add_statistic("renorm_mean", shape, mean)
            self.renorm_stddev = self._add_statistic("renorm_stddev", shape, deviation)
        self.built = True

    def _add_statistic(self, name: str, shape: tuple[int, ...], initializer: Any) -> Variable:
        return self.add_weight(shape, initializer, trainable=False, name=name, autocast=False)

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        wide = in_float32(x)
        axis = normalized(self.axis, B.known_rank(x, "BatchNormalization"), "BatchNormalization")
        if not (training and self.trainable):
            y = self._rested(wide, axis)
        elif mask is None and not self.renorm:
            y = self._trained(wide, axis)
        else:
            y = self._corrected(wide, axis, mask)
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
        # The operator adds 0 times what it is given to the batch's statistics. Not to be given the
        # moving ones: a batch with an infinity leaves NaN there, which times 0 is NaN again.
        moving = ((self.beta, self.moving_mean), (self.gamma, self.moving_variance))
        numbers = (
            B.cast(B.op("IsNaN", kept.value) if weight is None else weight.value, dtype)
            for weight, kept in moving
        )
        y, mean, variance = B.op_multi(
            "BatchNormalization",
            given,
            gamma,
            beta,
            *numbers,
            outputs=3,
            epsilon=self.epsilon,
            # The batch's own statistics come out then, and the gradient need not compute them.
            momentum=0.0,
            training_mode=1,
        )
        _move(self.moving_mean, mean, self.momentum)
        _move(self.moving_variance, variance, self.momentum)
        return B.reshape_like(y, x) if back is None else B.op("Transpose", y, perm=back)

    def _corrected(self, x: Tensor, axis: int, mask: Any) -> Tensor:
        """In training, with a mask or renormalization."""
        mean, variance = self._moments(x, axis, mask)
        gamma = None if self.gamma is None else B.cast(self.gamma.value, x.dtype)
        beta = None if self.beta is None else B.cast(self.beta.value, x.dtype)
        if not self.renorm:
            _move(self.moving_mean, mean, self.momentum)
            _move(self.moving_variance, variance, self.momentum)
            return ops.batch_normalization(x, mean, variance, axis, beta, gamma, self.epsilon)
        deviation = ops.sqrt(variance + self.epsilon)
        r, d = map(ops.stop_gradient, self._corrections(mean, deviation))
        if gamma is not None:
            r, d = r * gamma, d * gamma
        if beta is not None:
            d = d + beta
        _move(self.renorm_mean, mean, self.renorm_momentum)
        _move(self.renorm_stddev, deviation, self.renorm_momentum)
        _move(self.moving_mean, mean, self.momentum)
        _move(self.moving_stddev, deviation, self.momentum)
        self.moving_variance.assign(ops.relu(ops.square(self.moving_stddev) - self.epsilon))
        return ops.batch_normalization(x, mean, variance, axis, d, r, self.epsilon)

    def _moments(self, x: Tensor, axis: int, mask: Any) -> tuple[Tensor, Tensor]:
        """The batch's mean and variance; without what the mask leaves out."""
        rank = B.known_rank(x, "BatchNormalization")
        axes = [a for a in range(rank) if a != axis]
        if mask is None:
            return ops.moments(x, axes)
        kept = convert_to_tensor(mask, BOOL)
        if B.known_rank(kept, "BatchNormalization") != rank - 1:
            raise refused(
                f"BatchNormalization '{self.name}' takes a mask of its inputs' shape without the "
                f"last axis, not {format_shape(B.shape(kept))} for inputs of shape "
                f"{format_shape(B.shape(x))}"
            )
        kept = B.expand_like(B.op("Unsqueeze", kept, [-1]), x)
        count = ops.sum(B.cast(kept, x.dtype), axes, keepdims=True) + EPSILON
        mean = ops.sum(ops.where(kept, x, 0.0), axes, keepdims=True) / count
        apart = ops.where(kept, x - mean, 0.0)
        variance = ops.sum(ops.square(apart), axes, keepdims=True) / count
        size = self.moving_mean.shape
        return ops.reshape(mean, size), ops.reshape(variance, size)

    def _corrections(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """r and d, before the step moves the statistics that they come from."""
        usual = ops.maximum(B.cast(self.renorm_stddev.value, mean.dtype), self.epsilon**0.5)
        r = deviation / usual
        d = (mean - B.cast(self.renorm_mean.value, mean.dtype)) / usual
        bounds = self.renorm_clipping or {}
        if (least := bounds.get("rmin")) is not None:
            r = ops.maximum(r, least)
        if (most := bounds.get("rmax")) is not None:
            r = ops.minimum(r, most)
        if (most := bounds.get("dmax")) is not None:
            d = ops.clip(d, -most, most)
        return r, d


def _move(statistic: Variable, current: Tensor, momentum: float) -> None:
    """Let a moving statistic take in the current one."""
    current = B.cast(current, statistic.dtype)
    statistic.assign(statistic * momentum + current * (1 - momentum))


def _bounds(clipping: Mapping[str, float]) -> dict[str, float]:
    """`renorm_clipping`, checked."""
    known = ("rmax", "rmin", "dmax")
    if wrong := [name for name in clipping if name not in known]:
        raise ValueError(
            f"BatchNormalization: renorm_clipping has bounds {', '.join(map(repr, known))}, "
            f"not {', '.join(map(repr, wrong))}"
        )
    low, high = clipping.get("rmin"), clipping.get("rmax")
    if low is not None and high is not None and high < low:
        raise ValueError(
            f"BatchNormalization: renorm_clipping's rmax ({high}) is below rmin ({low})"
        )
    if clipping.get("dmax", 0) < 0:
        raise ValueError(
            f"BatchNormalization: renorm_clipping's dmax is a size, not {clipping['dmax']}"
        )
    return dict(clipping)
