"""Initial values of weights, with Keras's names, defaults and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape import context, missing, ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.errors import ShapeError, TracingError
from onnxtape.lookup import Configurable, by_name, find
from onnxtape.tensor import Tensor

Shape = Sequence[int]


class Initializer(Configurable):
    """Makes a tensor of a given shape and dtype."""

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        raise NotImplementedError


class Zeros(Initializer):
    """Zeros."""

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        return ops.zeros(tuple(shape), dtype)


class Ones(Initializer):
    """Ones."""

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        return ops.ones(tuple(shape), dtype)


class Constant(Initializer):
    """One number, or an array that broadcasts to the shape."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        return ops.broadcast_to(ops.convert_to_tensor(self.value, dtype), tuple(shape))


class Identity(Initializer):
    """`gain` times the identity matrix."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        if len(shape) != 2:
            raise ShapeError(f"Identity makes matrices, not shape {format_shape(tuple(shape))}")
        rows, columns = shape
        return ops.convert_to_tensor((self.gain * np.eye(rows, columns)).astype(dtype))


class _Seeded(Initializer):
    def __init__(self, seed: int | random.SeedGenerator | None) -> None:
        self.seed = seed


class RandomNormal(_Seeded):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        return random.normal(tuple(shape), self.mean, self.stddev, dtype, self.seed)


class TruncatedNormal(RandomNormal):
    """Normal numbers within two standard deviations of the mean."""

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        return random.truncated_normal(tuple(shape), self.mean, self.stddev, dtype, self.seed)


class RandomUniform(_Seeded):
    """Uniform numbers in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        return random.uniform(tuple(shape), self.minval, self.maxval, dtype, self.seed)


class VarianceScaling(_Seeded):
    """Numbers of variance scale / n, where n counts a unit's inputs, outputs, or their mean.

    Args:
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "truncated_normal" (or "normal"), "untruncated_normal" or "uniform".
        input_axes, output_axes: the axes whose sizes multiply to the numbers of inputs and outputs,
            for a kernel of another layout than (..., inputs, outputs); both or neither.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        distribution = {"normal": "truncated_normal"}.get(distribution, distribution)
        if (input_axes is None) != (output_axes is None):
            raise ValueError("input_axes and output_axes are given together, or neither of them")
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
        self.input_axes, self.output_axes = input_axes, output_axes

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        shape = tuple(shape)
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
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


class _Scaled(VarianceScaling):
    """`VarianceScaling` with its first three arguments decided."""

    _decided: tuple[float, str, str]

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self._decided, seed, input_axes, output_axes)


class GlorotUniform(_Scaled):
    """Glorot and Bengio (2010), uniform in +-sqrt(6 / (fan_in + fan_out))."""

    _decided = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Glorot and Bengio (2010), truncated normal."""

    _decided = (1.0, "fan_avg", "truncated_normal")


class HeNormal(_Scaled):
    """He et al. (2015), truncated normal."""

    _decided = (2.0, "fan_in", "truncated_normal")


class HeUniform(_Scaled):
    """He et al. (2015), uniform."""

    _decided = (2.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """LeCun et al. (1998), truncated normal."""

    _decided = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """LeCun et al. (1998), uniform."""

    _decided = (1.0, "fan_in", "uniform")


class Orthogonal(_Seeded):
    """A matrix of orthonormal rows or columns (whichever are fewer), times `gain`.

    A. Saxe, J. McClelland and S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks", 2013. The last axis holds the columns, all others the rows.

    Raises:
        ShapeError: fewer than two axes.
        TracingError: called in a trace other than for a variable's initial value: the decomposition
            is NumPy's.
    """

    def __init__(self, gain: float = 1.0, seed: Any = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        shape = tuple(shape)
        if len(shape) < 2:
            raise ShapeError(f"Orthogonal makes no tensors of shape {format_shape(shape)}")
        if context.state.symbolic is not None:
            raise TracingError(
                "Orthogonal was called while a step is traced",
                "Create a variable with it, or call it outside",
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(random.normal(tall, seed=self.seed).numpy().astype(np.float64))
        # Without these signs the distribution is not uniform.
        q = q * np.where(np.diag(r) < 0.0, -1.0, 1.0)
        matrix = self.gain * (q if rows >= columns else q.T)
        return ops.convert_to_tensor(matrix.reshape(shape).astype(dtype))


class STFT(Initializer):
    """The kernel of a convolution that computes a short-time Fourier transform.

    Its shape is (frame_length, channels, bins), with bins = fft_length // 2 + 1.

    Args:
        side: "real" or "imag": which part.
        window: None, or one number per place in the frame, or "hann", "hamming", "blackman" or
            "bartlett".
        scaling: divide by the root of the window's sum of squares ("density"), its sum
            ("spectrum"), or nothing (None).
        periodic: make the named window for the period of a discrete transform.
    """

    def __init__(
        self,
        side: str = "real",
        window: Any = "hann",
        scaling: str | None = "density",
        periodic: bool = False,
    ) -> None:
        if side not in ("real", "imag"):
            raise ValueError(f"side is 'real' or 'imag', not {side!r}")
        if scaling not in ("density", "spectrum", None):
            raise ValueError(f"scaling is 'density', 'spectrum' or None, not {scaling!r}")
        if isinstance(window, str) and window not in _WINDOWS:
            raise ValueError(
                f"no window is called {window!r}; there are {', '.join(_WINDOWS)}, and any array"
            )
        self.side, self.window, self.scaling, self.periodic = side, window, scaling, periodic

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        if len(shape) != 3:
            raise ShapeError(
                "STFT makes kernels of shape (frame_length, channels, bins), "
                f"not {format_shape(tuple(shape))}"
            )
        length, channels, bins = shape
        period = max(2 * (bins - 1), 1)
        angle = -2.0 * np.pi / period * np.outer(np.arange(length), np.arange(bins))
        kernel = np.cos(angle) if self.side == "real" else np.sin(angle)
        if self.window is not None:
            window = self._window(length)
            kernel = kernel * window[:, None]
            if self.scaling == "density":
                kernel = kernel / np.sqrt(np.sum(window**2))
            elif self.scaling == "spectrum":
                kernel = kernel / np.sum(np.abs(window))
        every = np.broadcast_to(kernel[:, None, :], (length, channels, bins))
        return ops.convert_to_tensor(every.astype(dtype))

    def _window(self, length: int) -> npt.NDArray[Any]:
        if isinstance(self.window, str):
            # A periodic window is a symmetric one of one place more, which is left out.
            return np.asarray(_WINDOWS[self.window](length + self.periodic)[:length])
        window = np.asarray(self.window, np.float64)
        if window.shape != (length,):
            raise ShapeError(f"a window of shape {window.shape} was given for frames of {length}")
        return window


_WINDOWS: dict[str, Callable[[int], Any]] = {
    "hann": np.hanning,
    "hamming": np.hamming,
    "blackman": np.blackman,
    "bartlett": np.bartlett,
}


def compute_fans(
    shape: Shape,
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> tuple[float, float]:
    """A unit's numbers of inputs and outputs, for a kernel of shape (..., inputs, outputs)."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[i] for i in input_axes), math.prod(shape[i] for i in output_axes)
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


# Keras's other names.
zeros, ones, constant, identity, stft = Zeros, Ones, Constant, Identity, STFT
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling, orthogonal = VarianceScaling, Orthogonal
glorot_normal, glorot_uniform = GlorotNormal, GlorotUniform
he_normal, he_uniform = HeNormal, HeUniform
lecun_normal, lecun_uniform = LecunNormal, LecunUniform

_BY_NAME = by_name(
    (
        Zeros,
        Ones,
        Constant,
        Identity,
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
        Orthogonal,
        STFT,
    ),
    {
        "zero": Zeros,
        "one": Ones,
        "normal": RandomNormal,
        "uniform": RandomUniform,
        "identity_initializer": Identity,
        "orthogonal_initializer": Orthogonal,
        "stft_initializer": STFT,
    },
)


def get(identifier: Any) -> Any:
    """An initializer.

    Args:
        identifier: a name ("glorot_uniform"), class or configuration; an array or tensor, which is
            itself the initial value; an initializer or any function of shape and dtype; or None,
            which stays None.
    """
    if isinstance(identifier, (np.ndarray, np.generic, Tensor)):
        return _Given(identifier)
    return find(identifier, _BY_NAME, Initializer, "initializer", functions=True)


class _Given(Initializer):
    """The value itself, of the one shape that it has."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, shape: Shape, dtype: npt.DTypeLike = "float32") -> Tensor:
        value = ops.convert_to_tensor(self.value, dtype)
        if value.shape != tuple(shape):
            raise ShapeError(
                f"an initial value of shape {format_shape(value.shape)} was given for a variable "
                f"of shape {format_shape(tuple(shape))}"
            )
        return value


if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, globals())
