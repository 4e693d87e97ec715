"""Train models of GPU size with onnxtape, PyTorch and JAX, and print a table of milliseconds.

Run from the repository's root, on a machine with an NVIDIA GPU::

    python -m benchmarks --device cuda
    python -m benchmarks.gpu --workloads gpt --precisions float32 bfloat16 --json gpu.json

Nothing is installed: what is not there is left out, and a line says so. Each framework has a
process of its own, one after the other, with the GPU to itself. What is timed is a whole step: the
batch is copied from NumPy, and the loss comes back as a Python float. After five steps to get warm,
the median of the others is reported, and the fastest and the slowest. float32 is with TF32 for all.
`--device cpu --size tiny` tries the program itself.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gpu.sizes import SIZES
from benchmarks.gpu.steps import FRAMEWORKS

PRECISIONS = ("float32", "bfloat16", "float16")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    workloads = list(SIZES["full"])
    parser.add_argument("--workloads", nargs="+", choices=workloads, default=workloads)
    names = list(FRAMEWORKS)
    parser.add_argument("--frameworks", nargs="+", choices=names, default=names)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default: 20)")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 where a framework failed."""
    given = _arguments(argv)
    if given.device == "cuda" and (missing := without_cuda()):
        print(f"There is nothing to measure here: {missing}", file=sys.stderr)
        return 1
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(f"{device_name(given.device)}, {given.size} size, {given.steps} steps")
    results: dict[str, dict[str, Any]] = {}
    for workload in given.workloads:
        for precision in given.precisions:
            found = {name: _measured(given, name, workload, precision) for name in given.frameworks}
            results[f"{workload} {precision}"] = found
            console.print(_table(f"{workload}, {precision}", found))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any("error" in one for found in results.values() for one in found.values()))


def without_cuda() -> str | None:
    """Why onnxtape cannot use CUDA here, in one sentence; None if it can."""
    from onnxtape.runtime.errors import OnnxtapeRuntimeError
    from onnxtape.runtime.identity import identity_model
    from onnxtape.runtime.session import create_session

    try:
        create_session(identity_model(), "cuda")
    except OnnxtapeRuntimeError as error:
        return str(error)
    return None


def device_name(device: str) -> str:
    """What the driver calls the GPU."""
    if device == "cpu":
        return "the CPU"
    try:
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "a GPU that nvidia-smi does not tell of"


def _measured(given: argparse.Namespace, framework: str, workload: str, precision: str) -> Any:
    python = sys.executable if framework == "onnxtape" else given.peer_python
    command = [python, "-m", "benchmarks.gpu.worker", framework, workload, precision]
    command += [given.device, given.size, str(given.steps)]
    ended = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(ended.stdout)
    except json.JSONDecodeError:
        last = ended.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return {"error": f"ended with {ended.returncode}: {last[0]}"}


def _table(title: str, found: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("framework", "ms per step", "fastest to slowest", "vs onnxtape", "first step s"):
        table.add_column(column, justify="left" if column == "framework" else "right")
    ours = found.get("onnxtape", {}).get("times")
    for name, one in found.items():
        if "times" not in one:
            why = one.get("error") or f"left out: {one['absent']}"
            table.add_row(name, why, "", "", "")
            continue
        times = [1e3 * t for t in one["times"]]
        median = statistics.median(times)
        ratio = f"{median / (1e3 * statistics.median(ours)):.2f}" if ours else ""
        spread = f"{min(times):.2f} - {max(times):.2f}"
        table.add_row(name, f"{median:.2f}", spread, ratio, f"{one['first']:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
