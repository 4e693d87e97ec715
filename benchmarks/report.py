"""The printed form of the results."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness import TOLERANCE, Measurement, Result, geometric_mean


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
        console.print(summary(result))
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


def by_speed(result: Result) -> list[Measurement]:
    """The frameworks, fastest first."""
    return sorted(result.measured.values(), key=lambda m: m.median_ms)


def _table(result: Result) -> Table:
    table = Table(
        title=f"{result.title} ({result.steps} steps a round)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column(COLUMNS[0])
    for title in COLUMNS[1:]:
        table.add_column(title, justify="right", overflow="fold")
    ours = result.measured.get("onnxtape")
    for measurement in by_speed(result):
        style = "bold" if measurement is ours else None
        table.add_row(*measurement_row(measurement, ours), style=style)
    return table


def summary(result: Result) -> str:
    """The best peer against onnxtape."""
    versions: dict[str, str] = {}
    for measurement in result.measured.values():
        versions |= measurement.versions
    lines = [", ".join(f"{name} {version}" for name, version in versions.items())]
    ours, best = result.measured.get("onnxtape"), result.best_peer
    if ours is not None and best is not None:
        lines.append(
            f"best peer / onnxtape: {best.label}, {_milliseconds(best.median_ms)} / "
            f"{_milliseconds(ours.median_ms)} ms = {result.ratio:.2f}"
        )
    if ours is not None and result.work and result.rates and result.floor_ms:
        work, rates = result.work, result.rates
        lines.append(
            f"floor: {_milliseconds(result.floor_ms)} ms, of which onnxtape takes "
            f"{ours.median_ms / result.floor_ms:.1f} times: {work.flops / 1e9:.3g} GFLOP at "
            f"{rates.flops_per_s / 1e9:.0f} GFLOP/s, {_size(work.bytes)} at "
            f"{rates.bytes_per_s / 1e9:.0f} GB/s"
        )
    return "\n".join(lines)


def overview(console: Console, results: Mapping[str, Result]) -> None:
    """Print one line for each workload, and the geometric mean of the ratios."""
    table = Table(title="All workloads", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("workload")
    for title in OVERVIEW[1:]:
        table.add_column(title, justify="right")
    for row in overview_rows(results):
        table.add_row(*row)
    console.print(table)
    mean = geometric_mean(results.values())
    if mean is not None:
        console.print(f"geometric mean of best peer / onnxtape: {mean:.2f}")


#: The columns of `overview_rows`.
OVERVIEW = (
    "workload",
    "onnxtape, ms",
    "best peer, ms",
    "ratio",
    "floor, ms",
    "of the floor",
    "step memory / PyTorch's",
)


def overview_rows(results: Mapping[str, Result]) -> list[list[str]]:
    """What the overview holds, as text."""
    rows = []
    for name, result in results.items():
        ours, best = result.measured.get("onnxtape"), result.best_peer
        torch = result.measured.get("torch")
        floor, row = result.floor_ms, [name]
        row.append(_milliseconds(ours.median_ms) if ours else "-")
        row.append(f"{best.label} {_milliseconds(best.median_ms)}" if best else "-")
        row.append(f"{result.ratio:.2f}" if result.ratio else "-")
        row.append(_milliseconds(floor) if floor else "-")
        row.append(f"{ours.median_ms / floor:.1f}x" if ours and floor else "-")
        known = ours and torch and ours.step_bytes and torch.step_bytes
        row.append(f"{ours.step_bytes / torch.step_bytes:.2f}" if known else "-")  # type: ignore
        rows.append(row)
    return rows


def measurement_row(measurement: Measurement, ours: Measurement | None) -> list[str]:
    """One framework's numbers as text, in the order of `COLUMNS`."""
    return [
        measurement.label,
        _milliseconds(measurement.median_ms),
        f"{_milliseconds(min(measurement.rounds_ms))}..{_milliseconds(max(measurement.rounds_ms))}",
        f"{measurement.median_ms / ours.median_ms:.2f}x" if ours else "-",
        f"{measurement.first_step_s:.2f} s",
        _size(measurement.peak_bytes),
        _size(measurement.step_bytes),
        f"{measurement.import_s:.2f} s",
        _size(measurement.installed_bytes),
    ]


#: The columns of `measurement_row`.
COLUMNS = (
    "framework",
    "ms per step",
    "min..max",
    "vs onnxtape",
    "first step",
    "peak RSS",
    "of which step",
    "import",
    "installed",
)


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
