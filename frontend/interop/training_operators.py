"""The operators of ai.onnx.preview.training, written with standard ones.

https://onnx.ai/onnx/operators/index.html#ai-onnx-preview-training: the formulas are those of the
operators' documentation. R is the learning rate, T the count of updates; each operator updates
several tensors X by their gradients G alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxtape.engine import B
from onnxtape.errors import ModelError
from onnxtape.tensor import Tensor

DOMAIN = "ai.onnx.preview.training"

Attributes = Mapping[str, Any]

#: The new values of a tensor and of what is kept with it.
_Update = Callable[[Tensor, Tensor, tuple[Tensor, ...], Attributes], tuple[Tensor, ...]]


def adagrad(
    rate: Tensor, count: Tensor, x: tuple[Tensor, ...], attributes: Attributes
) -> tuple[Tensor, ...]:
    """H' = H + G^2, X' = X - R / (1 + T decay) G / (sqrt(H') + epsilon)."""
    value, gradient, squares = x
    gradient = _regularized(value, gradient, attributes)
    decay = B.op("Mul", B.cast(count, rate.dtype), attributes.get("decay_factor", 0.0))
    rate = B.op("Div", rate, B.op("Add", decay, 1.0))
    squares = B.op("Add", squares, B.op("Mul", gradient, gradient))
    change = B.op("Div", B.op("Mul", rate, gradient), _root(squares, attributes))
    return B.op("Sub", value, change), squares


def adam(
    rate: Tensor, count: Tensor, x: tuple[Tensor, ...], attributes: Attributes
) -> tuple[Tensor, ...]:
    """V' = a V + (1 - a) G, H' = b H + (1 - b) G^2, X' = X - R' V' / (sqrt(H') + epsilon), with
    R' = R sqrt(1 - b^T) / (1 - a^T) once T > 0."""
    value, gradient, mean, squares = x
    alpha, beta = attributes.get("alpha", 0.9), attributes.get("beta", 0.999)
    gradient = _regularized(value, gradient, attributes)
    mean = _mixed(mean, gradient, alpha)
    squares = _mixed(squares, B.op("Mul", gradient, gradient), beta)
    steps = B.cast(count, rate.dtype)
    # With T = 0 both would be zero.
    counted = B.op("Max", steps, 1.0)
    powers = [
        B.op("Sub", 1.0, B.op("Pow", B.full_like(counted, b), counted)) for b in (beta, alpha)
    ]
    corrected = B.op("Div", B.op("Mul", rate, B.op("Sqrt", powers[0])), powers[1])
    rate = B.op("Where", B.op("Greater", steps, 0.0), corrected, rate)
    change = B.op("Mul", rate, B.op("Div", mean, _root(squares, attributes)))
    keep = 1.0 - attributes.get("norm_coefficient_post", 0.0)
    return B.op("Mul", B.op("Sub", value, change), keep), mean, squares


def momentum(
    rate: Tensor, count: Tensor, x: tuple[Tensor, ...], attributes: Attributes
) -> tuple[Tensor, ...]:
    """V' = a V + b G (b is 1 while T is 0); X' = X - R V', or X - R (G + a V') after Nesterov."""
    value, gradient, velocity = x
    alpha = attributes["alpha"]
    gradient = _regularized(value, gradient, attributes)
    steps = B.cast(count, rate.dtype)
    constant = B.full_like(steps, attributes["beta"])
    beta = B.op("Where", B.op("Greater", steps, 0.0), constant, 1.0)
    velocity = B.op("Add", B.op("Mul", velocity, alpha), B.op("Mul", gradient, beta))
    direction = velocity
    if attributes["mode"] == "nesterov":
        direction = B.op("Add", gradient, B.op("Mul", velocity, alpha))
    return B.op("Sub", value, B.op("Mul", rate, direction)), velocity


def _regularized(value: Tensor, gradient: Tensor, attributes: Attributes) -> Tensor:
    coefficient = attributes.get("norm_coefficient", 0.0)
    if not coefficient:
        return gradient
    return B.op("Add", B.op("Mul", value, coefficient), gradient)


def _root(squares: Tensor, attributes: Attributes) -> Tensor:
    return B.op("Add", B.op("Sqrt", squares), attributes.get("epsilon", 1e-6))


def _mixed(kept: Tensor, new: Tensor, share: float) -> Tensor:
    return B.op("Add", B.op("Mul", kept, share), B.op("Mul", new, 1.0 - share))


#: By operator: the update, and how many tensors there are for each X, itself included.
_UPDATES: dict[str, tuple[_Update, int]] = {
    "Adagrad": (adagrad, 3),
    "Adam": (adam, 4),
    "Momentum": (momentum, 3),
}


def update(op_type: str, operands: Sequence[Tensor], attributes: Attributes) -> list[Tensor]:
    """The outputs of Adagrad, Adam or Momentum: all new X, then all else that is kept.

    Raises:
        ModelError: another operator, or a number of inputs that does not fit.
    """
    if op_type not in _UPDATES:
        raise ModelError(f"{DOMAIN} has no operator {op_type} that is known here")
    rule, size = _UPDATES[op_type]
    rate, count, *rest = operands
    number, left = divmod(len(rest), size)
    if left or not number:
        raise ModelError(
            f"{op_type} takes {size} inputs for each tensor after R and T, not {len(rest)}"
        )
    rate = B.cast(rate, rest[0].dtype)
    updated = [rule(rate, count, tuple(rest[i::number]), attributes) for i in range(number)]
    return [part for parts in zip(*updated, strict=True) for part in parts]
