"""Dense and the layers without weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxtape import activations, initializers, ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.ops.creation import static_shape
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Dense(Layer):
    """activation(inputs @ kernel + bias).

    Args:
        units: the size of the last output axis.
        activation: a name or function.
        kernel_initializer, bias_initializer: see `ot.initializers`.
        kernel_regularizer, bias_regularizer: functions of the weight, added to the losses.

    Shapes: (..., inputs) to (..., units); kernel (inputs, units), bias (units,).
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if units <= 0:
            raise ValueError(f"Dense needs a positive number of units, not {units}")
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = kernel_regularizer
        self.bias_regularizer = bias_regularizer
        self.kernel: Variable
        self.bias: Variable | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not input_shape or input_shape[-1] is None:
            raise refused(
                f"Dense '{self.name}' needs inputs whose last dimension is known, "
                f"not {format_shape(input_shape)}"
            )
        self.kernel = self.add_weight(
            (input_shape[-1], self.units),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                (self.units,),
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
            )
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        # Integers too: a layer computes in its own dtype.
        x = convert_to_tensor(inputs, self.dtype)
        rank = B.known_rank(x, f"Dense '{self.name}'")
        width = B.dim(x, -1) if rank else None
        if rank == 0 or (isinstance(width, int) and width != self.kernel.shape[0]):
            raise refused(
                f"Dense '{self.name}' was built for inputs whose last dimension is "
                f"{self.kernel.shape[0]}, but got {format_shape(B.shape(x))}"
            )
        if self.bias is not None and rank == 2:
            y = B.op("Gemm", x, self.kernel.value, self.bias.value)
        else:
            y = ops.matmul(x, self.kernel)
            if self.bias is not None:
                y = ops.add(y, self.bias)
        result: Tensor = self.activation(y)
        return result


class Flatten(Layer):
    """(batch, ...) to (batch, everything else)."""

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs)
        if B.rank(x) == 1:
            return ops.expand_dims(x, -1)
        return ops.flatten(x)


class Activation(Layer):
    """An activation function as a layer."""

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)


class Dropout(Layer):
    """Inputs set to zero with probability `rate` while training, the others scaled up.

    Args:
        rate: between 0 and 1.
        noise_shape: the mask's shape, broadcast to the inputs'; None entries take the inputs' size.
        seed: an int gives the layer a random stream of its own; by default the global one.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Any = None,
        seed: int | random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(f"Dropout's rate lies between 0 and 1, not at {rate}")
        self.rate = float(rate)
        self.noise_shape = noise_shape
        self.seed = seed
        self._generator: random.SeedGenerator | None = None
        if isinstance(seed, random.SeedGenerator):
            self._generator = seed
        elif seed is not None:
            self._generator = random.SeedGenerator(seed)
            self._generator.state.path = f"{self.name}/seed_generator"

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        x = convert_to_tensor(inputs)
        if not training or self.rate == 0.0:
            return x
        if self.rate == 1.0:
            return ops.zeros_like(x)
        noise_shape = self.noise_shape
        if noise_shape is not None:
            sizes = ops.shape(x)
            noise_shape = [
                size if wanted is None else wanted
                for wanted, size in zip(noise_shape, sizes, strict=True)
            ]
        return random.dropout(x, self.rate, noise_shape, seed=self._generator)


class Identity(Layer):
    """The inputs as they are."""

    def call(self, inputs: Any) -> Any:
        return inputs


class Rescaling(Layer):
    """inputs * scale + offset."""

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset

    def call(self, inputs: Any) -> Tensor:
        x = ops.cast(inputs, self.dtype)
        x = ops.multiply(x, self.scale)
        return ops.add(x, self.offset) if np.any(self.offset) else x


class Reshape(Layer):
    """The elements of each sample in another shape; one entry may be -1."""

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs)
        batch, *sample = ops.shape(x)
        known, target = static_shape(sample), self.target_shape
        if known is not None and target.count(-1) == 1 and 0 not in target:
            # Found out now, so that the next layer can be built for it.
            rest = math.prod(known) // -math.prod(target)
            target = tuple(rest if d == -1 else d for d in target)
        return ops.reshape(x, (batch, *target))
