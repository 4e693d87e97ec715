"""Operators of other domains than ONNX's own: which are known, and what is said of all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxtape.errors import ModelError
from onnxtape.interop import fused_operators, ml_operators
from onnxtape.tensor import Tensor

#: By their domains and names.
OPERATORS = {**fused_operators.OPERATORS, **ml_operators.OPERATORS}
#: As many inputs as one of them has, and more.
_MOST = 12


def require_known(op_type: str, found: str) -> None:
    """Refuse an operator that is none of `OPERATORS`.

    Args:
        op_type: its domain and name.
        found: where it is, to begin the message with.

    Raises:
        ModelError: with what to do about it.
    """
    if op_type in OPERATORS:
        return
    if op_type.startswith(f"{ml_operators.DOMAIN}::"):
        raise ModelError(
            f"{found}, whose numbers are attributes that cannot be trained; write a linear model "
            "with MatMul and Add"
        )
    raise ModelError(
        f"{found}, which is no standard operator, nor one of com.microsoft that is known here; "
        "export the model without fused or custom operators"
    )


def evaluate(
    op_type: str, operands: Sequence[Any], attributes: Mapping[str, Any]
) -> Sequence[Tensor | None]:
    """The outputs of one of `OPERATORS`, None for those that are not made here."""
    return OPERATORS[op_type]([*operands, *[None] * _MOST], attributes)
