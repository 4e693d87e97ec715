"""A picture of the results: bars of time per step, relative to onnxtape's, on a log scale."""

import math
from collections.abc import Callable, Mapping
from html import escape

from benchmarks.harness import Measurement, Result
from onnxtape.drawing.svg import MARGIN, document

BAR, GAP, LABELS, WIDTH = 16.0, 20.0, 190.0, 520.0
COLOURS = {
    "onnxtape": "#3fa56b",
    "torch": "#e08a3c",
    "torch-compile": "#f2bd8a",
    "jax": "#5b8def",
    "tensorflow": "#b48ade",
    "ort-training": "#9ca3af",
}


def ratios(results: Mapping[str, Result]) -> str:
    """An SVG with one group of bars for each workload that onnxtape ran, shortest first.

    A bar ends at the framework's median time divided by onnxtape's; the thin mark on it at its
    fastest round; the dashed line in a group at the floor.
    """
    groups = {name: r for name, r in results.items() if "onnxtape" in r.measured}
    reach = [m.median_ms / _ours(r) for r in groups.values() for m in r.measured.values()]
    reach += [r.floor_ms / _ours(r) for r in groups.values() if r.floor_ms]
    low, high = min([0.5, *reach]) / 1.1, max([2.0, *reach]) * 1.25
    scale = WIDTH / math.log(high / low)

    def place(ratio: float) -> float:
        return MARGIN + LABELS + scale * math.log(ratio / low)

    y = MARGIN + 24
    body: list[str] = []
    for name, result in groups.items():
        ours = _ours(result)
        title = f"{name}: {ours:.3g} ms a step"
        body.append(_text(MARGIN, y + 12, title, weight="bold"))
        y += 20
        top = y
        for peer, measured in sorted(result.measured.items(), key=lambda pair: pair[1].median_ms):
            body += _bar(peer, measured, ours, y, place, low)
            y += BAR + 3
        if result.floor_ms:
            x = place(result.floor_ms / ours)
            body.append(_rule(x, top - 2, y, "#d24b4b", dashed=True))
        y += GAP
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low <= t <= high]
    grid = []
    for tick in ticks:
        grid.append(_rule(place(tick), MARGIN + 18, y - GAP, "#d6d9de" if tick != 1 else "#374151"))
        grid.append(_text(place(tick), MARGIN + 12, f"{tick:g}x", anchor="middle"))
    grid.append(_text(MARGIN, MARGIN + 12, "time / onnxtape's", weight="bold"))
    body.append(_text(MARGIN, y, "dashed: the floor, what the machine needs at least"))
    return document([*grid, *body], 2 * MARGIN + LABELS + WIDTH, y + MARGIN)


def _ours(result: Result) -> float:
    return result.measured["onnxtape"].median_ms


def _bar(
    peer: str,
    measured: Measurement,
    ours: float,
    y: float,
    place: Callable[[float], float],
    low: float,
) -> list[str]:
    ratio = measured.median_ms / ours
    start, end = place(low), place(ratio)
    fastest = place(max(low, min(measured.rounds_ms) / ours))
    return [
        _text(MARGIN + LABELS - 8, y + 12, measured.label, anchor="end"),
        f'<rect x="{start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{BAR:.1f}" '
        f'fill="{COLOURS.get(peer, "#6b7280")}"/>',
        _rule(fastest, y + 3, y + BAR - 3, "#111827"),
        _text(end + 5, y + 12, f"{ratio:.2f}x  {measured.median_ms:.3g} ms"),
    ]


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="#1f2937">{escape(text)}</text>'
    )


def _rule(x: float, top: float, bottom: float, colour: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" '
        f'stroke="{colour}"{dash}/>'
    )
