"""Makes tests/reference/keras.npz again with Keras itself."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.peers.test_peers import PYTHON, REFERENCE, require

pytestmark = pytest.mark.peers


def test_keras_reference_can_be_made_again(tmp_path: Path) -> None:
    require("tensorflow", "keras")
    made = tmp_path / "keras.npz"
    run = subprocess.run(
        [PYTHON, str(REFERENCE / "make_keras_reference.py"), str(made)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    with np.load(REFERENCE / "keras.npz") as stored, np.load(made) as fresh:
        assert sorted(stored) == sorted(fresh)
        for name in stored:
            assert stored[name].dtype == fresh[name].dtype, name
            if stored[name].dtype.kind == "f":
                np.testing.assert_allclose(
                    fresh[name], stored[name], rtol=1e-5, atol=1e-6, err_msg=name
                )
            else:
                np.testing.assert_array_equal(fresh[name], stored[name], err_msg=name)
