"""State files: every dtype, damage, other models, and a writer that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from onnxtape.runtime import checkpoint
from onnxtape.runtime.checkpoint import (
    check_state,
    load_state,
    read_metadata,
    read_specs,
    save_state,
    specs_of,
)
from onnxtape.runtime.dtypes import DTYPES, numpy_dtype
from onnxtape.runtime.errors import CheckpointError

SPECIAL = {
    "uint64": [0, 2**64 - 1, 2**63 + 1],
    "int64": [-(2**63), 2**63 - 1, -1],
    "float32": [np.nan, -np.inf, -0.0],
    "bool": [True, False, True],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3,), (1, 3, 1), (0, 2), ()])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.array(SPECIAL.get(dtype, [1, 0, 3]), numpy_dtype(dtype))
    array = np.resize(values, shape)
    save_state(tmp_path / "state", {"a/b:0": array})
    loaded = load_state(tmp_path / "state")["a/b:0"]
    assert loaded.dtype == array.dtype
    assert loaded.shape == shape
    assert loaded.tobytes() == array.tobytes()
    assert loaded.flags.writeable
    assert read_specs(tmp_path / "state") == {"a/b:0": (dtype, shape)}


def test_memory_layout_and_byte_order_do_not_matter(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    big_endian = array.astype(">f4")
    save_state(tmp_path / "state", {"t": array.T, "s": array[:, ::2], "b": big_endian})
    loaded = load_state(tmp_path / "state")
    np.testing.assert_array_equal(loaded["t"], array.T)
    np.testing.assert_array_equal(loaded["s"], array[:, ::2])
    np.testing.assert_array_equal(loaded["b"], array)


def test_metadata(tmp_path: Path) -> None:
    save_state(tmp_path / "state", {}, {"step": "12", "ä": "ö"})
    assert read_metadata(tmp_path / "state") == {"step": "12", "ä": "ö"}
    assert load_state(tmp_path / "state") == {}
    save_state(tmp_path / "state", {})
    assert read_metadata(tmp_path / "state") == {}


def test_dtype_without_a_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'z' has dtype complex128.*it can hold float32"):
        save_state(tmp_path / "state", {"z": np.ones(2, complex)})
    assert list(tmp_path.iterdir()) == []


def test_file_of_others_with_another_dtype(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"z": np.ones(2, ml_dtypes.float8_e4m3fn)}, tmp_path / "state")
    with pytest.raises(CheckpointError, match="holds 'z' with the safetensors dtype F8_E4M3"):
        load_state(tmp_path / "state")


def test_bfloat16_without_ml_dtypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path / "state", {"h": np.ones(2, ml_dtypes.bfloat16)})
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(CheckpointError, match=r"holds 'h' in bfloat16.*pip install ml_dtypes"):
        load_state(tmp_path / "state")


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="There is no state file"):
            load_state(path)


def test_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_state(path, {"a": np.arange(100, dtype=np.float32)})
    whole = path.read_bytes()
    for damaged in (b"", b"garbage", whole[:-1], whole[:20], whole + b"1", b"\xff" * 500):
        path.write_bytes(damaged)
        for read in (load_state, read_specs, read_metadata):
            with pytest.raises(CheckpointError, match="is not a state file, or was cut short"):
                read(path)


def test_a_failing_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    save_state(path, {"a": np.zeros(4)})

    def fail(*_: object) -> None:
        raise OSError("no space left")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="no space left"):
                save_state(path, {"a": np.ones(4)})
        np.testing.assert_array_equal(load_state(path)["a"], np.zeros(4))
        assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_state(tmp_path / "state", {"a": np.ones(1)})
    assert (tmp_path / "state").stat().st_mode == (tmp_path / "other").stat().st_mode


SAVE_FOREVER = """
import sys
import numpy as np
from onnxtape.runtime.checkpoint import save_state
number = 0
while True:
    number += 1
    save_state(sys.argv[1], {name: np.full(1 << 19, number, np.int64) for name in "ab"})
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for wait in (0.0, 0.013, 0.029, 0.047):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(path)])
        try:
            deadline = time.monotonic() + 60
            while not path.exists():
                assert writer.poll() is None, "the writer ended by itself"
                assert time.monotonic() < deadline, "the writer wrote nothing"
                time.sleep(0.001)
            time.sleep(wait)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        loaded = load_state(path)
        numbers = {int(value) for array in loaded.values() for value in np.unique(array)}
        assert set(loaded) == {"a", "b"}
        assert len(numbers) == 1, f"the file mixes the saves {sorted(numbers)}"


def test_state_of_another_model() -> None:
    expected = {"w": ("float32", (2, 3)), "b": ("float32", (3,)), "t": ("int64", ())}
    found = specs_of({"w": np.ones((3, 2), np.float32), "b": np.ones(3), "extra": np.ones(1)})
    with pytest.raises(CheckpointError) as caught:
        check_state(expected, found, source="The state file x")
    assert str(caught.value) == (
        "The state file x belongs to another model: missing: t; not in the model: extra; "
        "different: w is float32[3, 2], the model has float32[2, 3], "
        "b is float64[3], the model has float32[3]."
    )
    check_state(expected, dict(expected))


def test_a_long_list_of_differences_is_cut() -> None:
    expected = {f"w{index}": ("float32", ()) for index in range(30)}
    with pytest.raises(CheckpointError, match=r"w7 and 22 more\.$"):
        check_state(expected, {})


def test_every_dtype_has_a_safetensors_code() -> None:
    assert len(checkpoint._NAMES) == len(DTYPES)
