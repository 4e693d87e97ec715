"""What every test starts from: passes verified, and nothing left over from the test before."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

import onnxtape as ot
from onnxtape import debugging, naming, tracing

# Nothing from another run; tests of the cache switch it on, in a folder of their own.
os.environ["ONNXTAPE_CACHE"] = "off"

# Every trace in every test checks the graph's invariants between its passes.
tracing.verify_passes = True


@pytest.fixture(autouse=True)
def _fresh_globals() -> Iterator[None]:
    naming.reset_names()
    if "onnxtape.random" in sys.modules:
        ot.set_seed(0)
    yield
    debugging.disable_check_numerics()
    if "onnxtape.compiled_function" in sys.modules:
        ot.run_functions_eagerly(False)
