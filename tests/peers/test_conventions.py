"""PyTorch still chooses the derivatives that are stored where none exists."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.peers.test_peers import PYTHON, REFERENCE, require

pytestmark = pytest.mark.peers


def test_torch_conventions_can_be_made_again(tmp_path: Path) -> None:
    require("torch")
    made = tmp_path / "conventions.npz"
    script = str(REFERENCE / "make_torch_conventions.py")
    run = subprocess.run([PYTHON, script, str(made)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(REFERENCE / "torch_conventions.npz") as stored, np.load(made) as fresh:
        assert sorted(stored) == sorted(fresh)
        for name in stored:
            np.testing.assert_allclose(fresh[name], stored[name], rtol=1e-12, err_msg=name)
