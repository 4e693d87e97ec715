"""Sequences and optionals, seen through: a tensor that was put in is the tensor that comes out.

Derivatives belong to tensors. Before the backward pass, an operator that takes a tensor out of a
sequence of known content, at a known position, becomes an Identity of that tensor (or a Concat of
all), so that no gradient of a sequence is ever needed. What is not known stays as it is, and is
refused where it lies on the path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.expansion import Recorder
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]

#: What each sequence holds, by the identity of the value.
Content = dict[int, list[Any]]

#: Where sequences and optionals begin.
_ORIGINS = frozenset(
    ["SequenceConstruct", "SequenceEmpty", "SplitToSequence", "Optional", "OptionalGetElement"]
)


def without_sequences(b: B, records: Sequence[N]) -> list[N]:
    """The records, with operators on tensors in the place of those that read known sequences."""
    if not any(r.op_type in _ORIGINS for r in records):
        return list(records)
    content: Content = {}
    resolved: list[N] = []
    for record in records:
        handler = None if record.domain else _HANDLERS.get(record.op_type)
        replaced = None if handler is None else handler(b, record, content)
        resolved.extend([record] if replaced is None else replaced)
    return resolved


def operators_seen_through() -> tuple[str, ...]:
    """The operators on sequences that gradients pass, where content and positions are known."""
    return tuple(sorted(_HANDLERS.keys() - {"Identity", "SequenceEmpty"}))


def _handler(*op_types: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        _HANDLERS.update(dict.fromkeys(op_types, function))
        return function

    return register


#: From the record and what is known so far: the records in its place, or None to keep it.
_HANDLERS: dict[str, Callable[[B, N, Content], list[N] | None]] = {}


@_handler("SequenceConstruct", "SequenceEmpty")
def _construct(b: B, n: N, content: Content) -> list[N] | None:
    content[id(n.outputs[0])] = list(n.inputs)
    return None


@_handler("SequenceInsert")
def _insert(b: B, n: N, content: Content) -> list[N] | None:
    items = content.get(id(n.required(0)))
    if items is not None:
        place = _place(b, n.input(2), len(items), range(-len(items), len(items) + 1))
        if place is not None:
            content[id(n.outputs[0])] = [*items[:place], n.required(1), *items[place:]]
    return None


@_handler("SequenceErase")
def _erase(b: B, n: N, content: Content) -> list[N] | None:
    items = content.get(id(n.required(0)))
    if items is not None:
        place = _place(b, n.input(1), -1, range(-len(items), len(items)))
        if place is not None:
            place %= len(items)
            content[id(n.outputs[0])] = [*items[:place], *items[place + 1 :]]
    return None


@_handler("SequenceAt")
def _at(b: B, n: N, content: Content) -> list[N] | None:
    items = content.get(id(n.required(0)))
    if items is None:
        return None
    place = _place(b, n.required(1), 0, range(-len(items), len(items)))
    return None if place is None else [_instead(n, "Identity", [items[place]])]


@_handler("SplitToSequence")
def _split(b: B, n: N, content: Content) -> list[N] | None:
    x, axis = n.required(0), n.attribute("axis", 0)
    sizes = _sizes(b, n)
    if sizes is None:
        return None
    recorder = Recorder(b, n)
    items = list(recorder.op_multi("Split", x, sizes, outputs=len(sizes), axis=axis))
    if n.input(1) is None and not n.attribute("keepdims", 1):
        items = [recorder.op("Squeeze", item, [axis]) for item in items]
    content[id(n.outputs[0])] = items
    return [n, *recorder.records]


@_handler("ConcatFromSequence")
def _concat(b: B, n: N, content: Content) -> list[N] | None:
    items, axis = content.get(id(n.required(0))), n.attribute("axis")
    if not items:
        return None
    recorder = Recorder(b, n)
    if n.attribute("new_axis", 0):
        items = [recorder.op("Unsqueeze", item, [axis]) for item in items]
    return [*recorder.records, _instead(n, "Concat", items, axis=axis)]


@_handler("Identity", "Optional", "OptionalGetElement")
def _copy(b: B, n: N, content: Content) -> list[N] | None:
    """A sequence passes on what it holds; an optional stands for what was put into it."""
    x = n.input(0)
    if x is None:
        return None
    if id(x) in content:
        content[id(n.outputs[0])] = content[id(x)]
    return None if n.op_type == "Identity" else [_instead(n, "Identity", [x])]


def _place(b: B, position: Any, default: int, allowed: range) -> int | None:
    """The position, if it is known now and one of those allowed."""
    known = np.asarray(default) if position is None else b.constant_value(position)
    return int(known.item()) if known is not None and int(known.item()) in allowed else None


def _sizes(b: B, n: N) -> list[int] | None:
    """Into which sizes a tensor is split, as far as that is known now."""
    x, given = n.required(0), n.input(1)
    whole = b.dim(x, n.attribute("axis", 0))
    known = np.asarray(1) if given is None else b.constant_value(given)
    if known is None:
        return None
    if known.ndim:
        return [int(size) for size in known]
    if not isinstance(whole, int):
        return None
    step = int(known)
    return [min(step, whole - start) for start in range(0, whole, step)]


def _instead(n: N, op_type: str, inputs: Sequence[Any], **attributes: Any) -> N:
    """Another operator that makes the record's outputs."""
    return Record(op_type, tuple(inputs), n.outputs, attributes, "", n.name, n.provenance)
