"""Sequences and optionals, evaluated as Python lists, and as None: none is left in what is traced.

Exporters write them where a framework splits a tensor into a tuple, with constant positions and
sizes, and for lists that grow in a loop. How long these are may not be known while tracing: they
are the rows of one tensor then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape, same_shape
from onnxtape.engine import B
from onnxtape.errors import ModelError
from onnxtape.tensor import Tensor

Attributes = dict[str, Any]

_ONLY_ADDED = (
    "carries a sequence through a number of iterations that is not known while tracing, and does "
    "more than add tensors at its end; export the model with a tensor in its place"
)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A sequence of tensors of one shape, as many as there are when the step runs.

    Attributes:
        tensor: of shape (length, ...).
    """

    tensor: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Growing:
    """A sequence in the body of a Loop that does nothing but add to it.

    Attributes:
        added: what one iteration adds.
    """

    added: tuple[Tensor, ...] = ()


def is_sequence(x: Any) -> bool:
    """Whether it is one, of whichever kind."""
    return isinstance(x, (list, Rows, Growing))


def grown(title: str, before: Any, after: Any, rows: Sequence[Tensor]) -> list[Tensor] | Rows:
    """A sequence behind a Loop whose iterations add to it.

    Args:
        after: what an iteration has made of a `Growing`.
        rows: the stacked tensors, one for each of `after.added`.

    Raises:
        ModelError: the Loop does something else to it.
    """
    if not isinstance(after, Growing) or isinstance(before, Growing):
        raise ModelError(f"{title} {_ONLY_ADDED}")
    if not rows:
        return before  # type: ignore[no-any-return]
    made = rows[0]
    if len(rows) > 1:
        sides = B.op("Concat", *[B.op("Unsqueeze", r, [1]) for r in rows], axis=1)
        made = _merged(sides, 0)
    if isinstance(before, list):
        before = None if not before else _stacked(before)
    return Rows(made if before is None else B.op("Concat", before.tensor, made, axis=0))


def _stacked(tensors: Sequence[Tensor]) -> Rows:
    return Rows(B.op("Concat", *[B.op("Unsqueeze", t, [0]) for t in tensors], axis=0))


def _merged(x: Tensor, axis: int) -> Tensor:
    """Two neighbouring axes as one."""
    before, after = B.op("Shape", x, end=axis), B.op("Shape", x, start=axis + 2)
    return B.op("Reshape", x, B.op("Concat", before, [-1], after, axis=0))


def _moved(x: Tensor, source: int, target: int) -> Tensor:
    """The tensor with one axis in another place."""
    rank = len(B.shape(x) or ())
    perm = [i for i in range(rank) if i != source]
    perm.insert(target, source)
    return x if source == target else B.op("Transpose", x, perm=perm)


def _listed(sequence: Any, operator: str) -> list[Tensor]:
    if isinstance(sequence, list):
        return sequence
    what = f"Loop with {operator}" if isinstance(sequence, Growing) else operator
    if isinstance(sequence, Growing):
        raise ModelError(f"{what} {_ONLY_ADDED}")
    raise ModelError(
        f"{what} takes a sequence whose length is not known while tracing; export the model with a "
        "tensor in its place"
    )


def _number(x: Tensor, what: str) -> int:
    known = B.constant_value(x)
    if known is None:
        raise ModelError(f"{what} must be a constant")
    return int(known)


def split_to_sequence(operands: Sequence[Any], attributes: Attributes) -> list[Tensor] | Rows:
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
    elif not isinstance(size, int) and (split is None or int(split) == 1):
        axis %= len(B.shape(x) or (None,))
        rows = _moved(x, axis, 0)
        single = split is None and not attributes.get("keepdims", 1)
        return Rows(rows if single else B.op("Unsqueeze", rows, [axis + 1]))
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
    """The tensor at a position, which need not be known where all are of one shape."""
    sequence, position = operands
    if isinstance(sequence, list) and B.constant_value(position) is None and sequence:
        shapes = [B.shape(t) for t in sequence]
        if all(same_shape(shapes[0], shape) for shape in shapes):
            sequence = _stacked(sequence)
    if isinstance(sequence, Rows):
        return B.op("Gather", sequence.tensor, position, axis=0)
    place = _number(position, "SequenceAt's position, where the tensors' shapes differ,")
    return _listed(sequence, "SequenceAt")[place]


def sequence_construct(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """The operands."""
    return list(operands)


def sequence_empty(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """Nothing."""
    return []


def sequence_insert(
    operands: Sequence[Any], attributes: Attributes
) -> list[Tensor] | Rows | Growing:
    """With a tensor before a position, by default at the end."""
    given, tensor = operands[:2]
    if len(operands) < 3 and isinstance(given, Growing):
        return Growing((*given.added, tensor))
    if len(operands) < 3 and isinstance(given, Rows):
        return Rows(B.op("Concat", given.tensor, B.op("Unsqueeze", tensor, [0]), axis=0))
    sequence = list(_listed(given, "SequenceInsert"))
    end = len(sequence)
    place = _number(operands[2], "SequenceInsert's position") if len(operands) > 2 else end
    sequence.insert(place, tensor)
    return sequence


def sequence_erase(operands: Sequence[Any], attributes: Attributes) -> list[Tensor]:
    """Without the tensor at a position, by default the last."""
    sequence = list(_listed(operands[0], "SequenceErase"))
    place = _number(operands[1], "SequenceErase's position") if len(operands) > 1 else -1
    del sequence[place]
    return sequence


def sequence_length(operands: Sequence[Any], attributes: Attributes) -> Tensor:
    """How many tensors there are."""
    (sequence,) = operands
    if isinstance(sequence, Rows):
        return B.op("Squeeze", B.op("Shape", sequence.tensor, end=1), [0])
    return B.constant(np.asarray(len(_listed(sequence, "SequenceLength")), np.int64))


def concat_from_sequence(operands: Sequence[Any], attributes: Attributes) -> Tensor:
    """The tensors joined along an axis, or stacked along a new one."""
    (sequence,), axis, stacks = operands, attributes["axis"], attributes.get("new_axis", 0)
    if isinstance(sequence, Rows):
        rank = len(B.shape(sequence.tensor) or ())
        axis %= rank if stacks else rank - 1
        x = _moved(sequence.tensor, 0, axis)
        return x if stacks else _merged(x, axis)
    tensors = _listed(sequence, "ConcatFromSequence")
    if stacks:
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
