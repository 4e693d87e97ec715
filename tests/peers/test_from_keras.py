"""from_keras, live: models of Keras are trained here, and the weights go back."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.peers.test_peers import PYTHON, require

pytestmark = pytest.mark.peers

PROGRAM = Path(__file__).parent / "programs" / "from_keras.py"
NEEDED = {"torch": "torch", "tensorflow": "tf2onnx", "jax": "jax2onnx"}


@pytest.mark.parametrize("backend", NEEDED)
def test_models_train_as_in_keras_and_take_their_weights_back(backend: str) -> None:
    require("keras", "onnxtape", backend)
    program = (
        f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({NEEDED[backend]!r}))"
    )
    if subprocess.run([PYTHON, "-c", program]).returncode:
        pytest.skip(f"{NEEDED[backend]} is not among the peers: an exporter that few people have")
    # The exporter from JAX writes a pooling that ONNX Runtime has no kernel for; the one from
    # TensorFlow folds the biases of fresh models.
    names = ["perceptron", "branches", *(["convolutions"] if backend == "torch" else [])]
    run = subprocess.run(
        [PYTHON, "-W", "ignore", str(PROGRAM), *names],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout[run.stdout.index('{"perceptron') :])
    assert list(results) == names
    for name, result in results.items():
        assert result["before"] < 1e-5, name
        np.testing.assert_allclose(*result["losses"], rtol=1e-4, err_msg=name)
        assert result["weights"] < 1e-5, name
        assert result["after"] < 1e-5, name
        assert result["left as it was"], name
        assert result["other batch"], name
        assert len(result["trained"]) == 4, name
        assert all("/" in path for path in result["trained"]), name
        assert result["notes"] == [], name


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_it_says_what_to_install(backend: str) -> None:
    require("keras", "onnxtape", backend)
    block = f"import sys; sys.modules['{NEEDED[backend]}'] = None; "
    program = block + (
        "import keras, onnxtape as ot; "
        "ot.from_keras(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))"
    )
    run = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", program],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"ImportError: Keras exports to ONNX from its backend {backend} with the help of other "
        f"packages: pip install {NEEDED[backend]}"
    ), run.stderr
