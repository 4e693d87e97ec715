"""The process of one framework: ``python -m benchmarks.worker WORKLOAD PEER``.

It runs in the framework's environment and imports nothing else but NumPy. It builds the step, takes
the first steps, and answers with one JSON line; then it answers every request on its standard
input with another: ``{"steps": n, "warm_up": n}`` runs a block, and ``{"work": true}`` asks what a
step of onnxtape's computes and moves. It ends when its input does. Whatever else is printed in this
process goes to its standard error.
"""

import importlib
import json
import math
import os
import sys
import time
from typing import Any

from benchmarks import workloads
from benchmarks.peers import PEERS

FIRST_STEPS = 5
"""Steps whose losses are compared between the frameworks."""


def _peak_bytes() -> int | None:
    """The largest resident size so far; None on systems that do not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(workload_name: str, peer: str) -> None:
    """Serve one framework's step of one workload."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers)

    for module in PEERS[peer].modules:
        importlib.import_module(module)
    workload = workloads.load(workload_name)
    problem = workload.problem()

    start = time.perf_counter()
    step = workload.builders[peer](problem)
    losses = [step()]
    first_step = time.perf_counter() - start
    losses += [step() for _ in range(FIRST_STEPS - 1)]
    answer(first_step_s=first_step, losses=losses)

    idle_since, idle_cpu_since = time.perf_counter(), time.process_time()
    for line in sys.stdin:
        idle, idle_cpu = time.perf_counter() - idle_since, time.process_time() - idle_cpu_since
        request = json.loads(line)
        if request.get("work"):
            from benchmarks import floor

            answer(**floor.work_of_this_process())
            continue
        for _ in range(request["warm_up"]):
            step()
        start = time.perf_counter()
        for _ in range(request["steps"]):
            loss = step()
        elapsed = time.perf_counter() - start
        if not math.isfinite(loss):
            raise ArithmeticError(f"the loss became {loss}")
        answer(elapsed_s=elapsed, idle_s=idle, idle_cpu_s=idle_cpu, peak_bytes=_peak_bytes())
        idle_since, idle_cpu_since = time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main(*sys.argv[1:])
