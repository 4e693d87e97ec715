"""Steps on ONNX Runtime's CUDA provider without a GPU: `make simulate-cuda`.

The provider is the real one; what it stands on is a stand-in (`stub/`) that copies and counts, but
whose kernels do nothing. So it is told where nodes are placed, that sessions open, that steps are
recorded and replayed, and what is copied between host and device. The numbers are meaningless.
"""

from __future__ import annotations

import ctypes
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.runtime.captured import CapturedStep
from tests.cuda.steps import ROOT, STEPS, Make

pytestmark = pytest.mark.simulated


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    ot.set_default_device("cuda:0")


class Counter:
    """What the stand-in has counted."""

    def __init__(self) -> None:
        (path,) = {
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "libcudart.so" in line
        }
        self._library = ctypes.CDLL(path)

    def __getitem__(self, name: str) -> int:
        return ctypes.c_long.in_dll(self._library, f"stub_{name}").value

    @property
    def copies(self) -> tuple[int, int]:
        """To the device, and to the host."""
        made = (ctypes.c_long * 4).in_dll(self._library, "stub_copies")
        return made[1], made[2]


@pytest.mark.parametrize(("name", "make"), STEPS.items(), ids=list(STEPS))
def test_a_step_is_on_the_device_alone(name: str, make: Make) -> None:
    """Placed there, recorded and replayed; the batch is copied in, and nothing out."""
    step = make()
    plain = ot.function(step.function, providers="cuda:0", fallback="error")
    assert not plain.get_concrete_function(*step.batch).placement().on_cpu
    plain(*step.batch)
    options = {"enable_cuda_graph": 1}
    recorded = ot.function(step.function, providers=("cuda", options), fallback="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded(*step.batch)
    counter = Counter()
    inner: Any = recorded.get_concrete_function()._step
    assert isinstance(inner, CapturedStep)
    assert counter["errors"] == 0
    launches, replays, (into, out) = counter["launches"], counter["replays"], counter.copies
    recorded(*step.batch)
    assert counter["replays"] == replays + 1
    assert counter["launches"] == launches
    assert counter.copies == (into + len(step.batch), out)


def test_eager_mode_and_tensors_of_others() -> None:
    x = ot.convert_to_tensor(np.ones((4, 3, 8, 8), np.float32)) * 2.0

    class Foreign:
        """A tensor of another library, on the device."""

        def __dlpack__(self, **options: Any) -> Any:
            return x.__dlpack__()

        def __dlpack_device__(self) -> Any:
            return x.__dlpack_device__()

    assert x.__dlpack_device__() == (2, 0)
    (before, _) = Counter().copies
    taken = ot.convert_to_tensor(Foreign())
    ot.function(lambda y: y + y)(Foreign())
    assert Counter().copies[0] == before
    assert taken.__dlpack_device__() == (2, 0)
    normalization = ot.layers.BatchNormalization(axis=1)
    assert normalization(taken, training=True).shape == (4, 3, 8, 8)
    with ot.GradientTape() as tape:
        tape.watch(taken)
        y = ot.ops.sum(ot.ops.relu(taken))
    assert tape.gradient(y, taken).numpy().shape == (4, 3, 8, 8)
    assert ot.ops.cast(x, "bfloat16").numpy().dtype.name == "bfloat16"
    assert ot.random.uniform((5,)).numpy().shape == (5,)


def test_pinned_batches() -> None:
    """Memory of CUDA's own, which goes back when nobody views it any more."""
    batch = ot.data.empty_pinned((1000, 30))
    counter = Counter()
    taken = counter["pinned"]
    assert taken >= batch.nbytes
    address, part = batch.ctypes.data, batch[1:]
    batch[:] = 1.0
    del batch
    other = ot.data.empty_pinned((1000, 30))
    assert other.ctypes.data != address
    np.testing.assert_array_equal(part, 1.0)
    taken = counter["pinned"]
    del part
    again = ot.data.empty_pinned((1000, 30))
    assert (again.ctypes.data, counter["pinned"]) == (address, taken)
    step = ot.function(lambda x: x + 1.0, providers="cuda:0")
    step(again)
    (before, _) = counter.copies
    step(again)
    assert counter.copies[0] == before + 1
    assert ot.data.empty_pinned((0, 3), "int64").shape == (0, 3)
    assert ot.data.empty_pinned(4, "bfloat16").dtype.name == "bfloat16"
