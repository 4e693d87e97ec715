"""Denormal numbers are zero within a run, and Python's own arithmetic is as it was."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.runtime.denormals import can_flush, flushing, unchanged

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() != "x86_64",
    reason="C's fesetenv is known to set this on Linux for x86-64 alone",
)

DENORMAL = np.float32(1e-40)


def _doubled(x: np.float32) -> float:
    return float(x * np.float32(2))


def test_a_call_takes_them_as_zero_and_leaves_the_thread_as_it_was() -> None:
    assert can_flush()
    assert _doubled(DENORMAL) > 0
    assert flushing(_doubled)(DENORMAL) == 0
    assert _doubled(DENORMAL) > 0


def test_other_settings_of_the_processor_hold_within() -> None:
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        flushing(lambda: np.float32(1) / np.float32(0))()
    assert _doubled(DENORMAL) > 0


def test_a_thread_that_flushes_goes_on_to() -> None:
    seen = {}

    def work() -> None:
        def inside() -> None:
            seen["nested"] = flushing(_doubled)(DENORMAL)
            seen["after"] = _doubled(DENORMAL)

        flushing(inside)()
        with unchanged():
            pass
        seen["outside"] = _doubled(DENORMAL)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen["nested"] == seen["after"] == 0
    assert seen["outside"] > 0


@pytest.mark.parametrize("size", [8, 1 << 20])
def test_steps_and_operators_take_them_as_zero(size: int) -> None:
    # As many numbers as several threads divide, and as few as one does.
    x = np.full(size, DENORMAL)

    @ot.function
    def doubled(x: Any) -> Any:
        return x * 2.0

    assert not np.any(doubled(x).numpy())
    assert not np.any(ops.multiply(x, 2.0).numpy())
    assert np.all(x * np.float32(2) > 0)


_FIRST = """
import json, numpy as np, onnxtape as ot
tiny = np.full(1 << 20, 1e-40, np.float32)
ot.function(lambda x: x * 2.0)(tiny)
print(json.dumps(bool(np.all(tiny * np.float32(2) > 0))))
"""


def test_the_first_session_of_a_process_does_not_decide_for_its_thread() -> None:
    made = subprocess.run(
        [sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(made.stdout) is True
