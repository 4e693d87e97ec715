"""The results as Markdown, between two markers of a document, and as a plot beside it."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import plot, report
from benchmarks.harness import Result, geometric_mean

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def write(
    path: Path,
    machine: Mapping[str, str | int | float],
    results: Mapping[str, Result],
    rounds: int,
) -> None:
    """Replace what stands between the markers of the document at `path`, and the plot beside it.

    Raises:
        SystemExit: the document has no markers.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END} to write the results between")
    picture = path.with_suffix(".svg")
    picture.write_text(plot.ratios(results), encoding="utf-8")
    body = _body(machine, results, rounds, picture.name)
    path.write_text(f"{before}{BEGIN}\n{body}{END}{after}", encoding="utf-8")


def _body(
    machine: Mapping[str, str | int | float],
    results: Mapping[str, Result],
    rounds: int,
    picture: str,
) -> str:
    heading = report.heading(machine, rounds).strip().replace("\n", "; ")
    parts = [f"{datetime.date.today().isoformat()}. {heading}.", ""]
    parts += [f"![Time per step relative to onnxtape's]({picture})", ""]
    parts += [*_table(report.OVERVIEW, report.overview_rows(results)), ""]
    mean = geometric_mean(results.values())
    if mean is not None:
        parts += [f"Geometric mean of best peer / onnxtape: **{mean:.2f}**.", ""]
    for name, result in results.items():
        ours = result.measured.get("onnxtape")
        rows = [report.measurement_row(m, ours) for m in report.by_speed(result)]
        parts += [f"### {name}", "", f"{result.title}; {result.steps} steps a round.", ""]
        parts += [*_table(report.COLUMNS, rows), ""]
        parts += [*(f"{line}  " for line in report.summary(result).splitlines()), ""]
        parts += [f"{label} left out: {why}  " for label, why in result.left_out.items()]
        parts += [f"{label} failed: {why}  " for label, why in result.failed.items()]
        parts += [""] if result.left_out or result.failed else []
    return "\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
