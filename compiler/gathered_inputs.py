"""Recurrent operators whose inputs are rows of a small table are differentiated as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record

B = Builder[Any]
N = Record[Any]

_RECURRENT = frozenset(["RNN", "GRU", "LSTM"])


def with_gathered_inputs(b: B, records: Sequence[N], sources: Sequence[Any]) -> list[N]:
    """The records; recurrent ones read the table itself where a Gather's rows are their input.

    Only where the table has at most half as many rows as are gathered, and nobody asks for the
    gradient of the gathered rows.
    """
    if not any(record.op_type in _RECURRENT for record in records):
        return list(records)
    asked = {id(source) for source in sources}
    gathers: dict[int, tuple[N, bool]] = {}  # by id of the rows: and whether steps come second
    found = []
    for record in records:
        if record.domain or record.rule is not None or any(id(o) in asked for o in record.outputs):
            found.append(record)
            continue
        if _takes_rows(b, record):
            gathers[id(record.outputs[0])] = record, False
        elif record.op_type == "Transpose" and id(record.inputs[0]) in gathers:
            gather, swapped = gathers[id(record.inputs[0])]
            if list(record.attribute("perm") or ()) == [1, 0, 2]:
                gathers[id(record.outputs[0])] = gather, not swapped
        elif record.op_type in _RECURRENT and id(record.inputs[0]) in gathers:
            record = _reading_the_table(record, *gathers[id(record.inputs[0])])
        found.append(record)
    return found


def _takes_rows(b: B, record: N) -> bool:
    """Whether it gathers rows of a table, most of them more than once."""
    if record.op_type != "Gather":
        return False
    table, places = (b.shape(record.required(i)) for i in (0, 1))
    if table is None or places is None or len(table) != 2 or len(places) != 2:
        return False
    if record.attribute("axis", 0) not in (0, -2):
        return False
    known = [size for size in (table[0], *places) if isinstance(size, int)]
    return len(known) == 3 and 2 * known[0] <= known[1] * known[2]


def _reading_the_table(record: N, gather: N, swapped: bool) -> N:
    """`swapped`: the gathered rows are (batch, length, features) before a Transpose."""
    if record.attribute("layout", 0):
        return record
    from onnxtape.compiler.gradients.recurrent import recurrent_of_rows

    rule = partial(recurrent_of_rows, gather.required(1), swapped)
    return replace(record, inputs=(gather.required(0), *record.inputs[1:]), rule=rule)
