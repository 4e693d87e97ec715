"""Layers around a layer."""

from __future__ import annotations

from typing import Any

from onnxtape import initializers, ops
from onnxtape.engine import B
from onnxtape.layers.layer import Layer
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

#: Keras's: the least square of a norm that is divided by.
_EPSILON = 1e-12


class Wrapper(Layer):
    """The base of layers that change what another layer does.

    Args:
        layer: which is built with the wrapper.
    """

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            raise ValueError(f"{type(self).__name__} takes a layer, not {layer!r}")
        self.layer = layer

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        self.built = True


class SpectralNormalization(Wrapper):
    """A layer whose kernel is divided, at each call in training, by its largest singular value.

    That is found by power iteration (T. Miyato et al., Spectral Normalization for Generative
    Adversarial Networks, 2018). The kernel is assigned, as in Keras.

    Args:
        layer: one with a `kernel` or `embeddings`.
        power_iterations: at each call.

    Raises:
        ValueError: no iterations; or (when built) a layer without a kernel.
    """

    def __init__(self, layer: Layer, power_iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        if power_iterations < 1:
            raise ValueError(
                f"SpectralNormalization needs one power iteration or more, not {power_iterations}"
            )
        self.power_iterations = power_iterations
        self.kernel: Variable
        self.vector_u: Variable

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        kernel = getattr(self.layer, "kernel", getattr(self.layer, "embeddings", None))
        if not isinstance(kernel, Variable):
            raise ValueError(
                f"SpectralNormalization takes a layer with a kernel or embeddings, which "
                f"{type(self.layer).__name__} '{self.layer.name}' has not"
            )
        self.kernel = kernel
        self.vector_u = self.add_weight(
            (1, kernel.shape[-1]),
            initializers.TruncatedNormal(stddev=0.02),
            kernel.dtype,
            trainable=False,
            name="vector_u",
        )

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        if training:
            u, kernel = self._normalized()
            # A kernel of zeros stays as it is.
            empty = ops.all(ops.equal(self.kernel, 0.0))
            self.vector_u.assign(ops.where(empty, self.vector_u, u))
            self.kernel.assign(ops.where(empty, self.kernel, kernel))
        outputs: Tensor = self.layer(inputs)
        return outputs

    def _normalized(self) -> tuple[Tensor, Tensor]:
        """The next left singular vector, and the kernel divided by its singular value."""
        matrix = ops.reshape(self.kernel, (-1, self.kernel.shape[-1]))
        u = self.vector_u.value
        for _ in range(self.power_iterations):
            v = _unit(ops.matmul(u, ops.transpose(matrix)))
            u = _unit(ops.matmul(v, matrix))
        u, v = ops.stop_gradient(u), ops.stop_gradient(v)
        sigma = ops.matmul(ops.matmul(v, matrix), ops.transpose(u))
        return u, ops.divide(self.kernel, ops.reshape(sigma, ()))


def _unit(x: Tensor) -> Tensor:
    squares = B.op("Max", ops.sum(ops.square(x)), _EPSILON)
    return ops.divide(x, ops.sqrt(squares))
