"""Losses against Keras's stored numbers: values, gradients, names; eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.reference import parity
from tests.reference.keras_families import losses as family


@pytest.mark.parametrize("name", parity.names("losses"))
def test_as_keras(name: str) -> None:
    parity.check("losses", name, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", family.CASES)
def test_in_one_compiled_step(name: str) -> None:
    case = family.CASES[name]
    loss_fn = family.make(ot, case)
    weights = np.asarray(case.weights[0] if case.weights else 1.0, "float32")
    given = [np.asarray(case.true), case.pred]
    batch = None if weights.ndim else 6  # A weight for each sample of whatever batch.

    def call(true: Any, pred: Any, weights: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(pred)
            loss = loss_fn(true, pred, weights)
        return loss, tape.gradient(loss, pred)

    specs = [ot.TensorSpec((batch, *x.shape[1:]), x.dtype) for x in given]
    specs.append(ot.TensorSpec((batch, *weights.shape[1:]) if weights.ndim else (), "float32"))
    step = ot.function(call, input_signature=specs, fallback="error")
    loss, gradient = step(*given, weights)
    stored, which = parity.stored("losses"), 1 if case.weights else 0
    expected = stored[f"{name}/sum_over_batch_size"][which]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    expected = stored[f"{name}/gradient.{which}"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=2e-6)
    if batch is None:
        fewer = [ot.Tensor(x[:2]) for x in (*given, weights)]
        for found, expected in zip(step(*fewer), call(*fewer), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    assert step.trace_count == 1
