"""Metrics as a step uses them; their numbers are compared with Keras's in test_keras.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import metrics
from onnxtape.errors import ShapeError
from tests.frontend.op_cases.case import integers, sample

LOGITS = sample((6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("weighted", [False, True])
def test_a_metric_in_a_compiled_step(weighted: bool) -> None:
    accuracy, loss = metrics.SparseCategoricalAccuracy(), metrics.Mean(name="loss")

    def update(y: Any, logits: Any, weights: Any) -> Any:
        accuracy.update_state(y, logits, weights if weighted else None)
        loss.update_state(ot.ops.sum(logits, axis=1), weights if weighted else None)
        return {"accuracy": accuracy.result(), "loss": loss.result()}

    specs = [ot.TensorSpec((None,), "int64"), ot.TensorSpec((None, 4)), ot.TensorSpec((None,))]
    step = ot.function(update, input_signature=specs, fallback="error")
    hits, sums, totals = [], [], []
    for seed, size in enumerate((6, 1, 4)):
        y, x = integers((size,), 0, 4, seed), sample((size, 4), seed=seed).astype(np.float32)
        w = sample((size,), 0.1, 1.0, seed=seed).astype(np.float32)
        found = step(y, x, w)
        weights = w if weighted else np.ones_like(w)
        hits.append(((x.argmax(1) == y) * weights).sum())
        sums.append((x.sum(1) * weights).sum())
        totals.append(weights.sum())
        np.testing.assert_allclose(float(found["accuracy"]), sum(hits) / sum(totals), rtol=1e-6)
        np.testing.assert_allclose(float(found["loss"]), sum(sums) / sum(totals), rtol=1e-5)
    assert step.trace_count == 1
    # Reset outside of the step, it starts anew inside.
    accuracy.reset_state()
    assert float(accuracy.result()) == 0
    y, x = integers((6,), 0, 4), LOGITS
    expected = (x.argmax(1) == y).mean()
    np.testing.assert_allclose(float(step(y, x, np.ones(6, "f"))["accuracy"]), expected, rtol=1e-6)


def test_a_metric_is_reset_inside_a_step_too() -> None:
    mean = metrics.Mean()

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        mean.reset_state()
        return mean(x)

    assert [float(step(np.float32(v))) for v in (1.0, 5.0, 2.0)] == [1, 5, 2]


def test_calling_a_metric_updates_and_gives_the_result() -> None:
    mean = metrics.Mean()
    assert float(mean.result()) == 0
    assert float(mean([1.0, 3.0])) == 2
    assert float(mean(8)) == 4
    assert float(mean.result()) == 4
    assert [float(v) for v in mean.variables] == [12, 3]


def test_results_have_no_side_effect_and_no_gradient_flows_from_state() -> None:
    mean = metrics.Mean()
    w = ot.Variable(2.0)
    with ot.GradientTape() as tape:
        value = mean(w * 3.0)
    assert float(value) == 6
    assert tape.gradient(value, w) is None or float(tape.gradient(value, w)) == 3


def test_names_paths_and_roles() -> None:
    accuracy = metrics.SparseCategoricalAccuracy()
    assert accuracy.name == "sparse_categorical_accuracy"
    assert [(v.path, v.role, v.trainable) for v in accuracy.variables] == [
        ("sparse_categorical_accuracy/total", "metric", False),
        ("sparse_categorical_accuracy/count", "metric", False),
    ]
    assert repr(metrics.Mean("m")) == "<Mean name=m>"
    assert metrics.Mean(dtype="float64").total.dtype == "float64"


def test_a_model_may_hold_metrics_which_are_no_weights() -> None:
    model = ot.Sequential([ot.Input((2,)), ot.layers.Dense(1)])
    model.loss_metric = metrics.Mean(name="loss")
    assert len(model.weights) == 2
    model.parts = [metrics.Mean(name="part")]
    assert [v.path for v in model.variables if v.role == "metric"] == [
        "loss/total",
        "loss/count",
        "part/total",
        "part/count",
    ]


def test_a_metric_of_ones_own() -> None:
    class Largest(metrics.Metric):
        def __init__(self) -> None:
            super().__init__()
            self.top = self.add_variable((), lambda shape, dtype: ot.ops.full(shape, -9, dtype))

        def update_state(self, x: Any) -> None:
            self.top.assign(ot.ops.maximum(self.top, ot.ops.max(x)))

        def result(self) -> Any:
            return self.top.value

    largest = Largest()
    assert largest.name == "largest"
    assert [float(largest(x)) for x in ([-20.0], [1.0, 4.0], [2.0])] == [-9, 4, 4]
    largest.reset_state()
    assert float(largest.result()) == -9
    for method in ("update_state", "result"):
        with pytest.raises(NotImplementedError, match=rf"Metric has no {method} method"):
            getattr(metrics.Metric(), method)()


def test_the_mean_of_a_function() -> None:
    def distance(true: Any, pred: Any, power: int) -> Any:
        return ot.ops.power(ot.ops.absolute(true - pred), power)

    metric = metrics.MeanMetricWrapper(distance, power=2)
    assert metric.name == "distance"
    metric.update_state(np.array([1.0, 2.0], "f"), np.array([2.0, 4.0], "f"))
    assert float(metric.result()) == 2.5
    metric.update_state(np.array([0.0], "f"), np.array([3.0], "f"), sample_weight=[3.0])
    np.testing.assert_allclose(float(metric.result()), (1 + 4 + 27) / 5, rtol=1e-6)


def test_accuracys_targets() -> None:
    expected = (LOGITS.argmax(1) == LABELS).astype(np.float32)
    function = metrics.sparse_categorical_accuracy
    for labels in (LABELS, LABELS[:, None], LABELS.astype("int32"), LABELS.astype("float32")):
        np.testing.assert_array_equal(function(labels, LOGITS).numpy(), expected)
    ties = function([0, 1], np.array([[2.0, 2.0], [2.0, 2.0]], "f"))
    np.testing.assert_array_equal(ties.numpy(), [1, 0])
    with pytest.raises(ShapeError, match=r"not targets of shape \(6, 4\) for .* \(6, 4\)"):
        metrics.SparseCategoricalAccuracy().update_state(np.eye(4)[LABELS], LOGITS)
    with pytest.raises(ShapeError, match=r"shape \(5,\) for predictions \(6, 4\)") as refusal:
        metrics.SparseCategoricalAccuracy().update_state(LABELS[:5], LOGITS)
    assert "test_metrics.py" in str(refusal.value)
    assert "in layer 'sparse_categorical_accuracy" in str(refusal.value)
