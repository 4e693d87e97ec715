"""Sequences and optionals, evaluated as Python lists, and as None: none is left in what is traced.

Exporters write them where a framework splits a tensor into a tuple; positions and sizes are
constants there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B
from onnxtape.errors import ModelError
from onnxtape.tensor import Tensor

Attributes = dict[str, Any]


def _number(x: Tensor, what: str) -> int:
    known = B.constant_value(x)
    if known is None:
        raise ModelError(f"{what} must be a constant")
    return int(known)


def split_to_sequence(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """Pieces of given sizes, of one size, or single slices."""
    x, axis = operands[0], attributes.get("axis", 0)
    size = B.dim(x, axis)
    split = None if len(operands) < 2 else B.constant_value(operands[1])
    if len(operands) > 1 and split is None:
        given = B.shape(operands[1])
        if given is None or len(given) != 1 or not isinstance(given[0], int):
            raise ModelError(
                "SplitToSequence's sizes must be constants, or of a number that is known"
            )
        return list(B.op_multi("Split", x, operands[1], outputs=given[0], axis=axis))
    if split is not None and split.ndim == 1:
        sizes = [int(s) for s in split]
    elif not isinstance(size, int):
        raise ModelError(
            f"SplitToSequence along axis {axis} of {format_shape(B.shape(x))} would give a number "
            "of pieces that is not known"
        )
    else:
        step = 1 if split is None else int(split)
        sizes = [min(step, size - start) for start in range(0, size, step)]
    if len(sizes) == 1:
        pieces = [x]
    else:
        pieces = list(B.op_multi("Split", x, sizes, outputs=len(sizes), axis=axis))
    if split is None and not attributes.get("keepdims", 1):
        pieces = [B.op("Squeeze", piece, [axis]) for piece in pieces]
    return pieces


def sequence_at(operands: Sequence[Any], attributes: Attributes) -> Tensor:
    """The tensor at a position."""
    tensor: Tensor = operands[0][_number(operands[1], "SequenceAt's position")]
    return tensor


def sequence_construct(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """The operands."""
    return list(operands)


def sequence_empty(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """Nothing."""
    return []


def sequence_insert(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """With a tensor before a position, by default at the end."""
    sequence, tensor = list(operands[0]), operands[1]
    end = len(sequence)
    place = _number(operands[2], "SequenceInsert's position") if len(operands) > 2 else end
    sequence.insert(place, tensor)
    return sequence


def sequence_erase(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """Without the tensor at a position, by default the last."""
    sequence = list(operands[0])
    place = _number(operands[1], "SequenceErase's position") if len(operands) > 1 else -1
    del sequence[place]
    return sequence


def sequence_length(operands: Sequence[Any], attributes: Attributes) -> Tensor:
    """How many tensors there are."""
    return B.constant(np.asarray(len(operands[0]), np.int64))


def concat_from_sequence(operands: Sequence[Any], attributes: Attributes) -> Tensor:
    """The tensors joined along an axis, or stacked along a new one."""
    tensors, axis = operands[0], attributes["axis"]
    if attributes.get("new_axis", 0):
        tensors = [B.op("Unsqueeze", t, [axis]) for t in tensors]
    return B.op("Concat", *tensors, axis=axis)


def optional(operands: Sequence[Any], attributes: Attributes) -> Any:
    """The tensor or sequence; None without one."""
    return operands[0] if operands else None


def optional_get_element(operands: Sequence[Any], attributes: Attributes) -> Any:
    """What the optional holds."""
    if operands[0] is None:
        raise ModelError("OptionalGetElement of an optional that holds nothing")
    return operands[0]


def optional_has_element(operands: Sequence[Any], attributes: Attributes) -> Tensor:
    """Whether the optional holds something."""
    return B.constant(np.asarray(bool(operands) and operands[0] is not None))


OPERATORS: dict[str, Callable[[Sequence[Any], Attributes], Any]] = {
    "ConcatFromSequence": concat_from_sequence,
    "Optional": optional,
    "OptionalGetElement": optional_get_element,
    "OptionalHasElement": optional_has_element,
    "SequenceAt": sequence_at,
    "SequenceConstruct": sequence_construct,
    "SequenceEmpty": sequence_empty,
    "SequenceErase": sequence_erase,
    "SequenceInsert": sequence_insert,
    "SequenceLength": sequence_length,
    "SplitToSequence": split_to_sequence,
}
