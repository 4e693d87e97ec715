"""Optimizers and schedules against Keras's stored numbers, eagerly and in compiled steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.reference import parity
from tests.reference.keras_families import optimizers as cases
from tests.reference.keras_families import schedules as schedule_cases

RTOL, ATOL = 2e-5, 2e-6


@pytest.mark.parametrize("name", parity.names("optimizers"))
def test_as_keras(name: str) -> None:
    parity.check("optimizers", name, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("name", [n for n in cases.MAKERS if not n.endswith(".defaults")])
def test_compiled_as_keras_in_one_trace(name: str) -> None:
    steps: list[Any] = []

    def wrap(apply: Any) -> Any:
        steps.append(ot.function(apply, fallback="error"))
        return steps[0]

    optimizer = cases.MAKERS[name](ot, name.split(".")[0])
    found = cases.train(ot, optimizer, cases.variables(ot), wrap)
    for key, value in found.items():
        expected = parity.stored("optimizers")[f"{name}/{key}"]
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(value, expected, RTOL, ATOL, err_msg=key)
        else:
            np.testing.assert_array_equal(value, expected, err_msg=key)
    assert steps[0].trace_count == 1
    assert steps[0].fallback_reason is None


@pytest.mark.parametrize("name", parity.names("schedules"))
def test_schedules_as_keras(name: str) -> None:
    parity.check("schedules", name, rtol=3e-6, atol=1e-8)


@pytest.mark.parametrize("name", schedule_cases.CASES)
def test_schedules_inside_a_compiled_step(name: str) -> None:
    schedule = schedule_cases.make(ot, name)
    step = ot.function(lambda count: schedule(count), fallback="error")
    counts = [np.asarray(count) for count in schedule_cases.STEPS]
    found = np.array([step(count).numpy() for count in counts])
    np.testing.assert_allclose(
        found, parity.stored("schedules")[f"{name}/rates"], rtol=3e-6, atol=1e-8
    )
    assert step.trace_count == 1
