"""Every kind of step on a GPU: the losses of the CPU, no node there, recorded and replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import nest
from onnxtape.runtime.captured import CapturedStep
from tests.cuda.steps import ROOT, STEPS, Make
from tests.cuda.test_placement import TOLERANCES

pytestmark = pytest.mark.gpu
RUNS = 3


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def results(make: Make, providers: Any) -> tuple[Any, list[Any]]:
    """The compiled function, and what it returns in some runs."""
    step = make()
    compiled = ot.function(step.function, providers=providers, fallback="error")
    found = []
    for _ in range(RUNS):
        found += [np.asarray(x) for x in nest.flatten(compiled(*step.batch))]
    return compiled.get_concrete_function(*step.batch), found


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(("name", "make"), STEPS.items(), ids=list(STEPS))
def test_a_step(name: str, make: Make, recorded: bool) -> None:
    _, expected = results(make, None)
    # TF32 has 10 bits; the numbers are compared without it.
    options = {"use_tf32": 0, "enable_cuda_graph": int(recorded)}
    concrete, found = results(make, ("cuda", options))
    assert not concrete.placement().on_cpu
    inner: Any = concrete._step
    assert isinstance(inner, CapturedStep) == recorded
    tolerance = TOLERANCES.get(name.partition(":")[0], 1e-3)
    for there, here in zip(found, expected, strict=True):
        wide = (np.asarray(a, np.float64) for a in (there, here))
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


def test_pinned_batches() -> None:
    """Filled again as soon as the step has been called."""
    step = ot.function(lambda x: ot.ops.sum(x), providers="cuda:0")
    with ot.device("cuda:0"):
        batch = ot.data.empty_pinned((1 << 20,))
    found = []
    for i in range(5):
        batch[:] = i
        found.append(step(batch))
    assert [float(x) for x in found] == [i * 2.0**20 for i in range(5)]
