"""Gradients for shapes, axes and indices drawn at random, static, symbolic, and known at run time.

The same variants of a graph as in `tests/compiler/test_gradients.py`; central differences along a
random direction for each input, in float64, by ONNX's reference evaluator.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from onnxtape.compiler import differentiate
from tests.compiler.cases import Case
from tests.compiler.graphs import Evaluator, check_shapes
from tests.compiler.test_gradients import build, project, random_like, variants
from tests.conformance import random_cases as cases
from tests.conformance import random_windows as windows

STRATEGIES = {
    "elementwise": cases.elementwise(),
    "where": cases.where(),
    "matmul": cases.matmul(),
    "gemm": cases.gemm(),
    "reductions": cases.reduction(),
    "along an axis": cases.along_axis(),
    "gather": cases.gather(),
    "gather_nd": cases.gather_nd(),
    "scatter_elements": cases.scatter_elements(),
    "scatter_nd": cases.scatter_nd(),
    "slices": cases.slicing(),
    "pads": cases.padding(),
    "rearrangements": cases.rearrangement(),
    "convolutions": windows.convolution(),
    "transposed convolutions": windows.transposed_convolution(),
    "max pooling": windows.pooling("MaxPool"),
    "average pooling": windows.pooling("AveragePool"),
    "norm pooling": windows.pooling("LpPool"),
    "columns": windows.columns(),
    "global pooling": windows.global_pooling(),
}
STEP = 1e-6


def check(case: Case, variant: str) -> None:
    built = build(case, variant)
    found = differentiate(built.graph, built.targets, built.sources, built.cotangents)
    gradients = [g for g in found if g is not None]
    assert len(gradients) == len(found)
    values = Evaluator(built.graph, gradients).all_values(built.feeds)
    check_shapes(built.graph, values)

    forward = build(case, variant)
    evaluator = Evaluator(forward.graph, forward.targets)
    seeds = [built.feeds[f"g{k}"] for k in range(len(built.targets))]
    rng = np.random.default_rng(0)
    for source, gradient in zip(built.sources, gradients, strict=True):
        name = source.name or ""
        x, analytic = built.feeds[name], values[gradient.name or ""]
        assert analytic.shape == x.shape
        direction = random_like(rng, x)
        ends = [
            project(evaluator({**built.feeds, name: x + step * direction}), seeds)
            for step in (STEP, -STEP)
        ]
        numeric = (ends[0] - ends[1]) / (2 * STEP)
        assert np.sum(analytic * direction) == pytest.approx(numeric, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradient(strategy: str) -> None:
    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        case = data.draw(STRATEGIES[strategy])
        variant = data.draw(st.sampled_from(variants(case)))
        note(f"{case.id} {variant}")
        check(case, variant)

    run()
