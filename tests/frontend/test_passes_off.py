"""Compiled steps give the same numbers without compiler passes, for every workload there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import compilation, tracing

ROOT = Path(__file__).parent.parent.parent
WORKLOADS = sorted(
    path.stem for path in (ROOT / "benchmarks/workloads").glob("*.py") if path.stem[0] != "_"
)
#: More, and a ReLU whose input rounding puts on the other side of zero shows: the gradient of one
#: place of an image is all there or not at all, and Adam makes 4e-4 of it in unet's fourth step
#: (found where channels come in blocks of eight, the loss before being equal to the bit).
STEPS = 3
#: Rows of each batch. With fewer, BatchNormalization makes 1e-4 of errors of 1e-7 in four steps;
#: as many fill a block of the layout that the gradients of convolutions are computed in.
ROWS = 16


def build(name: str) -> Callable[[], float]:
    """onnxtape's step of a workload, on the first rows of each of its batches."""
    from benchmarks import workloads

    workload = workloads.load(name)
    problem = workload.problem()
    batches = [tuple(array[:ROWS] for array in batch) for batch in problem.batches]
    ot.set_seed(0)
    return workload.builders["onnxtape"](workloads.Problem(problem.weights, batches))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_trains_alike_with_and_without_passes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("ONNXTAPE_PASSES", "none")
    step = build(name)
    plain = [step() for _ in range(STEPS)]
    monkeypatch.setenv("ONNXTAPE_PASSES", "all")
    step = build(name)
    passed = [step() for _ in range(STEPS)]
    np.testing.assert_allclose(passed, plain, rtol=1e-4)
    assert len(set(plain)) == STEPS  # it trains


def test_none_leaves_the_graph_as_it_was_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(x: ot.Tensor) -> ot.Tensor:
        return ot.ops.exp(x) + ot.ops.exp(x)

    x = np.ones((2, 3), np.float32)

    def nodes() -> list[str]:
        return [n.op_type for n in ot.function(twice).get_concrete_function(x).model.graph.node]

    assert nodes() == ["Exp", "Add"]
    monkeypatch.setenv("ONNXTAPE_PASSES", "none")
    assert all(graph_pass.required for graph_pass in tracing.default_passes(optimize=False))
    assert nodes() == ["Exp", "Exp", "Add"]


def test_none_leaves_updates_as_they_were_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the step laid out for the CPU's kernels."""
    weights = [ot.Variable(np.ones((3, 4), np.float32)) for _ in range(3)]

    def packs() -> bool:
        step = ot.function(lambda: [w.assign_add(w * w) for w in weights])
        return compilation.packs_updates(step.get_concrete_function().traced, None)

    assert packs()
    monkeypatch.setenv("ONNXTAPE_PASSES", "none")
    assert not packs()


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXTAPE_PASSES", "fast")
    with pytest.raises(ValueError, match="ONNXTAPE_PASSES is 'none' or 'all', not 'fast'"):
        ot.function(lambda x: x + 1)(np.ones(2, np.float32))


def test_convolutions_train_where_no_channels_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("ONNXTAPE_CACHE", "off")
    step = build("unet")
    blocked = [step() for _ in range(2)]
    monkeypatch.setattr(compilation, "block_size", lambda: 0)
    step = build("unet")
    np.testing.assert_allclose([step() for _ in range(2)], blocked, rtol=1e-4)
