"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxtape import ops
from onnxtape.ops import nn
from onnxtape.tensor import Tensor

Activation = Callable[[Any], Any]


def linear(x: Any) -> Any:
    """x itself."""
    return x


def exponential(x: Any) -> Tensor:
    """e ** x."""
    return ops.exp(x)


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return ops.tanh(x)


_NAMES = [
    "celu",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
]
_BY_NAME: dict[str, Activation] = {
    "linear": linear,
    "exponential": exponential,
    "tanh": tanh,
    # Keras's activation has another default approximation than its operation.
    **{name: getattr(nn, name) for name in _NAMES},
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


def get(identifier: Any) -> Activation:
    """An activation from its name, None (the identity), or itself.

    Raises:
        ValueError: no such name.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        if identifier not in _BY_NAME:
            raise ValueError(
                f"no activation is called {identifier!r}; there are {', '.join(sorted(_BY_NAME))}"
            )
        return _BY_NAME[identifier]
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    raise TypeError(f"cannot make an activation of {identifier!r}")
