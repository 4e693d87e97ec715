"""Makes the stored references again with the peer frameworks, so that they cannot rot.

The frameworks are looked for in the environment of ``ONNXTAPE_PEER_PYTHON``, by default the
interpreter that runs the tests. ``ONNXTAPE_REQUIRE_PEERS=1`` makes their absence a failure.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "tests" / "reference"
PYTHON = os.environ.get("ONNXTAPE_PEER_PYTHON", sys.executable)


def require(*modules: str) -> None:
    """Skip the test where one of `modules` is not installed; fail it if peers are required."""
    program = (
        "import importlib.util, sys\n"
        "print(*(name for name in sys.argv[1:] if not importlib.util.find_spec(name)))"
    )
    answer = subprocess.run(
        [PYTHON, "-c", program, *modules], capture_output=True, text=True, check=True
    )
    if missing := answer.stdout.split():
        reason = f"{', '.join(missing)} not installed in the peers' environment"
        if os.environ.get("ONNXTAPE_REQUIRE_PEERS") == "1":
            pytest.fail(f"ONNXTAPE_REQUIRE_PEERS=1, but {reason}")
        pytest.skip(reason)


def test_mlp_reference_can_be_made_again(tmp_path: Path) -> None:
    require("torch", "keras")
    made = tmp_path / "mlp.npz"
    run = subprocess.run(
        [PYTHON, str(REFERENCE / "make_mlp_reference.py"), str(made)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    with np.load(REFERENCE / "mlp.npz") as stored, np.load(made) as fresh:
        assert sorted(stored) == sorted(fresh)
        for name in stored:
            assert stored[name].dtype == fresh[name].dtype, name
            if name in ("x", "y") or name.startswith("initial_"):
                np.testing.assert_array_equal(fresh[name], stored[name], err_msg=name)
            else:
                np.testing.assert_allclose(
                    fresh[name], stored[name], rtol=1e-6, atol=1e-8, err_msg=name
                )


def test_the_peers_in_the_benchmark_do_the_same_work(tmp_path: Path) -> None:
    require("torch", "jax", "tensorflow", "keras")
    file = tmp_path / "benchmarks.json"
    options = f"--workloads mlp --peers torch jax tensorflow --rounds 1 --steps 2 --json {file}"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--peer-python", PYTHON, *options.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(file.read_text())["workloads"]["mlp"]
    losses = {name: measured["losses"] for name, measured in result["measured"].items()}
    assert sorted(losses) == ["jax", "tensorflow", "torch"]
    for sequence in losses.values():
        np.testing.assert_allclose(sequence, losses["torch"], rtol=1e-3)
    assert len(losses["torch"]) == 5
    assert len(set(losses["torch"])) == 5
    assert all(0 < time < 1e4 for time in result["median_ms"].values())
