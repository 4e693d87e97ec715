"""The little SVG that the pictures need: boxes with rows of text, arrows, frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FONT = "Helvetica, Arial, sans-serif"
SIZE = 13.0
ROW = 18.0
PADDING = 10.0
MARGIN = 16.0

#: Fill and border.
Colours = tuple[str, str]
GREY: Colours = ("#f3f4f6", "#9ca3af")
BLUE: Colours = ("#e8f1fd", "#5b8def")
ORANGE: Colours = ("#fdf0e3", "#e08a3c")
GREEN: Colours = ("#e6f6ec", "#3fa56b")

Point = tuple[float, float]


class Drawing(str):
    """The text of an SVG file; notebooks show the picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def text_width(text: str, size: float = SIZE, bold: bool = False) -> float:
    """About how wide a text is, in pixels, in the widest of the usual fonts (DejaVu Sans)."""
    units = 0.0
    for character in text:
        if character in "iIl.,:;|'!()[]{} jft":
            units += 0.38
        elif character in "mwMW@→━\N{MULTIPLICATION SIGN}":
            units += 0.98
        elif character.isupper():
            units += 0.72
        else:
            units += 0.64
    return units * size * (1.12 if bold else 1.0)


@dataclass(slots=True)
class Box:
    """A box: a bold title, and rows of text below.

    Attributes:
        x, y: its upper left corner.
    """

    title: str
    rows: Sequence[str] = ()
    colours: Colours = GREY
    tooltip: str = ""
    x: float = 0.0
    y: float = 0.0
    width: float = field(init=False)
    height: float = field(init=False)

    def __post_init__(self) -> None:
        widths = [text_width(self.title, bold=True), *map(text_width, self.rows)]
        self.width = max(*widths, 40.0) + 2 * PADDING
        self.height = ROW * (1 + len(self.rows)) + PADDING

    def write(self, to: list[str]) -> None:
        """Append the box's elements."""
        fill, border = self.colours
        x, y = self.x, self.y
        to.append("<g>")
        if self.tooltip:
            to.append(f"<title>{escape(self.tooltip)}</title>")
        to.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{self.width:.1f}" height="{self.height:.1f}" '
            f'rx="5" fill="{fill}" stroke="{border}"/>'
        )
        middle = x + self.width / 2
        for i, row in enumerate((self.title, *self.rows)):
            weight = ' font-weight="bold"' if i == 0 else ' fill="#4b5563"'
            baseline = y + PADDING / 2 + ROW * i + 13
            to.append(
                f'<text x="{middle:.1f}" y="{baseline:.1f}" text-anchor="middle"{weight}>'
                f"{escape(row)}</text>"
            )
        to.append("</g>")


def frame(x: float, y: float, width: float, height: float, title: str) -> list[str]:
    """A frame around several boxes, with a title in its upper left corner."""
    return [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8" '
        'fill="#fafafa" stroke="#c4c9d1" stroke-dasharray="5 3"/>',
        f'<text x="{x + PADDING:.1f}" y="{y + 16:.1f}" fill="#4b5563">{escape(title)}</text>',
    ]


def arrow(points: Sequence[Point], *, vertical: bool = True, colour: str = "#6b7280") -> str:
    """A smooth line through points, with a head at its end.

    Args:
        vertical: whether it leaves and enters its points upwards and downwards, or sideways.
    """
    x0, y0 = points[0]
    path = [f"M{x0:.1f},{y0:.1f}"]
    for x1, y1 in points[1:]:
        if abs(x1 - x0) + abs(y1 - y0) < 0.5:
            continue  # A curve without length would leave the head without a direction.
        if vertical:
            middle = (y0 + y1) / 2
            path.append(f"C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}")
        else:
            middle = (x0 + x1) / 2
            path.append(f"C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}")
        x0, y0 = x1, y1
    return line(" ".join(path), colour)


def line(path: str, colour: str = "#6b7280") -> str:
    """An SVG path with an arrow's head at its end."""
    return f'<path d="{path}" fill="none" stroke="{colour}" marker-end="url(#head)"/>'


def label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """A small text beside an arrow."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="#6b7280" text-anchor="{anchor}" '
        'stroke="#ffffff" stroke-width="3" paint-order="stroke">'
        f"{escape(text)}</text>"
    )


def document(elements: Sequence[str], width: float, height: float) -> Drawing:
    """The whole file; it has a white ground, so that it can be read on any page."""
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONT}" font-size="{SIZE:.0f}">\n'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0,0.5 L8,4 L0,7.5 z" '
        'fill="#6b7280"/></marker></defs>\n'
        '<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(elements) + "\n</svg>\n"
    )


def save(drawing: Drawing, to_file: str | os.PathLike[str] | None, what: str) -> Drawing:
    """Write the drawing, if there is a file to write it to.

    Raises:
        ValueError: the file is no ".svg".
    """
    if to_file is not None:
        path = Path(to_file)
        if path.suffix.lower() != ".svg":
            raise ValueError(
                f"{what} writes SVG, which browsers show: call the file "
                f"'{path.with_suffix('.svg')}', not '{path}'"
            )
        path.write_text(drawing, encoding="utf-8")
    return drawing
