"""The table that `Model.summary` prints, in Keras's layout."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from onnxtape.compiler.dims import format_shape

if TYPE_CHECKING:
    from onnxtape.models.model import Model
    from onnxtape.variable import Variable


def print_summary(model: Model, print_fn: Callable[[str], None] | None) -> None:
    """Print the model's layers, output shapes and parameters, and the totals.

    Args:
        print_fn: takes the text as one string; by default it is printed to the terminal.
    """
    import rich.console
    import rich.markup
    import rich.table

    out = io.StringIO() if print_fn is not None else None
    console = rich.console.Console(file=out, highlight=False)
    # Keras's widths.
    width = min(88, console.width - 4)
    ends = [0, *(int(share * width) for share in (0.45, 0.8, 1.0))]
    widths = [end - start for start, end in itertools.pairwise(ends)]
    table = rich.table.Table(width=width, show_lines=True)
    table.add_column("Layer (type)", width=widths[0])
    table.add_column("Output Shape", width=widths[1])
    table.add_column("Param #", width=widths[2], justify="right")
    for layer, shape in model._summary_rows():
        title = f"{layer.name} ({type(layer).__name__})"
        count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
        table.add_row(rich.markup.escape(title), _shape_text(shape), count)

    trainable = _count(model.trainable_weights)
    frozen = _count(model.non_trainable_weights)
    console.print(f'[bold]Model: "{rich.markup.escape(model.name)}"[/bold]')
    console.print(table)
    for label, (params, size) in (
        ("Total", (trainable[0] + frozen[0], trainable[1] + frozen[1])),
        ("Trainable", trainable),
        ("Non-trainable", frozen),
    ):
        console.print(f"[bold] {label} params:[/bold] {params:,} ({_readable(size)})")
    if print_fn is not None and out is not None:
        print_fn(out.getvalue())


def _shape_text(shape: Any) -> str:
    if shape is None:
        return "?"
    if isinstance(shape, list):
        return ", ".join(map(_shape_text, shape))
    return format_shape(shape).replace("?", "None")


def _count(variables: Iterable[Variable]) -> tuple[int, int]:
    """Elements and bytes."""
    listed = list(variables)
    return sum(v.size for v in listed), sum(v.size * v.dtype.itemsize for v in listed)


def _readable(size: int) -> str:
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} GB"
