"""The least time that a step can take on this machine: its work over the machine's rates.

A step's work is counted in onnxtape's graph of it: floating-point operations of matrix products
and convolutions, and bytes that must be read or written at least once, however everything else is
fused and cached (`onnxtape.cli.estimates`). The machine's rates are measured with ONNX Runtime's
matrix product (1024 x 1024 x 1024, float32) and with copies of a block far larger than the caches,
on all cores. Arithmetic and memory can overlap, so the floor is the longer of the two.

``python -m benchmarks.floor`` measures and prints the rates.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 1024
COPIED_BYTES = 1 << 27
REPEATS = 15


@dataclass(frozen=True)
class Rates:
    """What the machine does at best: floating-point operations, and bytes read or written."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Work:
    """What one step does: floating-point operations, and bytes read or written at least once."""

    flops: int
    bytes: int

    def floor_ms(self, rates: Rates) -> float:
        """Milliseconds that the longer of arithmetic and memory takes."""
        return 1e3 * max(self.flops / rates.flops_per_s, self.bytes / rates.bytes_per_s)


def work_of_this_process() -> dict[str, int]:
    """The fields of `Work`, summed over the compiled functions that are alive in this process."""
    from onnxtape.cli.estimates import estimate
    from onnxtape.concrete import ConcreteFunction

    found = [o for o in gc.get_objects() if isinstance(o, ConcreteFunction)]
    estimates = [estimate(concrete.model, {}) for concrete in found]
    return asdict(Work(sum(e.flops for e in estimates), sum(e.moved_bytes for e in estimates)))


def measured_rates(executable: str, variables: Mapping[str, str]) -> Rates:
    """Measure in a process of its own, with the threads that `variables` give."""
    answer = subprocess.run(
        [executable, "-m", "benchmarks.floor"],
        cwd=Path(__file__).resolve().parent.parent,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return Rates(**json.loads(answer.stdout))


def _best(call: Callable[[], Any]) -> float:
    """The shortest of several calls, in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _product_seconds() -> float:
    import onnx
    from onnx import helper

    from onnxtape.runtime.session import create_session

    x, y, z = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [SIZE, SIZE]) for name in "xyz"
    )
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "y"], ["z"])], "g", [x, y], [z])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = create_session(model.SerializeToString())
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    return _best(lambda: session.run(None, {"x": matrix, "y": matrix}))


def _copy_seconds() -> float:
    threads = os.cpu_count() or 1
    sources = [np.ones(COPIED_BYTES // threads, np.uint8) for _ in range(threads)]
    targets = [np.zeros_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as pool:
        return _best(lambda: list(pool.map(np.copyto, targets, sources)))


if __name__ == "__main__":
    measured = Rates(2 * SIZE**3 / _product_seconds(), 2 * COPIED_BYTES / _copy_seconds())
    print(json.dumps(asdict(measured)), file=sys.stdout)
