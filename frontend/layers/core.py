"""Dense, dropout, and layers that arrange or watch what passes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxtape import activations, initializers, ops, random, regularizers
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.ops.convolution import checked_data_format
from onnxtape.ops.creation import static_shape
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Dense(Layer):
    """activation(inputs @ kernel + bias).

    Args:
        units: the size of the last output axis.
        activation: a name or function.
        kernel_initializer, bias_initializer: see `ot.initializers`.
        kernel_regularizer, bias_regularizer: see `ot.regularizers`.
        kernel_constraint, bias_constraint: see `ot.constraints`.

    Shapes: (..., inputs) to (..., units); kernel (inputs, units), bias (units,).
    """

    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if units <= 0:
            raise ValueError(f"Dense needs a positive number of units, not {units}")
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = kernel_regularizer
        self.bias_regularizer = bias_regularizer
        self.kernel_constraint = kernel_constraint
        self.bias_constraint = bias_constraint
        self.kernel: Variable
        self.bias: Variable | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not input_shape or not isinstance(input_shape[-1], int):
            raise refused(
                f"Dense '{self.name}' needs inputs whose last dimension is known, "
                f"not {format_shape(input_shape)}"
            )
        self.kernel = self.add_weight(
            (input_shape[-1], self.units),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                (self.units,),
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        # Integers too: a layer computes in its own dtype.
        x = convert_to_tensor(inputs, self.compute_dtype)
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
    """(batch, ...) to (batch, everything else).

    Args:
        data_format: "channels_first" puts the channels of (batch, channels, ...) last before;
            by default everything stays in its order.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = checked_data_format(data_format)

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs)
        rank = B.known_rank(x, f"Flatten '{self.name}'")
        if rank == 1:
            return ops.expand_dims(x, -1)
        if self.data_format == "channels_first" and rank > 2:
            x = ops.moveaxis(x, 1, -1)
        return ops.flatten(x)


class Dropout(Layer):
    """Inputs set to zero with probability `rate` while training, the others scaled up.

    Args:
        rate: between 0 and 1.
        noise_shape: the mask's shape, broadcast to the inputs'; None entries take the inputs' size.
        seed: an int gives the layer a random stream of its own; by default the global one.
    """

    supports_masking = True

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

    supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs


class Rescaling(Layer):
    """inputs * scale + offset."""

    _takes_numbers = True

    supports_masking = True

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset

    def call(self, inputs: Any) -> Tensor:
        x = ops.cast(inputs, self.compute_dtype)
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


class Permute(Layer):
    """The axes of each sample in another order.

    Args:
        dims: the order, counted from 1: (2, 1) swaps the two axes after the batch.
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(
                f"Permute takes each axis of a sample once, counted from 1, not {self.dims}"
            )

    def call(self, inputs: Any) -> Tensor:
        return ops.transpose(inputs, (0, *self.dims))


class RepeatVector(Layer):
    """(batch, features) to (batch, n, features)."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = int(n)

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs)
        if B.rank(x) != 2:
            raise refused(
                f"RepeatVector '{self.name}' takes (batch, features), not "
                f"{format_shape(B.shape(x))}"
            )
        return ops.tile(ops.expand_dims(x, 1), (1, self.n, 1))


class Lambda(Layer):
    """Any function of tensors as a layer.

    Args:
        function: of the inputs, and of `arguments` by name; it may also take `mask` and `training`.
            Variables that it reads are not the layer's: write a layer of your own for those.
        output_shape: not needed, since shapes are inferred.
        mask: the mask of the outputs, or a function of inputs and mask that gives it.
        arguments: further arguments for the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        mask: Any = None,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"Lambda takes a function, not {function!r}")
        self.function = function
        self.mask = mask
        self.supports_masking = mask is not None
        self.arguments = arguments or {}
        try:
            taken = set(inspect.signature(function).parameters)
        except ValueError:  # some functions written in C do not say
            taken = set()
        self._passed = [name for name in ("mask", "training") if name in taken]

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        given = {"mask": mask, "training": training}
        extra: dict[str, Any] = {name: given[name] for name in self._passed}
        return self.function(inputs, **(extra | self.arguments))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """As given to the layer; None by default."""
        return self.mask(inputs, mask) if callable(self.mask) else self.mask


class ActivityRegularization(Layer):
    """The inputs as they are, with a loss of their size.

    Args:
        l1: the factor of the sum of absolute values.
        l2: the factor of the sum of squares. Both are divided by the batch size.
    """

    supports_masking = True

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1, l2), **kwargs)
        self.l1, self.l2 = l1, l2

    def call(self, inputs: Any) -> Any:
        return inputs
