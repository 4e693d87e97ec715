"""Train the same step with onnxtape and with its peers, and compare speed, start-up and footprint.

Run from the repository's root::

    python -m benchmarks
    python -m benchmarks --peer-python .venv-peers/bin/python --json out/benchmarks.json

The peers are PyTorch (eager and ``torch.compile``), JAX, TensorFlow and ONNX Runtime's own training
packages, which ended at 1.19.2. The first three take gigabytes, so they may live in a virtual
environment of their own, which ``--peer-python`` names; the last cannot be installed beside
onnxruntime, and ``--ort-training-python`` names its environment. onnxtape runs under the
interpreter that runs this program. A framework that is not installed is left out, and one line says
so.

What makes the comparison fair:

- **The same work.** Every framework starts from the same weights and gets the same batches as
  NumPy arrays, which is what a data loader yields (labels in the integer dtype that the framework
  asks for, converted beforehand). The loss comes back to Python as a float after every step. The
  losses of the first five steps are compared, and a relative difference above 1e-3 is an error.
- **The same machine at the same time.** Each framework has a process of its own, which keeps its
  compiled step. The processes are asked in turns (A B C, A B C, ...) for a block of steps while the
  others sleep, so a slow minute of the machine hits all of them. A pause before each block lets the
  spinning threads of the previous one fall asleep; the processor time that a process uses outside
  its turns is measured, and reported when it is not negligible.
- **The same threads.** Every framework that takes a thread count gets ``os.cpu_count()``. ONNX
  Runtime takes none from its environment: it uses one thread per physical core.
- **The best idiomatic form** of each framework: see the modules in ``benchmarks/workloads``.

What is reported for each framework:

- *ms per step*: the time of a block divided by its steps; the median over the rounds, then the
  fastest and the slowest round. A tenth as many steps run untimed before each block.
- *vs onnxtape*: its median divided by onnxtape's; above 1, onnxtape is faster.
- *first step*: seconds from the imported framework to the first loss: building the model,
  tracing, compiling and running once. Caches on disk start empty.
- *peak RSS*: ``ru_maxrss`` of the process after the last round, the batches included.
- *of which step*: that, less the resident size of a process that has imported the framework and
  what its first step loads: weights, optimizer state, batches, compiled code and activations.
- *import*: seconds for the import statement in a fresh process, the median of three.
- *installed*: bytes on disk of the distribution and of everything that it requires.

After the table: the *floor*, the least time that the step can take on this machine (see
`benchmarks.floor`). After all workloads: an overview, and the geometric mean of the ratios.
``--docs docs/benchmarks.md`` writes it all into that file, with a plot beside it.

A workload is one file in ``benchmarks/workloads``; to add one, copy ``mlp.py``.

The exit status is 1 when a framework failed, when losses disagree or when nothing could run.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from benchmarks import document, machine, report, workloads
from benchmarks.footprint import Interpreter
from benchmarks.harness import Result, run
from benchmarks.peers import PEERS


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=summary)
    parser.add_argument(
        "--workloads", nargs="+", choices=workloads.names(), default=workloads.names()
    )
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="default: all of them"
    )
    parser.add_argument(
        "--peer-python",
        metavar="PATH",
        default=sys.executable,
        help="interpreter whose environment holds the peers (default: this one)",
    )
    parser.add_argument(
        "--ort-training-python",
        metavar="PATH",
        default=sys.executable,
        help="interpreter whose environment holds onnxruntime-training-cpu (default: this one)",
    )
    parser.add_argument("--rounds", type=_positive, default=11, help="default: 11")
    parser.add_argument(
        "--steps", type=_positive, help="timed steps per round (default: the workload's own)"
    )
    parser.add_argument(
        "--device",
        choices=["cpu"],
        default="cpu",
        help="'cuda' as the first option runs `python -m benchmarks.gpu` with the rest",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument(
        "--docs",
        type=Path,
        metavar="FILE.md",
        help="also write the results between this document's markers, and a plot beside it",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks that the command line asks for; return the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if given[:2] == ["--device", "cuda"]:
        from benchmarks.gpu.__main__ import main as on_gpu

        return on_gpu(given[2:])
    arguments = _arguments(argv)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    places = {"onnxtape": sys.executable, "ort-training": arguments.ort_training_python}
    executables = {name: places.get(name, arguments.peer_python) for name in arguments.peers}
    opened = {executable: Interpreter(executable) for executable in {*executables.values()}}
    interpreters = {name: opened[executable] for name, executable in executables.items()}
    description = machine.describe()
    console.print(report.heading(description, arguments.rounds))
    results = {}
    for name in arguments.workloads:
        with console.status(name) as status:
            result = run(
                name,
                interpreters,
                rounds=arguments.rounds,
                steps=arguments.steps,
                progress=status.update,
            )
        report.show(console, result)
        results[name] = result
        # After each: a run that is cut off has not measured for nothing.
        _write(arguments, description, results)
    report.overview(console, results)
    return 0 if all(result.sound for result in results.values()) else 1


def _write(
    arguments: argparse.Namespace,
    description: Mapping[str, str | int | float],
    results: Mapping[str, Result],
) -> None:
    """Write the files that were asked for."""
    if arguments.docs is not None:
        document.write(arguments.docs, description, results, arguments.rounds)
    if arguments.json is not None:
        numbers = {
            "machine": description,
            "device": arguments.device,
            "workloads": {name: result.as_json() for name, result in results.items()},
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
