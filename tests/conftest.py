"""What every test starts from: passes verified, and nothing left over from the test before."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

import onnxtape as ot
from onnxtape import debugging, devices, naming, tracing
from onnxtape.runtime.errors import OnnxtapeRuntimeError
from onnxtape.runtime.identity import identity_model
from onnxtape.runtime.session import create_session, set_num_threads

# Nothing from another run; tests of the cache switch it on, in a folder of their own.
os.environ["ONNXTAPE_CACHE"] = "off"

# Threads of ONNX Runtime wait busily: workers that each take all processors take twice the time.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _workers > 1:
    os.environ.setdefault("ONNXTAPE_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))

# Every trace in every test checks the graph's invariants between its passes.
tracing.verify_passes = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU where there is none, and say what is missing."""
    simulated = os.environ.get("ONNXTAPE_SIMULATED_CUDA") == "1"
    needed = "a GPU: CUDA is a stand-in" if simulated else "the stand-in for CUDA"
    for item in items:
        if item.get_closest_marker("gpu" if simulated else "simulated"):
            item.add_marker(pytest.mark.skip(reason=f"needs {needed}"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or simulated:
        return
    try:
        create_session(identity_model(), "cuda")
    except OnnxtapeRuntimeError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {error}"))


@pytest.fixture(autouse=True)
def _fresh_globals() -> Iterator[None]:
    naming.reset_names()
    if "onnxtape.random" in sys.modules:
        ot.set_seed(0)
    yield
    debugging.disable_check_numerics()
    devices.Places.reset()
    if "onnxtape.compiled_function" in sys.modules:
        ot.run_functions_eagerly(False)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Sessions with two threads, however many the machine and its tests leave."""
    set_num_threads(2)
    yield
    set_num_threads(None)
