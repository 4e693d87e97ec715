"""One framework's step in a process of its own; prints one line of JSON with what was measured."""

import json
import math
import os
import sys
import time

from benchmarks.gpu.sizes import SIZES
from benchmarks.gpu.steps import FRAMEWORKS


def main(framework: str, workload: str, precision: str, device: str, size: str, steps: str) -> None:
    """Build the step, run it until it is warm, and time `steps` of them, each by itself."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever is printed on the way is not the answer.
    found: dict[str, object]
    try:
        start = time.perf_counter()
        step = FRAMEWORKS[framework](SIZES[size][workload], precision, device)
        losses = [step()]
        first = time.perf_counter() - start
        losses += [step() for _ in range(4)]
        times = []
        for _ in range(int(steps)):
            start = time.perf_counter()
            losses.append(step())
            times.append(time.perf_counter() - start)
        if not all(map(math.isfinite, losses)):
            raise ArithmeticError(f"a loss is not finite: {losses}")
        found = {"times": times, "first": first, "losses": losses[:5]}
    except ImportError as error:
        found = {"absent": str(error)}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), file=answer, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
