"""Makes the stored results of Keras again with Keras itself."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.peers.test_peers import PYTHON, REFERENCE, require

pytestmark = pytest.mark.peers


def make(script: str, *arguments: str, backend: str = "tensorflow") -> None:
    run = subprocess.run(
        [PYTHON, str(REFERENCE / script), *arguments],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


#: Two units in the last place of bfloat16: what processors that compute with it may differ by.
HALF = 2.0**-6


def compare(stored_file: Path, fresh_file: Path, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    with np.load(stored_file) as stored, np.load(fresh_file) as fresh:
        assert sorted(stored) == sorted(fresh)
        for name in stored:
            assert stored[name].dtype == fresh[name].dtype, name
            if stored[name].dtype.kind == "f":
                # Processors round differently: the stored ones were made with AVX-512.
                np.testing.assert_allclose(
                    fresh[name], stored[name], rtol=rtol, atol=atol, err_msg=name
                )
            else:
                np.testing.assert_array_equal(fresh[name], stored[name], err_msg=name)


def test_keras_reference_can_be_made_again(tmp_path: Path) -> None:
    require("tensorflow", "keras")
    make("make_keras_reference.py", str(tmp_path / "keras.npz"))
    compare(REFERENCE / "keras.npz", tmp_path / "keras.npz")


def test_keras_dtypes_can_be_made_again(tmp_path: Path) -> None:
    require("tensorflow", "keras")
    make("make_keras_dtypes.py", str(tmp_path / "dtypes.npz"))
    compare(REFERENCE / "keras_dtypes.npz", tmp_path / "dtypes.npz", rtol=HALF)


def test_keras_families_can_be_made_again(tmp_path: Path) -> None:
    require("tensorflow", "keras")
    make("make_keras_families.py", "--to", str(tmp_path))
    families = sorted((REFERENCE / "keras_families").glob("*.npz"))
    assert families
    for family in families:
        if family.stem == "mixed_precision":
            compare(family, tmp_path / family.name, rtol=HALF, atol=1e-3)
        else:
            compare(family, tmp_path / family.name)


def test_keras_names_and_arguments_can_be_made_again(tmp_path: Path) -> None:
    require("jax", "keras")
    make("make_keras_parity.py", str(tmp_path), backend="jax")
    for name in ("keras_names.json", "keras_signatures.json"):
        assert (tmp_path / name).read_text() == (REFERENCE / name).read_text(), name
