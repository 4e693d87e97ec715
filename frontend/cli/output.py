"""What the command prints: rich tables and bars on a terminal, plain text elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


class UsageError(Exception):
    """Arguments that do not go together, or that the file at hand needs."""


def decorated() -> bool:
    """Whether the output is for somebody who watches; rich may be missing where one only trains."""
    return sys.stdout.isatty() and find_spec("rich") is not None


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: Collection[str] = (),
) -> None:
    """Print a titled table.

    Args:
        right: the columns that hold numbers.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    if decorated():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title), title_justify="left")
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left")
        for row in texts:
            table.add_row(*map(escape, row))
        Console().print(table)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *texts, strict=True)]
    print(title)
    for row in [list(columns), *texts]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print(("  " + "  ".join(cells)).rstrip())
    print()


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """A bar, where somebody watches; yields what is called, with a text, after every part."""
    if not decorated():
        yield lambda text: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda text: bar.update(task, advance=1, description=f"{description}  {text}")


def readable_size(size: int) -> str:
    """A number of bytes: "1.5 MB"."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def shown_shape(shape: Sequence[int | str | None]) -> str:
    """A shape: "[batch, 784]"."""
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def whole_number(least: int) -> Callable[[str], int]:
    """An argument's type: whole numbers from `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return read


def positive(text: str) -> float:
    """An argument's type: positive numbers."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
