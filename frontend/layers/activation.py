"""Activation functions that are layers of their own, with arguments or weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape import activations, constraints, initializers, ops, regularizers
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Activation(Layer):
    """An activation function as a layer.

    Args:
        activation: a name or function.
    """

    supports_masking = True

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)


class ReLU(Layer):
    """max(x, 0), with a slope below and a bound above.

    Args:
        max_value: what larger results are set to; None for no bound.
        negative_slope: the slope below the threshold.
        threshold: where the positive part begins; below it the result is
            negative_slope * (x - threshold).
    """

    supports_masking = True

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if max_value is not None and max_value < 0:
            raise ValueError(f"ReLU's max_value is not negative, not {max_value}")
        if negative_slope < 0 or threshold < 0:
            raise ValueError(
                "ReLU's negative_slope and threshold are not negative, not "
                f"{negative_slope} and {threshold}"
            )
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs)
        below = None
        if self.negative_slope:
            below = ops.multiply(ops.relu(ops.subtract(self.threshold, x)), self.negative_slope)
        if self.threshold:
            x = ops.where(ops.greater(x, self.threshold), x, ops.zeros_like(x))
        x = ops.relu(x) if self.max_value is None else ops.clip(x, 0.0, self.max_value)
        return x if below is None else ops.subtract(x, below)


class LeakyReLU(Layer):
    """x where positive, negative_slope * x elsewhere."""

    supports_masking = True

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if negative_slope < 0:
            raise ValueError(f"LeakyReLU's negative_slope is not negative, not {negative_slope}")
        self.negative_slope = negative_slope

    def call(self, inputs: Any) -> Tensor:
        return ops.leaky_relu(inputs, negative_slope=self.negative_slope)


class PReLU(Layer):
    """x where positive, alpha * x elsewhere, with a learned alpha.

    Args:
        alpha_initializer, alpha_regularizer, alpha_constraint: of the weight.
        shared_axes: the axes along which alpha is the same; counted with the batch, from 1.

    Shapes: alpha has the shape of a sample, 1 along the shared axes.
    """

    supports_masking = True

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        axes = [shared_axes] if isinstance(shared_axes, int) else list(shared_axes or ())
        self.shared_axes = axes
        self.alpha: Variable

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        sample = [1 if i in self.shared_axes else d for i, d in enumerate(input_shape)][1:]
        if any(d is None for d in sample):
            raise refused(
                f"PReLU '{self.name}' needs inputs whose shape is known, not "
                f"{format_shape(input_shape)}; share alpha along the open axes with shared_axes"
            )
        self.alpha = self.add_weight(
            [d for d in sample if d is not None],
            self.alpha_initializer,
            name="alpha",
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs)
        return ops.subtract(ops.relu(x), ops.multiply(self.alpha, ops.relu(ops.negative(x))))


class ELU(Layer):
    """x where positive, alpha * (exp(x) - 1) elsewhere."""

    supports_masking = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, inputs: Any) -> Tensor:
        return ops.elu(inputs, alpha=self.alpha)


class Softmax(Layer):
    """exp(x) / sum(exp(x)).

    Args:
        axis: the axis, or axes, over which the results sum to 1.
    """

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any, mask: Any = None) -> Tensor:
        """Compute.

        Args:
            mask: of the inputs' shape; where it is False the result is 0.
        """
        x = convert_to_tensor(inputs)
        if mask is not None:
            # As in Keras: the lowest number that leaves room for sums.
            off = ops.subtract(1.0, ops.cast(mask, x.dtype))
            x = ops.add(x, ops.multiply(off, -3e4 if x.dtype == "float16" else -1e9))
        if isinstance(self.axis, int):
            return ops.softmax(x, axis=self.axis)
        return ops.exp(ops.subtract(x, ops.logsumexp(x, axis=tuple(self.axis), keepdims=True)))
