"""What is noted on a graph while it is built, about its values, for passes to act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

#: The key of a graph's `meta` under which values are noted that are computed again: value -> value.
SUPERSEDED = "onnxtape.superseded"
#: The key under which the graph's `Composite`s are listed.
_COMPOSITES = "onnxtape.composites"


@dataclass(frozen=True, slots=True)
class Composite:
    """A value that many nodes compute, as the result of one operator that ONNX does not have.

    Attributes:
        op_type: "KernelGradient", the gradient of a convolution by its kernel: of the image
            (n, ins, sizes...) and the maps' gradient (n, outs, places...), with Conv's attributes.
            "AddedRows", rows added to a table, or squares of a factor times the sums of rows: of
            the table, places (n,), rows (n, ...) of which some belong to one place, and the factor.
        inputs: what it is computed from.
        output: the value.
        attributes: lists of whole numbers.
    """

    op_type: str
    inputs: tuple[ir.Value, ...]
    output: ir.Value
    attributes: Mapping[str, Sequence[int]]


def composites(graph: ir.Graph) -> list[Composite]:
    """The graph's own list of composites."""
    noted: list[Composite] = graph.meta.setdefault(_COMPOSITES, [])
    return noted


def cloned(model: ir.Model) -> ir.Model:
    """A copy of a model, with the notes on values that passes have left in it."""
    clone = model.clone()
    made = (value for node in clone.graph for value in node.outputs)
    held = (*clone.graph.inputs, *clone.graph.initializers.values())
    values = {value.name: value for value in (*made, *held)}
    superseded: dict[ir.Value, ir.Value] = model.graph.meta.get(SUPERSEDED, {})
    notes = [
        Composite(
            note.op_type,
            tuple(values[value.name] for value in note.inputs),
            values[note.output.name],
            note.attributes,
        )
        for note in composites(model.graph)
        if all(value.name in values for value in (*note.inputs, note.output))
    ]
    pairs = {values[old.name]: values[new.name] for old, new in superseded.items()}
    # What else is noted there, names that are taken, holds for the copy too.
    clone.graph.meta.update(model.graph.meta)
    clone.graph.meta.update({SUPERSEDED: pairs, _COMPOSITES: notes})
    return clone
