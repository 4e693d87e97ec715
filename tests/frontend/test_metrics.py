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
    assert [v.path for v in model.metrics_variables] == [
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


def test_a_metric_may_hold_others() -> None:
    class Both(metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="both")
            self.parts = {"mean": metrics.Mean(), "more": [metrics.Sum()]}
            self.again = self.parts["mean"]
            self.own = ot.Variable(1.0, trainable=False, name="own")
            self.seen = self.add_weight(name="seen", dtype="int64")

        def update_state(self, x: Any) -> None:
            self.parts["mean"].update_state(x)
            self.parts["more"][0].update_state(x)
            self.own.assign_add(1.0)
            self.seen.assign_add(1)

        def result(self) -> Any:
            return {"mean": self.again.result(), "sum": self.parts["more"][0].result()}

    both = Both()
    step = ot.function(both.__call__, fallback="error")
    found = step(np.float32([1.0, 5.0]))
    assert {name: float(value) for name, value in found.items()} == {"mean": 3, "sum": 6}
    assert [v.name for v in both.variables] == ["seen", "own", "total", "count", "total"]
    assert both.seen.dtype == "int64"
    both.reset_state()
    assert [float(v) for v in both.variables] == [0] * 5


def test_a_metric_without_its_base() -> None:
    class Bare(metrics.Metric):
        def __init__(self) -> None:
            pass

        def update_state(self) -> None:
            pass

    with pytest.raises(RuntimeError, match=r"Bare\.__init__ has to call super\(\)\.__init__"):
        Bare().update_state()
    with pytest.raises(RuntimeError, match=r"Bare\.__init__ has to call super"):
        Bare().add_weight()


BITS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]], np.float32)
UNIT = np.array([[0.1, 0.8, 0.4], [0.7, 0.6, 0.2], [0.3, 0.9, 0.6]], np.float32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: metrics.AUC(multi_label=True),
        lambda: metrics.F1Score(average="weighted"),
        lambda: metrics.R2Score(),
    ],
    ids=["auc", "f1", "r2"],
)
def test_state_that_takes_its_shape_from_the_first_batch(make: Any) -> None:
    metric, eager = make(), make()
    with pytest.raises(ValueError, match=rf"'{metric.name}' has no result yet: .* update_state"):
        metric.result()
    metric.reset_state()
    step = ot.function(metric.__call__, fallback="error")
    for _ in range(2):
        np.testing.assert_allclose(step(BITS, UNIT), eager(BITS, UNIT), rtol=1e-6)
    assert step.trace_count == 1
    assert [v.shape for v in metric.variables] == [v.shape for v in eager.variables]
    assert metric.variables[-1].path.startswith(f"{metric.name}/")


def test_areas_under_curves() -> None:
    y, p = integers((500,), 0, 2), sample((500,), 0.0, 1.0, seed=3).astype(np.float32)
    p = 0.5 * p + 0.3 * y.astype(np.float32)
    # How often a positive is above a negative; and the mean precision at positives.
    above = (p[y == 1][:, None] > p[y == 0]).mean()
    hits = y[np.argsort(-p)]
    precision = (np.cumsum(hits) / np.arange(1, 501))[hits == 1].mean()
    np.testing.assert_allclose(float(metrics.AUC(2000)(y, p)), above, atol=1e-3)
    np.testing.assert_allclose(float(metrics.AUC(2000, "PR")(y, p)), precision, atol=2e-3)


def test_predictions_that_are_no_numbers_are_in_the_lowest_bucket() -> None:
    p = np.array([np.nan, 0.5, 0.9, 0.2], np.float32)
    for metric in (metrics.AUC(), metrics.Recall([0.0, 0.5, 1.0]), metrics.Recall()):
        assert np.isfinite(metric([1, 0, 1, 0], p).numpy()).all()
    np.testing.assert_array_equal(metrics.Recall([0, 0.5, 1])([1, 0, 1, 0], p), [0.5, 0.5, 0])


def test_no_samples() -> None:
    none = np.zeros((0, 3), np.float32)
    for metric in (metrics.Mean(), metrics.Sum()):
        assert float(metric(none)) == 0
    for metric in (metrics.AUC(), metrics.Precision(), metrics.Recall(top_k=1), metrics.MeanIoU(2)):
        assert float(metric(none, none)) == 0
        assert float(metric(BITS, BITS)) > 0


def test_a_count_has_its_exact_value_after_any_number_of_batches() -> None:
    auc = metrics.AUC()
    weights = sample((3,), 0.1, 1.0).astype(np.float32)
    for _ in range(20):
        auc.update_state(BITS, UNIT, weights)
    for variable in auc.variables:
        assert (variable.numpy() >= 0).all()
    assert auc.true_negatives.numpy()[0] == auc.false_negatives.numpy()[0] == 0


@pytest.mark.parametrize("name", sorted(metrics.__all__))
def test_configurations(name: str) -> None:
    cls = getattr(metrics, name)
    if not isinstance(cls, type) or cls in (metrics.Metric, metrics.MeanMetricWrapper):
        return
    needed = {
        "IoU": {"num_classes": 3, "target_class_ids": [0, 2]},
        "MeanIoU": {"num_classes": 3},
        "OneHotIoU": {"num_classes": 3, "target_class_ids": [1]},
        "OneHotMeanIoU": {"num_classes": 3},
        "PrecisionAtRecall": {"recall": 0.5},
        "RecallAtPrecision": {"precision": 0.5},
        "SensitivityAtSpecificity": {"specificity": 0.5},
        "SpecificityAtSensitivity": {"sensitivity": 0.5},
    }.get(name, {})
    metric = cls(**needed, name="mine", dtype="float64")
    config = metric.get_config()
    again = metrics.get({"class_name": name, "config": config})
    assert type(again) is cls
    assert again.get_config() == config
    assert {**config, **needed, "name": "mine", "dtype": "float64"} == config
    assert [v.dtype for v in again.variables] == ["float64"] * len(again.variables)
    assert [v.path for v in again.variables] == [v.path for v in metric.variables]


def test_configurations_keep_the_arguments() -> None:
    auc = metrics.AUC(thresholds=[0.7, 0.2], curve="pr", label_weights=None)
    again = metrics.AUC.from_config(auc.get_config())
    assert again.thresholds == auc.thresholds == [-1e-7, 0.2, 0.7, 1.0 + 1e-7]
    assert again.curve == "PR"
    precision = metrics.Precision(top_k=2)
    assert metrics.Precision.from_config(precision.get_config()).thresholds == [-1e10]
    wrapper = metrics.MeanMetricWrapper(ot.losses.huber, "mine", delta=0.3)
    again = metrics.MeanMetricWrapper.from_config(wrapper.get_config())
    assert float(again([[0.0]], [[1.0]])) == float(wrapper([[0.0]], [[1.0]]))


def test_names_of_metrics() -> None:
    assert type(metrics.get("mse")) is type(metrics.get("MSE")) is metrics.MeanSquaredError
    assert type(metrics.get("auc")) is type(metrics.get(metrics.AUC)) is metrics.AUC
    assert metrics.get(None) is None
    mean = metrics.Mean()
    assert metrics.get(mean) is mean
    assert metrics.get(metrics.huber) is ot.losses.huber
    with pytest.raises(ValueError, match=r"no metric is called 'area'; there are auc, accuracy"):
        metrics.get("area")
    with pytest.raises(TypeError, match=r"cannot make a metric of 3"):
        metrics.get(3)


def test_weights_that_are_cut_to_whole_numbers() -> None:
    iou = metrics.MeanIoU(2, name="iou")
    with pytest.warns(UserWarning, match=r"'iou' counts in int64, .* \(float32\) .*float32"):
        iou.update_state([0, 1], [0, 1], np.float32([0.5, 1.5]))
    np.testing.assert_array_equal(iou.total_cm.numpy(), [[0, 0], [0, 1]])


WRONG: dict[str, tuple[Any, str]] = {
    "mse": (lambda: metrics.MeanSquaredError().update_state(BITS[:, :2], UNIT),
            r"mean_squared_error: targets of shape \(3, 2\) and .* \(3, 3\) do not broadcast"),
    "rmse": (lambda: metrics.RootMeanSquaredError().update_state(BITS[:2], UNIT),
             r"root_mean_squared_error: targets of shape \(2, 3\) .* do not broadcast"),
    "precision": (lambda: metrics.Precision().update_state(BITS[:2], UNIT),
                  r"Precision takes targets and predictions of one shape, not \(2, 3\) and \(3"),
    "top_k": (lambda: metrics.Recall(top_k=4).update_state(BITS, UNIT),
              r"Recall: predictions \(3, 3\) have no top 4"),
    "class": (lambda: metrics.Recall(class_id=3).update_state(BITS, UNIT),
              r"Recall: class_id 3 needs .* so many classes, not of shape \(3, 3\)"),
    "class of a vector": (lambda: metrics.Recall(class_id=0).update_state(BITS[0], UNIT[0]),
                          r"class_id 0 needs targets and .* \(batch, classes\) .* \(3,\)"),
    "weights": (lambda: metrics.Precision().update_state(BITS, UNIT, [1.0, 2.0]),
                r"sample_weight of shape \(2,\) does not fit values of shape \(3, 3\)"),
    "weights of a mean": (lambda: metrics.Mean().update_state(UNIT, [1.0, 2.0]),
                          r"sample_weight of shape \(2,\) does not fit values of shape \(3, 3\)"),
    "weights of a number": (lambda: metrics.Sum().update_state(1.0, [1.0, 2.0]),
                            r"sample_weight of shape \(2,\) does not fit values of shape \(\)"),
    "labels": (lambda: metrics.AUC(multi_label=True).update_state(BITS[0], UNIT[0]),
               r"takes predictions \(batch, labels\) with a known number .* \(3,\)"),
    "other labels": (
        lambda: metrics.AUC(multi_label=True, num_labels=2).update_state(BITS, UNIT),
        r"AUC counts 2 labels, but the predictions \(3, 3\) have 3"),
    "f1": (lambda: metrics.F1Score().update_state(BITS[0], UNIT[0]),
           r"F1Score takes targets and predictions \(batch, outputs\) .* not of shape \(3,\)"),
    "r2": (lambda: metrics.R2Score().update_state(BITS[:, :2], UNIT),
           r"R2Score takes targets and predictions of one shape, not \(3, 2\)"),
    "iou": (lambda: metrics.MeanIoU(2).update_state(BITS[:, :2], UNIT),
            r"MeanIoU takes targets and predictions of one shape, not \(3, 2\)"),
    "sparse top k": (lambda: metrics.SparseTopKCategoricalAccuracy().update_state([1, 2], UNIT),
                     r"one integer target per prediction, not targets of shape \(2,\)"),
    "scalar": (lambda: metrics.SparseCategoricalAccuracy().update_state(1, 0.5),
               r"takes predictions \(\.\.\., classes\), not of shape \(\)"),
}  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_batches_that_do_not_fit(name: str, compiled: bool) -> None:
    update, message = WRONG[name]
    with pytest.raises(ShapeError, match=message) as refusal:
        (ot.function(update, fallback="error") if compiled else update)()
    assert "test_metrics.py" in str(refusal.value)
    assert "in layer '" in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.Precision([0.5, 1.5]), r"thresholds are from 0 to 1, not \[1\.5\]"),
        (lambda: metrics.Recall([]), r"thresholds are from 0 to 1, not \[\]"),
        (lambda: metrics.AUC(1), r"num_thresholds is 2 or more, not 1"),
        (lambda: metrics.AUC(curve="area"), r"curve is 'ROC', 'PR' or 'PRGAIN', not 'area'"),
        (lambda: metrics.AUC(summation_method="sum"), r"'minoring' or 'majoring', not 'sum'"),
        (lambda: metrics.AUC(num_labels=2), r"num_labels goes with multi_label=True"),
        (lambda: metrics.PrecisionAtRecall(1.5), r"recall is from 0 to 1, not 1\.5"),
        (lambda: metrics.RecallAtPrecision(0.5, 0), r"num_thresholds is 1 or more, not 0"),
        (lambda: metrics.F1Score("mean"), r"average is None, .* not 'mean'"),
        (lambda: metrics.FBetaScore(beta=0.0), r"beta is positive, not 0"),
        (lambda: metrics.F1Score(threshold=0.0), r"threshold is above 0 and up to 1, not 0"),
        (lambda: metrics.R2Score("mean"), r"class_aggregation is None, .* not 'mean'"),
        (lambda: metrics.R2Score(num_regressors=-1), r"num_regressors is zero or more, not -1"),
        (lambda: metrics.IoU(3, [1, 3]), r"target_class_ids are from 0 to 2 .* not \[3\]"),
    ],
)
def test_arguments_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


#: As Keras has them: whether larger or smaller is better.
DIRECTIONS = {
    "up": """AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation
    CosineSimilarity F1Score FBetaScore IoU MeanIoU OneHotIoU OneHotMeanIoU PearsonCorrelation
    Precision PrecisionAtRecall R2Score Recall RecallAtPrecision SensitivityAtSpecificity
    SparseCategoricalAccuracy SparseTopKCategoricalAccuracy SpecificityAtSensitivity
    TopKCategoricalAccuracy""",
    "down": """BinaryCrossentropy CategoricalCrossentropy CategoricalHinge Hinge KLDivergence
    LogCoshError MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError Poisson RootMeanSquaredError SparseCategoricalCrossentropy
    SquaredHinge""",
    None: """FalseNegatives FalsePositives Mean MeanMetricWrapper Metric Sum TrueNegatives
    TruePositives""",
}


def test_which_way_is_better() -> None:
    said = {name: way for way, names in DIRECTIONS.items() for name in names.split()}
    classes = {
        name: value
        for name in metrics.__all__
        if isinstance(value := getattr(metrics, name), type) and issubclass(value, metrics.Metric)
    }
    assert {name: cls._direction for name, cls in classes.items()} == said
    assert metrics.MeanMetricWrapper(ot.losses.mean_squared_error)._direction == "down"
    assert metrics.MeanMetricWrapper(lambda y, p: y - p)._direction is None
