"""from_torch, live: modules of PyTorch are trained here, and the weights go back."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.peers.test_peers import PYTHON, REFERENCE, require

pytestmark = pytest.mark.peers

PROGRAM = Path(__file__).parent / "programs" / "from_torch.py"


def test_modules_train_as_in_torch_and_take_their_weights_back() -> None:
    require("torch", "onnxscript", "transformers", "onnxtape")
    names = ["perceptron", "convolutions", "tagger", "gpt2"]
    run = subprocess.run(
        [PYTHON, "-W", "ignore", str(PROGRAM), *names], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout[run.stdout.index('{"perceptron"') :])
    assert list(results) == names
    for name, result in results.items():
        assert result["before"] < 1e-5, name
        np.testing.assert_allclose(*result["losses"], rtol=1e-4, err_msg=name)
        assert result["after"] < 1e-5, name
        assert result["names"], name
        # Where a gradient is nothing but rounding, Adam makes whole steps of it.
        assert result["weights"] < 1.1e-2, name
        assert result["other_batch"], name


def test_torch_models_can_be_made_again(tmp_path: Path) -> None:
    require("torch", "onnxscript", "transformers")
    run = subprocess.run(
        [PYTHON, str(REFERENCE / "make_torch_models.py"), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    stored = sorted((REFERENCE / "torch_models").glob("*.npz"))
    assert [path.name for path in stored] == sorted(path.name for path in tmp_path.glob("*.npz"))
    for path in stored:
        with np.load(path) as old, np.load(tmp_path / path.name) as new:
            assert sorted(old) == sorted(new)
            for name in old:
                np.testing.assert_allclose(
                    new[name], old[name], rtol=1e-4, atol=1e-5, err_msg=f"{path.stem} {name}"
                )
