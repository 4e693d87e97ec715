"""`onnxtape train` in a process that is stopped: by kill -9 at any moment, and by Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from onnxtape.runtime.checkpoint import read_metadata
from tests.frontend.commands import Place

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals")

STATE = "artifact.trained.safetensors"
OPTIONS = ("--batch-size", "7", "--seed", "3")


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Place:
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, capsys.readouterr)
    place.build("--training-mode").succeeded()
    return place


def epochs_of(path: str) -> tuple[int, int]:
    """How many epochs and batches the state has behind it."""
    position = json.loads(read_metadata(path)["onnxtape.train"])
    return position["epoch"], position["batch"]


@contextmanager
def training(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A training without end, in a process of its own, which has saved something of its own."""
    path = Path(STATE)
    before = path.stat().st_mtime_ns if path.exists() else None
    command = [sys.executable, "-m", "onnxtape", "train", "artifact", "--data", "train.npz"]
    process = subprocess.Popen(
        [*command, "--epochs", "1000000", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "nothing was saved"
            time.sleep(0.001)
        yield process
    finally:
        process.kill()
        process.communicate()


def require_same_as_in_one_go(place: Place, path: str, epochs: int) -> None:
    whole = ("--epochs", str(epochs), "--save-every", "1000000", *OPTIONS)
    place.train(*whole, "--state", "once.safetensors", "--restart").succeeded()
    expected = load_file("once.safetensors")
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_killed_training_goes_on_from_a_whole_state(place: Place) -> None:
    """Whatever it was doing; with shuffling and dropout, to the bit."""
    arguments = OPTIONS
    for wait in (0.0, 0.007, 0.031):
        with training(*arguments) as process:
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            process.wait()
        epochs, batches = epochs_of(STATE)
        assert batches == 0
        shutil.copy(STATE, "copy.safetensors")
        resumed = ("--epochs", str(epochs + 1), "--state", "copy.safetensors", "--resume")
        place.train(*resumed).succeeded()
        require_same_as_in_one_go(place, "copy.safetensors", epochs + 1)
        arguments = ("--resume",)


def test_ctrl_c_saves_in_the_middle_of_an_epoch(place: Place) -> None:
    with training(*OPTIONS) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    epochs, batches = epochs_of(STATE)
    assert process.returncode == 130
    assert errors == (
        f"onnxtape: interrupted after {epochs} epochs and {batches} batches; the state is in "
        f"{Path(STATE).resolve()}, and --resume goes on from it\n"
    )
    place.train("--epochs", str(epochs + 1), "--resume").succeeded()
    require_same_as_in_one_go(place, STATE, epochs + 1)
