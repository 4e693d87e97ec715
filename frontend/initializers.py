"""Initial values of weights, with Keras's names, defaults and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from onnxtape import ops, random
from onnxtape.naming import to_snake_case
from onnxtape.tensor import Tensor


class Initializer:
    """Makes a tensor of a given shape and dtype."""

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        raise NotImplementedError


class Zeros(Initializer):
    """Zeros."""

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        return ops.zeros(tuple(shape), dtype)


class Ones(Initializer):
    """Ones."""

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        return ops.ones(tuple(shape), dtype)


class Constant(Initializer):
    """One number, or an array that broadcasts to the shape."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        return ops.broadcast_to(ops.convert_to_tensor(self.value, dtype), tuple(shape))


class _Seeded(Initializer):
    def __init__(self, seed: int | random.SeedGenerator | None) -> None:
        self.seed = seed


class RandomNormal(_Seeded):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        return random.normal(tuple(shape), self.mean, self.stddev, dtype, self.seed)


class TruncatedNormal(RandomNormal):
    """Normal numbers within two standard deviations of the mean."""

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        return random.truncated_normal(tuple(shape), self.mean, self.stddev, dtype, self.seed)


class RandomUniform(_Seeded):
    """Uniform numbers in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        return random.uniform(tuple(shape), self.minval, self.maxval, dtype, self.seed)


class VarianceScaling(_Seeded):
    """Numbers of variance scale / n, where n counts a unit's inputs, outputs, or their mean.

    Args:
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "truncated_normal", "untruncated_normal" or "uniform".
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
    ) -> None:
        super().__init__(seed)
        if scale <= 0.0:
            raise ValueError(f"scale must be positive, not {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"mode is 'fan_in', 'fan_out' or 'fan_avg', not {mode!r}")
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                "distribution is 'truncated_normal', 'untruncated_normal' or 'uniform', "
                f"not {distribution!r}"
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def __call__(self, shape: Sequence[int], dtype: npt.DTypeLike = "float32") -> Tensor:
        shape = tuple(shape)
        fan_in, fan_out = compute_fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return random.uniform(shape, -limit, limit, dtype, self.seed)
        stddev = math.sqrt(variance)
        if self.distribution == "untruncated_normal":
            return random.normal(shape, 0.0, stddev, dtype, self.seed)
        # The standard deviation of a standard normal cut off at +-2.
        stddev /= 0.87962566103423978
        return random.truncated_normal(shape, 0.0, stddev, dtype, self.seed)


class GlorotUniform(VarianceScaling):
    """Glorot and Bengio (2010), uniform in +-sqrt(6 / (fan_in + fan_out))."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(1.0, "fan_avg", "uniform", seed)


class GlorotNormal(VarianceScaling):
    """Glorot and Bengio (2010), truncated normal."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(1.0, "fan_avg", "truncated_normal", seed)


class HeNormal(VarianceScaling):
    """He et al. (2015), truncated normal."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(2.0, "fan_in", "truncated_normal", seed)


class HeUniform(VarianceScaling):
    """He et al. (2015), uniform."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(2.0, "fan_in", "uniform", seed)


class LecunNormal(VarianceScaling):
    """LeCun et al. (1998), truncated normal."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(1.0, "fan_in", "truncated_normal", seed)


class LecunUniform(VarianceScaling):
    """LeCun et al. (1998), uniform."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(1.0, "fan_in", "uniform", seed)


def compute_fans(shape: Sequence[int]) -> tuple[float, float]:
    """A unit's numbers of inputs and outputs, for a kernel of shape (..., inputs, outputs)."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


_BY_NAME: dict[str, type[Initializer]] = {
    to_snake_case(cls.__name__): cls
    for cls in (
        Zeros,
        Ones,
        Constant,
        RandomNormal,
        RandomUniform,
        TruncatedNormal,
        VarianceScaling,
        GlorotNormal,
        GlorotUniform,
        HeNormal,
        HeUniform,
        LecunNormal,
        LecunUniform,
    )
}
_BY_NAME |= {"zero": Zeros, "one": Ones, "normal": RandomNormal, "uniform": RandomUniform}


def get(identifier: Any) -> Callable[..., Any]:
    """An initializer from its name ("glorot_uniform"), its class, or itself."""
    if isinstance(identifier, str):
        key = identifier if identifier in _BY_NAME else to_snake_case(identifier)
        if key not in _BY_NAME:
            raise ValueError(
                f"no initializer is called {identifier!r}; there are {', '.join(_BY_NAME)}"
            )
        return _BY_NAME[key]()
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    raise TypeError(f"cannot make an initializer of {identifier!r}")
