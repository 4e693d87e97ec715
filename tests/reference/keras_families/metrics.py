"""Metrics over several batches, with weights, before the first, and after a reset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, numpy

#: Of the batches.
SIZES = (6, 1, 5)
_COUNT = sum(SIZES)


class Case(NamedTuple):
    """A metric, and what it is updated with: arrays whose first axis is cut into batches."""

    name: str
    options: dict[str, Any]
    true: Any
    pred: Any
    weights: Any = None


def _softmax(x: Any) -> Any:
    exp = np.exp(x)
    return exp / exp.sum(-1, keepdims=True)


def _integers(shape: tuple[int, ...], low: int, high: int, seed: int) -> Any:
    return np.random.default_rng((seed, *shape)).integers(low, high, shape)


LOGITS = array((_COUNT, 4), 1)
P = _softmax(LOGITS)
LABELS = _integers((_COUNT,), 0, 4, 2)
HOT = np.eye(4, dtype=np.float32)[LABELS]
SOFT = _softmax(array((_COUNT, 4), 3))
BITS = (array((_COUNT, 4), 4) > 0.5).astype(np.float32)
UNIT = array((_COUNT, 4), 5, 0.0, 1.0)
# What lies on thresholds, at the ends and beyond them.
EDGES = np.round(array((_COUNT, 4), 6, -0.1, 1.1) * 5).astype("float32") / 5
TIES = np.round(array((_COUNT, 4), 7) * 2) / 2
COLUMN = UNIT[:, 0]
COLUMN_BITS = (COLUMN + array((_COUNT,), 8, -0.5, 0.5) > 0.5).astype("int32")
W = array((_COUNT,), 9, 0.2, 2.0)
ROWS = W[:, None]
EACH = array((_COUNT, 4), 10, 0.2, 2.0)
DEEP, DEEP_PRED = array((_COUNT, 3, 4), 11), array((_COUNT, 3, 4), 12)
DEEP_LABELS = _integers((_COUNT, 3), 0, 4, 13)
DEEP_W = array((_COUNT, 3), 14, 0.2, 2.0)
COUNTS = np.floor(array((_COUNT, 4), 15, 0.0, 5.0))
CLASSES, GUESSES = _integers((_COUNT, 2, 3), 0, 3, 16), _integers((_COUNT, 2, 3), -1, 4, 17)
WHOLE = _integers((_COUNT,), 0, 3, 18)
LINE = array((_COUNT, 3), 19)
NEAR = LINE + array((_COUNT, 3), 20, -0.5, 0.5)
SORTED = np.argsort(-LOGITS, axis=1)
MANY = array((_COUNT, 30), 21, 0.0, 1.0)
MANY_BITS = (MANY + array((_COUNT, 30), 22, -0.7, 0.7) > 0.5).astype("float32")
SPECIAL = LOGITS.copy()
SPECIAL[1, 2], SPECIAL[3, 0], SPECIAL[7, 1] = np.nan, np.inf, -np.inf

CASES: dict[str, Case] = {
    "accuracy": Case("Accuracy", {}, LABELS, np.roll(LABELS, 1) % 3),
    "accuracy_column": Case("Accuracy", {}, LABELS[:, None], LABELS % 3, W),
    "binary_accuracy": Case("BinaryAccuracy", {}, BITS, UNIT),
    "binary_accuracy_threshold": Case(
        "BinaryAccuracy", {"threshold": 0.3}, COLUMN_BITS, UNIT[:, :1], W),
    "binary_accuracy_edges": Case("BinaryAccuracy", {"threshold": 0.4}, BITS, EDGES, EACH),
    "categorical_accuracy": Case("CategoricalAccuracy", {}, HOT, P),
    "categorical_accuracy_deep": Case("CategoricalAccuracy", {}, DEEP, DEEP_PRED, DEEP_W),
    "sparse_accuracy": Case("SparseCategoricalAccuracy", {}, LABELS, P, W),
    "sparse_accuracy_column": Case("SparseCategoricalAccuracy", {}, LABELS[:, None], LOGITS),
    "sparse_accuracy_deep": Case(
        "SparseCategoricalAccuracy", {}, DEEP_LABELS, DEEP_PRED, DEEP_W),
    "top_k": Case("TopKCategoricalAccuracy", {"k": 2}, HOT, P),
    "top_k_deep": Case("TopKCategoricalAccuracy", {"k": 3}, DEEP, DEEP_PRED, DEEP_W),
    "top_k_default": Case("TopKCategoricalAccuracy", {}, HOT, P, W),
    "sparse_top_k": Case("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS, P, W),
    "sparse_top_k_ties": Case("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS, TIES),
    "sparse_top_k_outside": Case("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS * 2 - 1, P),
    "sparse_top_k_not_finite": Case("SparseTopKCategoricalAccuracy", {"k": 3}, LABELS, SPECIAL),
    "sparse_top_k_deep": Case(
        "SparseTopKCategoricalAccuracy", {"k": 2}, DEEP_LABELS, DEEP_PRED),
    "sparse_top_k_sorted": Case(
        "SparseTopKCategoricalAccuracy", {"k": 2, "from_sorted_ids": True}, LABELS, SORTED, W),
    "mean": Case("Mean", {}, None, LOGITS),
    "mean_weighted": Case("Mean", {}, None, DEEP, W),
    "mean_weighted_each": Case("Mean", {}, None, DEEP, DEEP_W),
    "mean_double": Case("Mean", {"dtype": "float64"}, None, LOGITS, W),
    "sum": Case("Sum", {}, None, LOGITS),
    "sum_weighted": Case("Sum", {"name": "all"}, None, DEEP, W),
    "sum_weighted_each": Case("Sum", {}, None, LOGITS, EACH),
    "true_positives": Case("TruePositives", {}, BITS, UNIT),
    "true_positives_even": Case(
        "TruePositives", {"thresholds": [0, 0.25, 0.5, 0.75, 1]}, BITS, EDGES, W),
    "false_positives": Case("FalsePositives", {"thresholds": 0.4}, BITS, EDGES, EACH),
    "true_negatives": Case("TrueNegatives", {"thresholds": [0.2, 0.4, 0.9]}, BITS, EDGES, ROWS),
    "false_negatives": Case("FalseNegatives", {"thresholds": [0.0, 0.5, 1.0]}, COLUMN_BITS, COLUMN),
    "false_negatives_column": Case("FalseNegatives", {}, COLUMN_BITS, UNIT[:, :1], W),
    "precision": Case("Precision", {}, BITS, UNIT),
    "precision_weighted": Case("Precision", {"thresholds": [0.2, 0.7]}, COLUMN_BITS, COLUMN, W),
    "precision_top_k": Case("Precision", {"top_k": 2}, BITS, P, W),
    "precision_class": Case("Precision", {"class_id": 1, "thresholds": 0.3}, BITS, UNIT, W),
    "precision_all": Case(
        "Precision", {"class_id": 2, "top_k": 3, "thresholds": [0.1, 0.3]}, BITS, P),
    "precision_deep": Case("Precision", {}, (DEEP > 0).astype("int32"), np.abs(DEEP_PRED) / 2),
    "recall": Case("Recall", {}, BITS, UNIT, EACH),
    "recall_even": Case("Recall", {"thresholds": [0.0, 0.5, 1.0]}, BITS, EDGES),
    "recall_top_k": Case("Recall", {"top_k": 1}, HOT, P),
    "recall_class": Case("Recall", {"class_id": 3, "name": "third"}, HOT, P * 2, W),
    "auc": Case("AUC", {}, COLUMN_BITS, COLUMN),
    "auc_many": Case("AUC", {}, MANY_BITS, MANY, W),
    "auc_edges": Case("AUC", {"num_thresholds": 6}, BITS, EDGES, EACH),
    "auc_minoring": Case("AUC", {"summation_method": "minoring"}, MANY_BITS, MANY),
    "auc_majoring": Case(
        "AUC", {"summation_method": "majoring", "num_thresholds": 3}, MANY_BITS, MANY),
    "auc_pr": Case("AUC", {"curve": "PR"}, MANY_BITS, MANY),
    "auc_pr_majoring": Case(
        "AUC", {"curve": "PR", "summation_method": "majoring", "num_thresholds": 20}, MANY_BITS,
        MANY),
    "auc_prgain": Case("AUC", {"curve": "PRGAIN", "num_thresholds": 30}, MANY_BITS, MANY),
    "auc_thresholds": Case("AUC", {"thresholds": [0.7, 0.2, 0.4]}, MANY_BITS, MANY, W),
    "auc_even_thresholds": Case("AUC", {"thresholds": [0.25, 0.5, 0.75]}, BITS, EDGES),
    "auc_logits": Case("AUC", {"from_logits": True, "num_thresholds": 50}, BITS, LOGITS),
    "auc_labels": Case("AUC", {"multi_label": True, "num_labels": 4}, BITS, UNIT),
    "auc_labels_weighted": Case(
        "AUC", {"multi_label": True, "curve": "PR", "label_weights": [1.0, 2.0, 0.5, 0.0],
                "num_labels": 4, "num_thresholds": 20}, BITS, UNIT),
    "auc_labels_thresholds": Case(
        "AUC", {"multi_label": True, "thresholds": [0.3, 0.6], "num_labels": 4}, BITS, UNIT),
    "auc_label_weights": Case(
        "AUC", {"label_weights": [1.0, 2.0, 0.5, 0.0], "num_thresholds": 20}, BITS, UNIT),
    "precision_at_recall": Case("PrecisionAtRecall", {"recall": 0.6}, MANY_BITS, MANY),
    "recall_at_precision": Case(
        "RecallAtPrecision", {"precision": 0.8, "num_thresholds": 30}, MANY_BITS, MANY, W),
    "sensitivity_at_specificity": Case(
        "SensitivityAtSpecificity", {"specificity": 0.5, "num_thresholds": 7}, BITS, EDGES),
    "specificity_at_sensitivity": Case(
        "SpecificityAtSensitivity", {"sensitivity": 0.4, "class_id": 2}, BITS, UNIT),
    "at_one_threshold": Case(
        "PrecisionAtRecall", {"recall": 0.1, "num_thresholds": 1}, BITS, UNIT, EACH),
    "f1": Case("F1Score", {}, BITS, UNIT),
    "f1_threshold": Case("F1Score", {"threshold": 0.5, "average": "macro"}, BITS, UNIT, W),
    "f_beta": Case("FBetaScore", {"beta": 2.0, "average": "weighted"}, HOT, P, W),
    "f_beta_micro": Case(
        "FBetaScore", {"beta": 0.5, "average": "micro", "threshold": 0.4}, BITS, UNIT, W),
    "r2": Case("R2Score", {}, LINE, NEAR),
    "r2_weighted": Case(
        "R2Score", {"class_aggregation": "variance_weighted_average"}, LINE, NEAR, W),
    "r2_each": Case("R2Score", {"class_aggregation": None}, LINE, NEAR, EACH[:, :3]),
    "r2_adjusted": Case("R2Score", {"num_regressors": 2}, LINE[:, :1], NEAR[:, :1]),
    "mse": Case("MeanSquaredError", {}, BITS, LOGITS, W),
    "mae": Case("MeanAbsoluteError", {}, DEEP, DEEP_PRED, DEEP_W),
    "mape": Case("MeanAbsolutePercentageError", {}, UNIT + 0.1, LOGITS),
    "msle": Case("MeanSquaredLogarithmicError", {}, COUNTS, LOGITS, W),
    "rmse": Case("RootMeanSquaredError", {}, BITS, LOGITS),
    "rmse_weighted": Case("RootMeanSquaredError", {}, DEEP, DEEP_PRED, W),
    "rmse_column": Case("RootMeanSquaredError", {}, COLUMN, UNIT[:, 1:2], W),
    "log_cosh": Case("LogCoshError", {}, BITS, LOGITS, W),
    "cosine": Case("CosineSimilarity", {}, DEEP, DEEP_PRED),
    "cosine_axis": Case("CosineSimilarity", {"axis": 1}, DEEP, DEEP_PRED, W),
    "hinge": Case("Hinge", {}, 2 * BITS - 1, LOGITS, W),
    "squared_hinge": Case("SquaredHinge", {}, 2 * BITS - 1, LOGITS),
    "categorical_hinge": Case("CategoricalHinge", {}, HOT, LOGITS, W),
    "kl": Case("KLDivergence", {}, SOFT, P, W),
    "poisson": Case("Poisson", {}, COUNTS, UNIT + 0.1),
    "binary_crossentropy": Case(
        "BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, BITS, LOGITS, W),
    "categorical_crossentropy": Case("CategoricalCrossentropy", {}, SOFT, P, W),
    "categorical_crossentropy_options": Case(
        "CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, HOT, LOGITS),
    "sparse_crossentropy": Case("SparseCategoricalCrossentropy", {}, LABELS, P, W),
    "sparse_crossentropy_ignore": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, LABELS, LOGITS),
    "sparse_crossentropy_ignore_weighted": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, LABELS, LOGITS,
        W),
    "iou": Case("IoU", {"num_classes": 3, "target_class_ids": [0, 2]}, CLASSES, GUESSES),
    "iou_weighted": Case(
        "IoU", {"num_classes": 3, "target_class_ids": [1], "ignore_class": 2}, CLASSES[:, 0, 0],
        GUESSES[:, 0, 0], WHOLE),
    "iou_float": Case(
        "IoU", {"num_classes": 3, "target_class_ids": [0, 1], "dtype": "float32"},
        CLASSES[:, 0, 0], GUESSES[:, 0, 0], W),
    "mean_iou": Case("MeanIoU", {"num_classes": 3}, CLASSES, GUESSES),
    "mean_iou_column": Case(
        "MeanIoU", {"num_classes": 3}, CLASSES[:, 0, 0], GUESSES[:, 0, 0], WHOLE[:, None]),
    "mean_iou_ignore": Case("MeanIoU", {"num_classes": 4, "ignore_class": 0}, CLASSES, GUESSES),
    "mean_iou_scores": Case(
        "MeanIoU", {"num_classes": 4, "sparse_y_pred": False}, DEEP_LABELS, DEEP_PRED),
    "binary_iou": Case("BinaryIoU", {}, BITS, UNIT),
    "binary_iou_threshold": Case(
        "BinaryIoU", {"target_class_ids": [1], "threshold": 0.4}, BITS, EDGES),
    "one_hot_iou": Case(
        "OneHotIoU", {"num_classes": 4, "target_class_ids": [0, 3]}, HOT, P, WHOLE),
    "one_hot_mean_iou": Case(
        "OneHotMeanIoU", {"num_classes": 4, "sparse_y_pred": True}, HOT, LABELS % 3),
    "one_hot_mean_iou_axis": Case(
        "OneHotMeanIoU", {"num_classes": 4, "axis": -1}, DEEP, DEEP_PRED),
    "pearson": Case("PearsonCorrelation", {}, LINE, NEAR, W),
    "concordance": Case("ConcordanceCorrelation", {}, LINE, NEAR),
    "concordance_axis": Case("ConcordanceCorrelation", {"axis": 1}, DEEP, DEEP_PRED),
}  # fmt: skip

#: Their state takes its shape from the first batch, so there is no result before.
LATE = ("F1Score", "FBetaScore", "R2Score")

FUNCTIONS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "f_binary_accuracy": ("binary_accuracy", (BITS, UNIT), {"threshold": 0.2}),
    "f_categorical_accuracy": ("categorical_accuracy", (HOT, P), {}),
    "f_sparse_accuracy": ("sparse_categorical_accuracy", (LABELS[:, None], P), {}),
    "f_top_k": ("top_k_categorical_accuracy", (HOT, P), {"k": 2}),
    "f_sparse_top_k": ("sparse_top_k_categorical_accuracy", (DEEP_LABELS, DEEP_PRED), {"k": 1}),
    "f_pearson": ("pearson_correlation", (LINE, NEAR), {"axis": 0}),
    "f_concordance": ("concordance_correlation", (LINE, NEAR), {"axis": 0}),
    "f_huber": ("huber", (LINE, NEAR), {"delta": 0.2}),
}


def make(k: Any, case: Case) -> Any:
    return getattr(k.metrics, case.name)(**case.options)


def batches(case: Case) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The arguments of the updates."""
    first = 0
    for size in SIZES:
        part = slice(first, first + size)
        first += size
        values = [x[part] for x in (case.true, case.pred) if x is not None]
        yield values, {} if case.weights is None else {"sample_weight": case.weights[part]}


def _metric(case: Case) -> Program:
    def run(k: Any) -> Arrays:
        metric = make(k, case)
        results = [] if case.name in LATE else [numpy(metric.result())]
        for values, weights in batches(case):
            metric.update_state(*values, **weights)
            results.append(numpy(metric.result()))
        names = [metric.name.rstrip("_0123456789"), *(v.name for v in metric.variables)]
        found: Arrays = {"names": np.array(names)}
        found |= {f"state.{i}": numpy(v) for i, v in enumerate(metric.variables)}
        metric.reset_state()
        results.append(numpy(metric.result()))
        values, weights = next(batches(case))
        results.append(numpy(metric(*values, **weights)))
        found["results"] = np.stack(results)
        return found

    return run


def _function(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Program:
    def run(k: Any) -> Arrays:
        given = [k.ops.convert_to_tensor(x) for x in arguments]
        return {"value": numpy(getattr(k.metrics, name)(*given, **options))}

    return run


def _own(k: Any) -> Arrays:
    """A metric of one's own, which holds another."""

    class Both(k.metrics.Metric):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="both")
            self.mean = k.metrics.Mean()
            self.seen = self.add_weight(name="seen", dtype="int32", initializer="zeros")
            self.largest = self.add_variable((2,), "zeros", name="largest")

        def update_state(self, values: Any) -> None:
            self.mean.update_state(values)
            self.seen.assign_add(1)
            self.largest.assign(k.ops.maximum(self.largest, k.ops.max(values, axis=0)))

        def result(self) -> Any:
            return {"mean": self.mean.result(), "seen": k.ops.cast(self.seen, "int32")}

    metric = Both()
    found: Arrays = {}
    for i, size in enumerate((2, 3)):
        metric.update_state(array((size, 2), i))
        found |= {f"{name}.{i}": numpy(value) for name, value in metric.result().items()}
    found["variables"] = np.array([v.name for v in metric.variables])
    found["largest"] = numpy(metric.largest)
    metric.reset_state()
    found |= {f"{name}.reset": numpy(value) for name, value in metric.result().items()}
    return found


def _named(k: Any) -> Arrays:
    """What `get` gives."""
    names = ["mse", "MAE", "mape", "msle", "bce", "AUC", "auc", "Precision",
             "sparse_categorical_accuracy", "KLDivergence", "binary_accuracy"]  # fmt: skip
    found = {name: np.array(type(k.metrics.get(name)).__name__) for name in names}
    config = {"class_name": "Recall", "config": {"thresholds": 0.2}}
    found["config"] = numpy(k.metrics.get(config)(BITS, UNIT))
    return found


PROGRAMS: dict[str, Program] = {name: _metric(case) for name, case in CASES.items()}
PROGRAMS |= {name: _function(*given) for name, given in FUNCTIONS.items()}
PROGRAMS |= {"own": _own, "named": _named}
