"""Loops and branches, nested and differentiated twice, give JAX's numbers."""

import subprocess
from pathlib import Path

import pytest

from tests.peers.test_peers import PYTHON, require

pytestmark = pytest.mark.peers

PROGRAM = Path(__file__).parent / "programs" / "control_flow.py"


def test_programs_agree_with_jax() -> None:
    require("jax", "onnxtape")
    run = subprocess.run([PYTHON, "-W", "ignore", str(PROGRAM)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["8 programs compared"]
