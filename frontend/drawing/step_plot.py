"""`ot.plot_step`: what a compiled step does, forward, backward and update, layer by layer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.errors import Phase
from onnxtape.drawing.step_groups import INPUTS, RESULTS, Group, GroupKey, StepGroups
from onnxtape.drawing.svg import (
    BLUE,
    GREEN,
    GREY,
    MARGIN,
    ORANGE,
    ROW,
    Box,
    Colours,
    Drawing,
    document,
    label,
    line,
    save,
)

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction

_COLUMNS: dict[Phase, tuple[int, Colours]] = {
    "forward": (0, BLUE),
    "backward": (1, ORANGE),
    "update": (2, GREEN),
}
_COLUMN_GAP = 120.0
_ROW_GAP = 34.0
#: Characters in a row of a box.
_LINE = 36
#: How far the first edge that passes by a box bows out beside it, and each further row.
_BOW, _BOW_ROW = 14.0, 7.0


def plot_step(
    step: Any, to_file: str | os.PathLike[str] | None = "step.svg", depth: int | None = None
) -> Drawing:
    """Draw a compiled step as SVG: a row for each layer; forward, backward and update side by side.

    A box says which operators a layer's part of the graph has, and which variables it reads or
    writes; the number at an arrow is how many tensors flow there.

    Args:
        step: an `ot.function` that has been called (its last trace is drawn), a `ConcreteFunction`,
            or `model.train_function` after `fit`.
        to_file: an ".svg" file, or None to write none.
        depth: how many levels of nested layers to tell apart; by default as many as give at most
            30 rows.

    Returns:
        The SVG's text; notebooks show it as the picture.

    Raises:
        TypeError: something else.
        ValueError: the function has not been called yet; a depth below 1; or a file that is no
            ".svg".
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth is at least 1, not {depth}")
    groups = StepGroups(_concrete(step), depth)
    return save(_Picture(groups).drawn(), to_file, "plot_step")


def _concrete(step: Any) -> ConcreteFunction:
    from onnxtape.compiled_function import BoundFunction, Function
    from onnxtape.concrete import ConcreteFunction
    from onnxtape.training.batch_function import BatchFunction

    if isinstance(step, BatchFunction):
        step = step.function
    if isinstance(step, (Function, BoundFunction)):
        return step.get_concrete_function()
    if isinstance(step, ConcreteFunction):
        return step
    raise TypeError(
        f"plot_step draws an ot.function or one of its traces, not {type(step).__name__}; for a "
        "model, use plot_model, or model.train_function after fit"
    )


class _Picture:
    """Boxes on a grid, and the arrows between them."""

    def __init__(self, groups: StepGroups) -> None:
        self._groups = groups
        self._boxes = {key: _box(group) for key, group in groups.items.items()}
        self._rows = groups.rows
        if groups.inputs:
            specs = [f"{s.name} {format_shape(s.shape)} {s.dtype}" for s in groups.inputs]
            self._boxes[INPUTS] = Box("batch", specs, GREY)
        if groups.results:
            self._boxes[RESULTS] = Box("results", list(_wrapped(groups.results)), GREY)

    def drawn(self) -> Drawing:
        """The whole picture."""
        width, height = self._place()
        elements: list[str] = []
        texts: list[str] = []
        for (source, target), count in self._groups.edges.items():
            self._connect(source, target, count, elements, texts)
        for box in self._boxes.values():
            box.write(elements)
        elements += texts
        for phase, (column, _) in _COLUMNS.items():
            if (count := self._groups.count(phase)) and column in self._left:
                title = f"{phase}: {count} operator{'s' if count > 1 else ''}"
                middle = self._left[column] + self._widths[column] / 2
                elements.append(
                    f'<text x="{middle:.1f}" y="{MARGIN + 12:.1f}" text-anchor="middle" '
                    f'font-weight="bold" font-size="15">{title}</text>'
                )
        return document(elements, width, height)

    def _place(self) -> tuple[float, float]:
        """Give each box its place; returns the size of the picture."""
        self._widths: dict[int, float] = {}
        for key, box in self._boxes.items():
            column = _column(key)
            self._widths[column] = max(self._widths.get(column, 0.0), box.width)
        bow = _BOW + _BOW_ROW * min(len(self._rows), 8)
        self._left: dict[int, float] = {}
        x = MARGIN + bow
        for column in sorted(self._widths):
            self._left[column] = x
            x += self._widths[column] + _COLUMN_GAP
        width = x - _COLUMN_GAP + bow + MARGIN
        y = MARGIN + 2 * ROW
        self._row: dict[GroupKey, int] = {}
        # The lower ends of the rows.
        self._bottom: dict[int, float] = {}
        layers = [*self._rows]
        for number, layer in enumerate([INPUTS.layer, *layers, RESULTS.layer]):
            here = {k: b for k, b in self._boxes.items() if k.layer == layer}
            tallest = max((box.height for box in here.values()), default=0.0)
            for key, box in here.items():
                column = _column(key)
                box.x = self._left[column] + (self._widths[column] - box.width) / 2
                box.y = y + (tallest - box.height) / 2
                self._row[key] = number
            self._bottom[number] = y + tallest
            y += tallest + _ROW_GAP if here else 0.0
        return width, y - _ROW_GAP + MARGIN

    def _connect(
        self, source: GroupKey, target: GroupKey, count: int, lines: list[str], texts: list[str]
    ) -> None:
        a, b = self._boxes[source], self._boxes[target]
        across = _column(target) - _column(source)
        rows = self._row[target] - self._row[source]
        if across == 0 and abs(rows) == 1:
            x = (a.x + a.width / 2 + b.x + b.width / 2) / 2
            y0, y1 = (a.y + a.height, b.y) if rows > 0 else (a.y, b.y + b.height)
            # Beside each other where there is one each way.
            x += 9.0 if rows > 0 else -9.0
            lines.append(line(f"M{x:.1f},{y0:.1f} L{x:.1f},{y1:.1f}"))
            texts.append(label(x + 6, (y0 + y1) / 2 + 4, str(count), "start"))
            return
        if across == 0:
            # Past the boxes between: on the left in the forward column, else on the right.
            out = -1.0 if _column(source) == 0 else 1.0
            x0 = a.x if out < 0 else a.x + a.width
            x1 = b.x if out < 0 else b.x + b.width
            y0, y1 = a.y + 0.7 * a.height, b.y + 0.3 * b.height
            first, last = sorted((self._row[source], self._row[target]))
            widest = max(
                box.width
                for key, box in self._boxes.items()
                if _column(key) == _column(source) and first <= self._row[key] <= last
            )
            middle = a.x + a.width / 2
            turn = middle + out * (widest / 2 + _BOW + _BOW_ROW * min(abs(rows), 8))
            lines.append(
                line(
                    f"M{x0:.1f},{y0:.1f} C{turn:.1f},{y0:.1f} {turn:.1f},{y0:.1f} "
                    f"{turn:.1f},{(y0 + y1) / 2:.1f} C{turn:.1f},{y1:.1f} {turn:.1f},{y1:.1f} "
                    f"{x1:.1f},{y1:.1f}"
                )
            )
            texts.append(label(turn, (y0 + y1) / 2 + 4, str(count)))
            return
        if abs(across) == 2:
            self._pass(a, b, self._bottom[self._row[source]], count, lines, texts)
            return
        x0, x1 = (a.x + a.width, b.x) if across > 0 else (a.x, b.x + b.width)
        # Where several lines meet at a box, those from above arrive above.
        share = 0.5 + 0.3 * max(-1.0, min(1.0, rows / 3))
        y0, y1 = a.y + share * a.height, b.y + (1.0 - share) * b.height
        bend = _COLUMN_GAP / 2 if across > 0 else -_COLUMN_GAP / 2
        lines.append(
            line(
                f"M{x0:.1f},{y0:.1f} C{x0 + bend:.1f},{y0:.1f} {x1 - bend:.1f},{y1:.1f} "
                f"{x1:.1f},{y1:.1f}"
            )
        )
        # At the middle of a slanting line, but at the end of a level one, which others may cross.
        if rows:
            texts.append(label((x0 + x1) / 2, (y0 + y1) / 2 + 4, str(count)))
        else:
            texts.append(label(x1 - 22.0 if across > 0 else x1 + 22.0, y1 - 4, str(count)))

    @staticmethod
    def _pass(
        a: Box, b: Box, bottom: float, count: int, lines: list[str], texts: list[str]
    ) -> None:
        """Connect the outer columns, below the row of the first box and its neighbour."""
        way = 1.0 if b.x > a.x else -1.0
        x0, x1 = (a.x + a.width, b.x) if way > 0 else (a.x, b.x + b.width)
        y0, y1 = a.y + 0.7 * a.height, b.y + 0.7 * b.height
        level = bottom + _ROW_GAP / 2
        turn, back = x0 + way * _COLUMN_GAP / 3, x1 - way * _COLUMN_GAP / 3
        lines.append(
            line(
                f"M{x0:.1f},{y0:.1f} C{turn:.1f},{y0:.1f} {x0:.1f},{level:.1f} "
                f"{turn:.1f},{level:.1f} L{back:.1f},{level:.1f} "
                f"C{x1:.1f},{level:.1f} {back:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
            )
        )
        texts.append(label((turn + back) / 2, level + 4, str(count)))


def _column(key: GroupKey) -> int:
    return _COLUMNS[key.phase][0]


def _box(group: Group) -> Box:
    counted = Counter(group.operators)
    operators = [f"{n} {name}" if n > 1 else name for name, n in counted.most_common()]
    rows = [*_wrapped(operators)]
    if group.reads:
        rows.append(f"reads {_few(group.reads)}")
    if group.writes:
        rows.append(f"writes {_few(group.writes)}")
    sources = ", ".join(sorted(group.sources))
    tooltip = f"{sum(counted.values())} operators" + (f", from {sources}" if sources else "")
    return Box(group.key.layer or "outside of layers", rows, _COLUMNS[group.key.phase][1], tooltip)


def _few(names: Iterable[str], most: int = 3) -> str:
    """Names, the most frequent first, each once."""
    counts = Counter(names)
    shown = [f"{n} {name}" if n > 1 else name for name, n in counts.most_common(most)]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _wrapped(words: Iterable[str]) -> Iterable[str]:
    """Words in rows of a box."""
    row = ""
    for word in words:
        if row and len(row) + len(word) + 2 > _LINE:
            yield row + ","
            row = word
        else:
            row = f"{row}, {word}" if row else word
    if row:
        yield row
