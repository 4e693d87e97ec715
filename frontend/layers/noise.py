"""Layers that add or multiply noise while training, and do nothing at rest."""

from __future__ import annotations

from typing import Any

from onnxtape import ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.core import Dropout
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor

# Of the self-normalizing networks' SELU: what its negative part tends to.
_SELU_FLOOR = -1.6732632423543772 * 1.0507009873554805


class _Spatial(Dropout):
    """Dropout of whole channels."""

    _rank: int

    def __init__(
        self,
        rate: float,
        seed: int | random.SeedGenerator | None = None,
        *,
        channels_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        ones = [1] * (self._rank - 2)
        self.noise_shape = (None, None, *ones) if channels_first else (None, *ones, None)

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        x = convert_to_tensor(inputs)
        if B.known_rank(x, type(self).__name__) != self._rank:
            raise refused(
                f"{type(self).__name__} '{self.name}' takes inputs of rank {self._rank}, not of "
                f"shape {format_shape(B.shape(x))}"
            )
        return super().call(x, training)


class SpatialDropout1D(_Spatial):
    """Whole channels of (batch, steps, channels) set to zero with probability `rate`."""

    _rank = 3

    def __init__(
        self, rate: float, seed: int | random.SeedGenerator | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed, **kwargs)


class SpatialDropout2D(_Spatial):
    """Whole channels of images set to zero with probability `rate`.

    Args:
        data_format: "channels_last" (the default) or "channels_first".
    """

    _rank = 4

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed, channels_first=_channels_first(data_format), **kwargs)


class SpatialDropout3D(SpatialDropout2D):
    """Whole channels of volumes set to zero with probability `rate`.

    Args:
        data_format: "channels_last" (the default) or "channels_first".
    """

    _rank = 5


def _channels_first(data_format: str | None) -> bool:
    if data_format not in (None, "channels_last", "channels_first"):
        raise ValueError(f"data_format is 'channels_last' or 'channels_first', not {data_format!r}")
    return data_format == "channels_first"


class _Noise(Layer):
    """A layer with a random stream of its own if it has a seed."""

    supports_masking = True

    def __init__(self, seed: int | random.SeedGenerator | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self._generator = seeded_generator(seed, self.name)


def seeded_generator(
    seed: int | random.SeedGenerator | None, name: str
) -> random.SeedGenerator | None:
    """A layer's own random stream; None, for the global one, without a seed."""
    if seed is None or isinstance(seed, random.SeedGenerator):
        return seed
    generator = random.SeedGenerator(seed)
    generator.state.path = f"{name}/seed_generator"
    return generator


class GaussianNoise(_Noise):
    """Normal noise of mean 0 added while training.

    Args:
        stddev: of the noise.
        seed: an int gives the layer a random stream of its own; by default the global one.
    """

    def __init__(
        self, stddev: float, seed: int | random.SeedGenerator | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        if not 0 <= stddev <= 1:
            raise ValueError(f"GaussianNoise's stddev lies between 0 and 1, not at {stddev}")
        self.stddev = float(stddev)

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        if not training or self.stddev == 0:
            return x
        return ops.add(x, random.normal(ops.shape(x), 0.0, self.stddev, x.dtype, self._generator))


class GaussianDropout(_Noise):
    """Inputs times normal noise of mean 1 while training.

    Args:
        rate: the noise's variance is rate / (1 - rate), as Dropout's would be.
        seed: an int gives the layer a random stream of its own; by default the global one.
    """

    def __init__(
        self, rate: float, seed: int | random.SeedGenerator | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"GaussianDropout's rate lies in [0, 1), not at {rate}")
        self.rate = float(rate)

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        if not training or self.rate == 0:
            return x
        stddev = (self.rate / (1.0 - self.rate)) ** 0.5
        return ops.multiply(x, random.normal(ops.shape(x), 1.0, stddev, x.dtype, self._generator))


class AlphaDropout(_Noise):
    """Dropout for SELU networks: what is dropped takes SELU's least value.

    Then all is scaled and shifted so that mean and variance stay (Klambauer et al., "Self-
    Normalizing Neural Networks", 2017).

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
        super().__init__(seed, **kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"AlphaDropout's rate lies in [0, 1), not at {rate}")
        self.rate = float(rate)
        self.noise_shape = noise_shape

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        if not training or self.rate == 0:
            return x
        shape: Any = ops.shape(x)
        if self.noise_shape is not None:
            pairs = zip(self.noise_shape, shape, strict=True)
            shape = [size if wanted is None else wanted for wanted, size in pairs]
        drawn = random.uniform(shape, seed=self._generator)
        kept = B.cast(B.op("GreaterOrEqual", drawn, self.rate), x.dtype)
        factor = ((1.0 - self.rate) * (1.0 + self.rate * _SELU_FLOOR**2)) ** -0.5
        # factor * (x * kept + floor * (1 - kept)) - factor * floor * rate
        level = factor * _SELU_FLOOR
        scaled = B.op("Mul", B.op("Sub", B.op("Mul", x, factor), level), kept)
        return B.op("Add", scaled, level * (1.0 - self.rate))
