"""The table that `Model.summary` prints, in Keras's layout."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxtape.compiler.dims import format_shape

if TYPE_CHECKING:
    from onnxtape.layers.layer import Layer
    from onnxtape.models.model import Model
    from onnxtape.variable import Variable


def print_summary(
    model: Model,
    print_fn: Callable[[str], None] | None,
    *,
    line_length: int | None,
    positions: Sequence[float] | None,
    expand_nested: bool,
    show_trainable: bool,
    layer_range: Sequence[str] | None,
) -> None:
    """Print the model's layers, output shapes and parameters, and the totals; see `summary`."""
    import rich.console
    import rich.markup
    import rich.table

    out = io.StringIO() if print_fn is not None else None
    console = rich.console.Console(file=out, highlight=False)
    # Keras's widths.
    width = line_length or min(88, console.width - 4)
    shares = positions or ((0.45, 0.73, 0.88, 1.0) if show_trainable else (0.45, 0.8, 1.0))
    ends = [0, *(int(share * width) if share <= 1 else int(share) for share in shares)]
    widths = [end - start for start, end in itertools.pairwise(ends)]
    table = rich.table.Table(width=width, show_lines=True)
    table.add_column("Layer (type)", width=widths[0])
    table.add_column("Output Shape", width=widths[1])
    table.add_column("Param #", width=widths[2], justify="right")
    if show_trainable:
        table.add_column("Trainable", width=widths[3], justify="center")
    rows = _in_range(list(model._summary_rows()), layer_range)
    for depth, layer, shape in _listed(rows, expand_nested):
        title = f"{'└ ' * depth}{layer.name} ({type(layer).__name__})"
        count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
        cells = [rich.markup.escape(title), _shape_text(shape), count]
        if show_trainable:
            trained = "Y" if layer.trainable_weights else "N"
            cells.append(trained if layer.weights else "-")
        table.add_row(*cells)
    # A graph from elsewhere has weights, and no layers of ours.
    for weight in [] if rows else model.weights:
        cells = [rich.markup.escape(weight.path), _shape_text(weight.shape), f"{weight.size:,}"]
        if show_trainable:
            cells.append("Y" if weight.trainable else "N")
        table.add_row(*cells)

    parts = {
        "Trainable": _count(model.trainable_weights),
        "Non-trainable": _count(model.non_trainable_weights),
    }
    if model.optimizer is not None and model.optimizer.built:
        parts["Optimizer"] = _count(model.optimizer.variables)
    total = tuple(map(sum, zip(*parts.values(), strict=True)))
    console.print(f'[bold]Model: "{rich.markup.escape(model.name)}"[/bold]')
    console.print(table)
    for label, (params, size) in {"Total": total, **parts}.items():
        console.print(f"[bold] {label} params:[/bold] {params:,} ({_readable(size)})")
    if print_fn is not None and out is not None:
        print_fn(out.getvalue())


Row = tuple["Layer", Any]


def _listed(rows: Iterable[Row], nested: bool, depth: int = 0) -> Iterator[tuple[int, Layer, Any]]:
    """The rows with their depth, those of models inside after the model's own."""
    for layer, shape in rows:
        yield depth, layer, shape
        if nested and hasattr(layer, "_summary_rows"):
            yield from _listed(layer._summary_rows(), nested, depth + 1)


def _in_range(rows: list[Row], names: Sequence[str] | None) -> list[Row]:
    if names is None:
        return rows
    listed = [layer.name for layer, _ in rows]
    if len(names) != 2 or any(name not in listed for name in names):
        raise ValueError(
            f"layer_range is the names of the first and the last layer, not {list(names)}; there "
            f"are {', '.join(listed)}"
        )
    first, last = map(listed.index, names)
    return rows[first : last + 1]


def _shape_text(shape: Any) -> str:
    if shape is None:
        return "?"
    if isinstance(shape, list):
        return ", ".join(map(_shape_text, shape))
    if isinstance(shape, Mapping):
        return ", ".join(f"{name}: {_shape_text(part)}" for name, part in shape.items())
    if any(isinstance(part, tuple) for part in shape):
        return f"({', '.join(map(_shape_text, shape))})"
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
