"""Losses as a step uses them; their numbers are compared with Keras's in test_keras.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import losses
from onnxtape.errors import ShapeError
from tests.frontend.op_cases.case import sample
from tests.reference.keras_cases import REDUCTIONS

LOGITS = sample((6, 4)).astype(np.float32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
LABELS = np.array([0, 3, 1, 1, 2, 0])
HOT = np.eye(4, dtype=np.float32)[LABELS]
BITS = (sample((6, 4), seed=1) > 0).astype(np.float32)
WEIGHTS = sample((6,), 0.1, 2.0, seed=2).astype(np.float32)

CASES: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "mse": (losses.MeanSquaredError, BITS, LOGITS),
    "mse column": (losses.MeanSquaredError, BITS[:, 0], LOGITS[:, :1]),
    "mae": (losses.MeanAbsoluteError, BITS, LOGITS),
    "sparse": (losses.SparseCategoricalCrossentropy, LABELS, P),
    "sparse logits": (
        lambda **o: losses.SparseCategoricalCrossentropy(from_logits=True, **o),
        LABELS,
        LOGITS,
    ),
    "categorical": (
        lambda **o: losses.CategoricalCrossentropy(label_smoothing=0.1, **o),
        HOT,
        P,
    ),
    "binary": (lambda **o: losses.BinaryCrossentropy(label_smoothing=0.1, **o), BITS, P),
    "binary logits": (
        lambda **o: losses.BinaryCrossentropy(from_logits=True, **o),
        BITS,
        LOGITS,
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_compiled_for_every_batch_size(name: str, reduction: Any, weighted: bool) -> None:
    make, true, pred = CASES[name]
    loss_fn = make(reduction=reduction)

    def call(true: Any, pred: Any, weights: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(pred)
            loss = loss_fn(true, pred, sample_weight=weights if weighted else None)
        return loss, tape.gradient(loss, pred)

    specs = [ot.TensorSpec((None, *x.shape[1:]), x.dtype) for x in (true, pred, WEIGHTS)]
    step = ot.function(call, input_signature=specs, fallback="error")
    for size in (6, 1, 4):
        given = (true[:size], ot.Tensor(pred[:size]), WEIGHTS[:size])
        for found, expected in zip(step(*given), call(*given), strict=True):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-6, atol=1e-6)
    assert step.trace_count == 1


# Softplus, for which binary cross-entropy from logits is written, has no kernel in float64.
@pytest.mark.parametrize("name", [name for name in CASES if name != "binary logits"])
def test_gradients_are_differences(name: str) -> None:
    make, true, pred = CASES[name]
    loss_fn = make()
    x = ot.Variable(pred.astype(np.float64))
    with ot.GradientTape() as tape:
        loss = loss_fn(true, x)
    assert loss.dtype == "float64"
    gradient = tape.gradient(loss, x).numpy()
    for place in ((0, 0), (3, pred.shape[1] - 1)):
        values = []
        for step in (1e-6, -1e-6):
            moved = pred.astype(np.float64)
            moved[place] += step
            values.append(float(loss_fn(true, moved)))
        np.testing.assert_allclose(gradient[place], (values[0] - values[1]) / 2e-6, rtol=1e-5)


def test_a_loss_of_ones_own() -> None:
    class Huber(losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            error = ot.ops.absolute(y_true - y_pred)
            return ot.ops.where(error < 1, 0.5 * error * error, error - 0.5)

    per_sample = Huber(reduction="none")([0.0, 0.0], [0.5, 3.0])
    np.testing.assert_allclose(per_sample.numpy(), [0.125, 2.5])
    assert float(Huber(reduction="sum")([0.0, 0.0], [0.5, 3.0])) == 2.625
    np.testing.assert_allclose(float(Huber()([0.0, 0.0], [0.5, 3.0], [1.0, 3.0])), 7.625 / 2)
    assert Huber().name == "huber_3"
    assert losses.MeanSquaredError().name == "mean_squared_error"
    assert losses.MeanSquaredError("sum", "mine").name == "mine"
    with pytest.raises(NotImplementedError, match=r"Loss has no call method"):
        losses.Loss()([1.0], [1.0])


def test_weights_per_sample_count_for_all_of_the_samples_losses() -> None:
    true, pred = np.zeros((2, 3, 4), np.float32), np.ones((2, 3, 4), np.float32)
    pred[1] = 2
    loss = losses.MeanSquaredError(reduction="none")(true, pred, sample_weight=[1.0, 10.0])
    np.testing.assert_allclose(loss.numpy(), [[1] * 3, [40] * 3])


def test_functions() -> None:
    np.testing.assert_allclose(losses.mean_squared_error([[1, 3]], [[0.0, 0.0]]).numpy(), [5])
    np.testing.assert_allclose(losses.mean_absolute_error([[1, 3]], [[0.0, 0.0]]).numpy(), [2])


def test_integer_predictions_are_floats() -> None:
    loss = losses.MeanAbsoluteError()([[1, 2]], [[3, 3]])
    assert (loss.dtype, float(loss)) == ("float32", 1.5)


@pytest.mark.parametrize("reduction", ["average", "SUM", 1])
def test_reductions_that_do_not_exist(reduction: Any) -> None:
    with pytest.raises(ValueError, match=r"reduction is one of 'sum_over_batch_size', .* not"):
        losses.MeanSquaredError(reduction=reduction)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(
        ShapeError, match=r"integer targets of shape \(6,\) .* not \(5,\)"
    ) as refusal:
        losses.SparseCategoricalCrossentropy()(LABELS[:5], P)
    assert "test_losses.py" in str(refusal.value)
    with pytest.raises(ShapeError, match=r"one shape, not \(6, 3\) and \(6, 4\)"):
        losses.CategoricalCrossentropy()(HOT[:, :3], P)
    with pytest.raises(ShapeError, match=r"one shape, not \(5, 4\) and \(6, 4\)"):
        losses.BinaryCrossentropy()(BITS[:5], P)
    with pytest.raises(ShapeError, match=r"do not broadcast"):
        losses.MeanSquaredError()(BITS[:, :3], LOGITS)
