"""Gradients and the variables that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from onnxtape import context
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.errors import located
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


def given_or_known(
    grads: Sequence[Any], given: Iterable[Variable] | None, known: Sequence[Variable] | None
) -> list[Variable]:
    """The variables that `apply` got, or those that the optimizer was built with.

    Raises:
        TypeError: the gradients are pairs, as `apply_gradients` takes them.
        ValueError: there are none.
    """
    if any(isinstance(g, tuple) for g in grads):
        raise TypeError(
            "optimizer.apply takes gradients, not pairs: write optimizer.apply(gradients, "
            "variables), or optimizer.apply_gradients(zip(gradients, variables))"
        )
    variables = known if given is None else given
    if variables is None:
        raise ValueError(
            "optimizer.apply needs the variables on its first call: write "
            "optimizer.apply(gradients, model.trainable_variables)"
        )
    return list(variables)


def paired(grads: Sequence[Any], variables: Sequence[Variable]) -> list[tuple[Tensor, Variable]]:
    """The gradients that there are, with their variables; a warning names the others.

    Raises:
        GradientError: there are none.
        ShapeError: a gradient of another shape than its variable's.
    """
    missing = [v.path for g, v in zip(grads, variables, strict=True) if g is None]
    if missing and len(missing) == len(variables):
        raise GradientError(
            located(
                f"no variable has a gradient ({', '.join(missing)}): the loss does not depend on "
                "them, or was computed outside the GradientTape",
                context.provenance(),
            )
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
