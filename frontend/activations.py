"""Activation functions, by name too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from onnxtape import missing, ops
from onnxtape.ops.elementary import tanh
from onnxtape.ops.nn import (
    celu,
    elu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    swish,
    tanh_shrink,
    threshold,
)
from onnxtape.saving.objects import deserialize as deserialize_object
from onnxtape.saving.objects import get_custom_objects
from onnxtape.tensor import Tensor

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
]

Activation = Callable[..., Any]


def linear(x: Any) -> Any:
    """x itself."""
    return x


def exponential(x: Any) -> Tensor:
    """e ** x."""
    return ops.exp(x)


def gelu(x: Any, approximate: bool = False) -> Tensor:
    """x * Phi(x); exact by default, unlike the operation, as in Keras."""
    return ops.gelu(x, approximate)


def relu(
    x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """x above the threshold, no more than max_value; negative_slope * (x - threshold) below."""
    if threshold == 0 and negative_slope == 0:
        return ops.relu(x) if max_value is None else ops.clip(ops.relu(x), 0.0, float(max_value))
    above = ops.where(ops.greater(x, threshold), x, 0.0) if threshold else ops.relu(x)
    if max_value is not None:
        above = ops.minimum(above, float(max_value))
    if negative_slope == 0:
        return above
    below = ops.relu(ops.subtract(threshold, x))
    return ops.subtract(above, ops.multiply(below, negative_slope))


_BY_NAME: dict[str, Activation] = {
    function.__name__: function
    for function in (
        *(celu, elu, exponential, gelu, glu, hard_shrink, hard_sigmoid, hard_silu, hard_tanh),
        *(leaky_relu, linear, log_sigmoid, log_softmax, mish, relu, relu6, selu, sigmoid, silu),
        *(soft_shrink, softmax, softplus, softsign, sparse_plus, sparse_sigmoid, sparsemax),
        *(squareplus, tanh, tanh_shrink, threshold),
    )
}
_BY_NAME |= {"hard_swish": hard_swish, "swish": swish}


def get(identifier: Any) -> Activation:
    """An activation from its name or configuration, None (the identity), or itself.

    Raises:
        ValueError: no such name.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, Mapping):
        return deserialize_object(identifier)  # type: ignore[no-any-return]
    if isinstance(identifier, str):
        if (own := get_custom_objects().get(identifier)) is not None:
            return own  # type: ignore[no-any-return]
        if identifier not in _BY_NAME:
            raise ValueError(
                f"no activation is called {identifier!r}; there are {', '.join(sorted(_BY_NAME))}"
            )
        return _BY_NAME[identifier]
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    raise TypeError(f"cannot make an activation of {identifier!r}")


def is_named(activation: Any) -> bool:
    """Whether it is one of onnxtape's own."""
    return _BY_NAME.get(getattr(activation, "__name__", "")) is activation


def serialize(activation: Activation) -> str:
    """The name of an activation, from which `deserialize` gives it back.

    Raises:
        ValueError: it is none of onnxtape's own.
    """
    name = getattr(activation, "__name__", repr(activation))
    if not is_named(activation):
        raise ValueError(f"{name} is no activation of onnxtape's, so it has no name to be found by")
    return name


def deserialize(config: str, custom_objects: Mapping[str, Activation] | None = None) -> Activation:
    """The activation of a name, which may be one of yours.

    Args:
        custom_objects: your functions by name.
    """
    return (custom_objects or {}).get(config) or get(config)


if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
