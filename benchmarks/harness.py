"""Runs one workload: starts the frameworks' processes, asks them in turns, collects the numbers."""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine, workloads
from benchmarks.floor import Rates, Work, measured_rates
from benchmarks.footprint import Interpreter
from benchmarks.peers import PEERS, Peer, environment, has_compiler

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-3
"""Largest relative difference between two frameworks' losses that counts as the same work."""
PAUSE = 0.25
"""Seconds before each block in which the previous process's threads stop spinning: Intel's OpenMP
spins for 0.2 seconds, the others for less."""
IDLE_SHARE = 0.02
"""Processor time outside its turns, relative to their length, above which a process is reported."""


class WorkerError(Exception):
    """A framework's process ended early; the message is the last line that it wrote."""


class Worker:
    """The process of one framework. A context manager, which ends the process."""

    def __init__(
        self, workload: str, peer: str, interpreter: Interpreter, variables: Mapping[str, str]
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            [interpreter.executable, "-m", "benchmarks.worker", workload, peer],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            WorkerError: the process ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            fields: dict[str, Any] = json.loads(line)
            return fields
        status = self._process.wait()
        self._log.seek(0)
        text = self._log.read().strip()
        raise WorkerError(text.splitlines()[-1] if text else f"exit status {status}")

    def time_block(self, steps: int) -> dict[str, Any]:
        """Run `steps` timed steps, after a tenth as many untimed ones."""
        return self._ask({"steps": steps, "warm_up": max(1, steps // 10)})

    def work(self) -> dict[str, Any]:
        """What one step computes and moves; see `benchmarks.floor.Work`."""
        return self._ask({"work": True})

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # answer() says why the process is gone
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


@dataclass
class Measurement:
    """What was measured of one framework."""

    label: str
    versions: dict[str, str]
    import_s: float
    installed_bytes: int
    first_step_s: float
    losses: list[float]
    loaded_bytes: int | None = None
    rounds_ms: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    idle_s: float = 0.0
    idle_cpu_s: float = 0.0

    @property
    def median_ms(self) -> float:
        """Milliseconds per step: the median over the rounds."""
        return statistics.median(self.rounds_ms)

    @property
    def step_bytes(self) -> int | None:
        """Peak memory beyond what the framework itself takes once it is loaded."""
        if self.peak_bytes is None or self.loaded_bytes is None:
            return None
        return self.peak_bytes - self.loaded_bytes

    def add(self, block: Mapping[str, Any], steps: int) -> None:
        """Take in the answer about one block of `steps` steps."""
        self.rounds_ms.append(block["elapsed_s"] * 1e3 / steps)
        self.peak_bytes = block["peak_bytes"]
        self.idle_s += block["idle_s"]
        self.idle_cpu_s += block["idle_cpu_s"]


@dataclass
class Result:
    """The outcome of one workload."""

    title: str
    rounds: int
    steps: int
    measured: dict[str, Measurement] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rates: Rates | None = None
    work: Work | None = None

    @property
    def best_peer(self) -> Measurement | None:
        """The fastest of the others."""
        peers = [m for name, m in self.measured.items() if name != "onnxtape"]
        return min(peers, key=lambda m: m.median_ms, default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's time divided by onnxtape's; None without either."""
        ours, best = self.measured.get("onnxtape"), self.best_peer
        return best.median_ms / ours.median_ms if ours and best else None

    @property
    def floor_ms(self) -> float | None:
        """The least time that a step can take on this machine; see `benchmarks.floor`."""
        return self.work.floor_ms(self.rates) if self.work and self.rates else None

    @property
    def disagreements(self) -> list[str]:
        """One line for each pair of frameworks whose losses differ: the work was not the same."""
        return disagreements({m.label: m.losses for m in self.measured.values()})

    @property
    def restless(self) -> list[str]:
        """One line for each framework that used the processor outside its turns."""
        return [
            f"{m.label} used {m.idle_cpu_s:.2f} s of processor time in {m.idle_s:.1f} s between "
            "its turns: the other frameworks' times are too long"
            for m in self.measured.values()
            if m.idle_cpu_s > IDLE_SHARE * m.idle_s
        ]

    @property
    def sound(self) -> bool:
        """Whether something was measured, nothing failed, and all did the same work."""
        return bool(self.measured) and not self.failed and not self.disagreements

    def as_json(self) -> dict[str, Any]:
        """All numbers, for a file."""
        return asdict(self) | {
            "median_ms": {name: m.median_ms for name, m in self.measured.items()},
            "ratio": self.ratio,
            "floor_ms": self.floor_ms,
            "disagreements": self.disagreements,
            "restless": self.restless,
        }


def geometric_mean(results: Iterable[Result]) -> float | None:
    """The geometric mean over the workloads of the best peer's time divided by onnxtape's."""
    ratios = [r.ratio for r in results if r.ratio is not None]
    return statistics.geometric_mean(ratios) if ratios else None


def disagreements(losses: Mapping[str, list[float]]) -> list[str]:
    """One line for each pair of names whose losses differ by more than `TOLERANCE`, relatively.

    NaN differs from everything.
    """
    lines = []
    for (first, ours), (second, theirs) in combinations(losses.items(), 2):
        for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if not abs(a - b) <= TOLERANCE * max(abs(a), abs(b)):
                lines.append(f"step {step}: the loss is {a:.6g} in {first} and {b:.6g} in {second}")
                break
    return lines


def _why_left_out(
    name: str, peer: Peer, workload: workloads.Workload, interpreter: Interpreter
) -> str | None:
    """Why this framework does not take part; None when it does."""
    if name not in workload.builders:
        return "the workload is not written for it"
    installed = interpreter.versions(peer.distributions)
    if missing := [one for one in peer.distributions if one not in installed]:
        # What goes into a document names no folder of the machine.
        place = Path(interpreter.executable)
        here = Path.cwd()
        shown = place.relative_to(here) if place.is_relative_to(here) else place
        return f"{', '.join(missing)} not installed for {shown}"
    if peer.needs_compiler and not has_compiler():
        return "it needs a C++ compiler, and there is none"
    return None


def _start(
    name: str, workload: str, interpreter: Interpreter, variables: Mapping[str, str]
) -> tuple[Worker, Measurement]:
    """Start a framework's process, wait for its first steps, and measure what is around them."""
    peer = PEERS[name]
    versions = interpreter.versions(peer.distributions + peer.optional)
    worker = Worker(workload, name, interpreter, variables)
    try:
        ready = worker.answer()
        measurement = Measurement(
            label=peer.label,
            versions=versions,
            import_s=interpreter.import_seconds(peer.modules, variables),
            loaded_bytes=interpreter.resident_bytes(peer.modules + peer.loads, variables),
            installed_bytes=interpreter.installed_bytes(tuple(versions)),
            **ready,
        )
    except BaseException:
        worker.__exit__(None, None, None)
        raise
    return worker, measurement


def run(
    name: str,
    interpreters: Mapping[str, Interpreter],
    *,
    rounds: int,
    steps: int | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> Result:
    """Compare frameworks on the workload called `name`.

    Args:
        name: a module in `benchmarks.workloads`.
        interpreters: for each framework that takes part, where it is installed.
        rounds: how often each framework gets its turn.
        steps: timed steps per turn; by default, the workload's own number.
        progress: called with a line about what is going on.

    A framework that cannot take part is in ``left_out``; one that breaks is in ``failed``, and the
    others go on.
    """
    workload = workloads.load(name)
    result = Result(workload.title, rounds, steps or workload.steps)
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        variables = environment(machine.threads(), cache)
        workers: dict[str, Worker] = {}
        for peer, interpreter in interpreters.items():
            label = PEERS[peer].label
            reason = _why_left_out(peer, PEERS[peer], workload, interpreter)
            if reason is not None:
                result.left_out[label] = reason
                continue
            progress(f"{name}: starting {label}")
            try:
                worker, measurement = _start(peer, name, interpreter, variables)
            except (WorkerError, subprocess.CalledProcessError) as error:
                result.failed[label] = str(error)
                continue
            workers[peer] = stack.enter_context(worker)
            result.measured[peer] = measurement
        for turn in range(rounds):
            for peer in list(workers):
                label = PEERS[peer].label
                progress(f"{name}: round {turn + 1} of {rounds}, {label}")
                time.sleep(PAUSE)
                try:
                    result.measured[peer].add(workers[peer].time_block(result.steps), result.steps)
                except WorkerError as error:
                    result.failed[label] = str(error)
                    del workers[peer], result.measured[peer]
        if "onnxtape" in workers:
            # Now that its memory has been measured: to count takes some.
            progress(f"{name}: counting what a step computes and moves")
            result.work = Work(**workers["onnxtape"].work())
            result.rates = measured_rates(interpreters["onnxtape"].executable, variables)
    return result
