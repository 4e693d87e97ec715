"""Gradients and the variables that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape import context
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import GradientError
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

Pairs = Sequence[tuple[Tensor, Variable]]


def check_pairs(pairs: Sequence[Any]) -> None:
    """Refuse what are no pairs (gradient, variable)."""
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                "apply_gradients takes pairs (gradient, variable): write "
                "optimizer.apply_gradients(zip(gradients, variables)), or "
                "optimizer.apply(gradients, variables)"
            )
        if not isinstance(pair[1], Variable):
            swapped = isinstance(pair[0], Variable)
            raise TypeError(
                "apply_gradients takes pairs (gradient, variable), in this order; "
                + ("here the variable comes first" if swapped else f"not with {pair[1]!r}")
            )


def paired(grads: Sequence[Any], variables: Sequence[Variable]) -> list[tuple[Tensor, Variable]]:
    """The gradients that there are, with their variables; a warning names the others.

    Raises:
        GradientError: there are none.
        ShapeError: a gradient of another shape than its variable's.
    """
    missing = [v.path for g, v in zip(grads, variables, strict=True) if g is None]
    if missing and len(missing) == len(variables):
        raise GradientError(
            f"no variable has a gradient ({', '.join(missing)}): the loss does not depend on "
            "them, or was computed outside the GradientTape"
        )
    if missing:
        context.warn_user(f"no gradient reaches {', '.join(missing)}; they are left as they are")
    pairs = [
        (convert_to_tensor(g, v.dtype), v)
        for g, v in zip(grads, variables, strict=True)
        if g is not None
    ]
    for gradient, variable in pairs:
        if not may_equal(B.shape(gradient), variable.shape):
            raise refused(
                f"the gradient of variable '{variable.path}' has shape "
                f"{format_shape(B.shape(gradient))}, not {format_shape(variable.shape)}"
            )
    return pairs
