"""The printed form of the results."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness import TOLERANCE, Measurement, Result


def heading(description: Mapping[str, str | int | float], rounds: int) -> str:
    """What the benchmarks run on, in two lines."""
    parts = [f"{description['processor']}, {description['threads']} threads for every framework"]
    if "memory_gib" in description:
        parts.append(f"{description['memory_gib']} GiB")
    parts.append(str(description["system"]))
    if "load" in description:
        parts.append(f"load {description['load']} before")
    return f"{', '.join(parts)}\n{rounds} rounds in turns, float32, on the CPU\n"


def show(console: Console, result: Result) -> None:
    """Print the table of one workload, then all that a reader must know about it."""
    if result.measured:
        console.print(_table(result))
        console.print(_summary(result))
    for label, reason in result.left_out.items():
        console.print(f"{label} left out: {escape(reason)}", style="yellow")
    for label, reason in result.failed.items():
        console.print(f"{label} FAILED: {escape(reason)}", style="bold red")
    for line in result.restless:
        console.print(f"NOT IDLE: {line}", style="bold red")
    if lines := result.disagreements:
        console.print(
            f"DIFFERENT WORK: losses differ by more than {TOLERANCE:g}, so do not compare times",
            style="bold red",
        )
        for line in lines:
            console.print(f"  {line}", style="red")
    console.print()


def _table(result: Result) -> Table:
    table = Table(
        title=f"{result.title} ({result.steps} steps a round)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("framework")
    for title in (
        "ms per step",
        "min..max",
        "vs onnxtape",
        "first step",
        "peak RSS",
        "import",
        "installed",
    ):
        table.add_column(title, justify="right", overflow="fold")
    ours = result.measured.get("onnxtape")
    for measurement in sorted(result.measured.values(), key=lambda m: m.median_ms):
        table.add_row(
            measurement.label,
            _milliseconds(measurement.median_ms),
            f"{_milliseconds(min(measurement.rounds_ms))}.."
            f"{_milliseconds(max(measurement.rounds_ms))}",
            f"{measurement.median_ms / ours.median_ms:.2f}x" if ours else "-",
            f"{measurement.first_step_s:.2f} s",
            _size(measurement.peak_bytes),
            f"{measurement.import_s:.2f} s",
            _size(measurement.installed_bytes),
            style="bold" if measurement is ours else None,
        )
    return table


def _summary(result: Result) -> str:
    """The best peer against onnxtape."""
    versions: dict[str, str] = {}
    for measurement in result.measured.values():
        versions |= measurement.versions
    lines = [", ".join(f"{name} {version}" for name, version in versions.items())]
    peers = [m for name, m in result.measured.items() if name != "onnxtape"]
    ours = result.measured.get("onnxtape")
    if ours is not None and peers:
        best: Measurement = min(peers, key=lambda m: m.median_ms)
        lines.append(
            f"best peer / onnxtape: {best.label}, {_milliseconds(best.median_ms)} / "
            f"{_milliseconds(ours.median_ms)} ms = {best.median_ms / ours.median_ms:.2f}"
        )
    return "\n".join(lines)


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
