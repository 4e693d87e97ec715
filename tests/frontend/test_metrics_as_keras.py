"""Metrics against Keras's stored numbers, eager and in compiled steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.reference import parity
from tests.reference.keras_families import metrics as family


@pytest.mark.parametrize("name", parity.names("metrics"))
def test_as_keras(name: str) -> None:
    parity.check("metrics", name, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", family.CASES)
def test_in_one_compiled_step(name: str) -> None:
    case = family.CASES[name]
    metric = family.make(ot, case)
    given = [x for x in (case.true, case.pred, case.weights) if x is not None]
    weighted = case.weights is not None

    @ot.function(
        input_signature=[[ot.TensorSpec((None, *x.shape[1:]), x.dtype) for x in given]],
        fallback="error",
    )
    def step(arrays: Any) -> Any:
        values, weights = (arrays[:-1], arrays[-1]) if weighted else (arrays, None)
        metric.update_state(*values, sample_weight=weights)
        return metric.result()

    def update(values: Any, weights: Any) -> Any:
        return step([*values, *weights.values()]).numpy()

    expected = parity.stored("metrics")[f"{name}/results"]
    batches = list(family.batches(case))
    found = [update(*batch) for batch in batches]
    metric.reset_state()
    found.append(update(*batches[0]))
    first = 0 if case.name in family.LATE else 1
    after = [*expected[first : first + len(batches)], expected[-1]]
    np.testing.assert_allclose(found, after, rtol=1e-5, atol=1e-5)
    assert step.trace_count == 1
