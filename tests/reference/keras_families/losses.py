"""Losses: with their options, every reduction, weights of every shape, and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, gradients, numpy

REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None]


class Case(NamedTuple):
    """A loss, what it is given, and weights to try."""

    name: str
    options: dict[str, Any]
    true: Any
    pred: Any
    weights: tuple[Any, ...] = ()


def _softmax(x: Any) -> Any:
    exp = np.exp(x)
    return exp / exp.sum(-1, keepdims=True)


LOGITS = array((6, 4), 1)
P = _softmax(LOGITS)
LABELS = np.array([0, 3, 1, 1, 2, 0])
HOT = np.eye(4, dtype=np.float32)[LABELS]
SOFT = _softmax(array((6, 4), 2))
BITS = (array((6, 4), 3) > 0).astype(np.float32)
SIGNS = 2 * BITS - 1
UNIT = array((6, 4), 4, 0.05, 0.95)
COUNTS = np.floor(array((6, 4), 5, 0.0, 5.0))
DEEP, DEEP_PRED = array((6, 3, 4), 6), array((6, 3, 4), 7)
DEEP_LABELS = np.random.default_rng(8).integers(0, 4, (6, 3))
W = array((6,), 9, 0.2, 2.0)
ROWS = W[:, None]
SOME = np.array([1, 0, 2, 0, 0, 1], np.float32)
NONE = np.zeros(6, np.float32)
EACH = array((6, 3), 10, 0.2, 2.0)
IGNORED = np.array([0, -1, 1, 1, -1, 0])
UNITS = array((6, 4), 11)
UNITS = UNITS / np.linalg.norm(UNITS, axis=1, keepdims=True)
SPOKEN = np.array([[1, 2, 3], [2, 2, 0], [3, 0, 0], [1, 2, 1], [3, 3, 3], [0, 0, 0]])
HEARD = array((6, 5, 4), 12)
GROUPS = np.array([0, 1, 0, 1, 0, 1])

CASES: dict[str, Case] = {
    "mse": Case("MeanSquaredError", {}, BITS, LOGITS, (W, ROWS, SOME, NONE, 2.0)),
    "mse_column": Case("MeanSquaredError", {}, BITS[:, 0], LOGITS[:, :1], (W,)),
    "mse_broadcast": Case("MeanSquaredError", {}, BITS[:, :1], LOGITS, (W,)),
    "mse_deep": Case("MeanSquaredError", {}, DEEP, DEEP_PRED, (EACH, ROWS)),
    "mae": Case("MeanAbsoluteError", {}, BITS, LOGITS, (W,)),
    "mape": Case("MeanAbsolutePercentageError", {}, BITS, LOGITS, (W,)),
    "mape_positive": Case("MeanAbsolutePercentageError", {}, UNIT, LOGITS, (W,)),
    "msle": Case("MeanSquaredLogarithmicError", {}, COUNTS, LOGITS, (W,)),
    "cosine": Case("CosineSimilarity", {}, DEEP, DEEP_PRED, (EACH,)),
    "cosine_axis": Case("CosineSimilarity", {"axis": 1}, DEEP, DEEP_PRED, (ROWS,)),
    "huber": Case("Huber", {}, BITS, 2 * LOGITS, (W,)),
    "huber_delta": Case("Huber", {"delta": 0.3}, BITS, LOGITS, (W,)),
    "log_cosh": Case("LogCosh", {}, BITS, 5 * LOGITS, (W,)),
    "hinge": Case("Hinge", {}, SIGNS, LOGITS, (W,)),
    "hinge_bits": Case("Hinge", {}, BITS, LOGITS, (W,)),
    "hinge_neither": Case("Hinge", {}, SOFT, LOGITS, (W,)),
    "squared_hinge": Case("SquaredHinge", {}, BITS, LOGITS, (W,)),
    "categorical_hinge": Case("CategoricalHinge", {}, HOT, LOGITS, (W,)),
    "kl": Case("KLDivergence", {}, SOFT, P, (W,)),
    "kl_hot": Case("KLDivergence", {}, HOT, P, (W,)),
    "poisson": Case("Poisson", {}, COUNTS, 3 * UNIT, (W,)),
    "binary": Case("BinaryCrossentropy", {}, BITS, UNIT, (W, ROWS)),
    "binary_logits": Case("BinaryCrossentropy", {"from_logits": True}, BITS, 8 * LOGITS, (W,)),
    "binary_smooth": Case(
        "BinaryCrossentropy", {"label_smoothing": 0.3, "axis": 1}, (DEEP > 0).astype("float32"),
        np.abs(DEEP_PRED) / 2.1, (np.repeat(ROWS, 4, 1),)),
    "binary_focal": Case("BinaryFocalCrossentropy", {}, BITS, UNIT, (W,)),
    "binary_focal_options": Case(
        "BinaryFocalCrossentropy",
        {"apply_class_balancing": True, "alpha": 0.4, "gamma": 3.0, "from_logits": True,
         "label_smoothing": 0.2},
        BITS, LOGITS, (W,)),
    "categorical": Case("CategoricalCrossentropy", {}, SOFT, P, (W,)),
    "categorical_logits": Case(
        "CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, HOT, LOGITS,
        (W,)),
    "categorical_axis": Case(
        "CategoricalCrossentropy", {"from_logits": True, "axis": 1},
        np.moveaxis(np.eye(3, dtype="float32")[DEEP_LABELS[:, [0, 1, 2, 0]] % 3], -1, 1),
        DEEP_PRED, (np.repeat(ROWS, 4, 1),)),
    "categorical_focal": Case("CategoricalFocalCrossentropy", {}, SOFT, P, (W,)),
    "categorical_focal_options": Case(
        "CategoricalFocalCrossentropy",
        {"alpha": [0.1, 0.2, 0.3, 0.4], "gamma": 1.5, "from_logits": True, "label_smoothing": 0.2},
        HOT, LOGITS, (W,)),
    "sparse": Case("SparseCategoricalCrossentropy", {}, LABELS, P, (W, ROWS)),
    "sparse_logits": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True}, LABELS[:, None], LOGITS, (W,)),
    "sparse_deep": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True}, DEEP_LABELS, DEEP_PRED,
        (EACH, ROWS)),
    "ignore": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": -1}, IGNORED,
        LOGITS, (W, ROWS, SOME, NONE)),
    "ignore_probabilities": Case(
        "SparseCategoricalCrossentropy", {"ignore_class": 1}, LABELS, P, (W,)),
    "ignore_deep": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 2}, DEEP_LABELS,
        DEEP_PRED, (EACH, ROWS)),
    "ignore_all": Case(
        "SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 0}, 0 * LABELS,
        LOGITS, (W,)),
    "dice": Case("Dice", {}, BITS, UNIT, (0.5,)),
    "dice_axis": Case("Dice", {"axis": (1, 2)}, (DEEP > 0).astype("float32"),
                      np.abs(DEEP_PRED) / 2.1, (W,)),
    "tversky": Case("Tversky", {}, BITS, UNIT),
    "tversky_options": Case("Tversky", {"alpha": 0.3, "beta": 0.8, "axis": -1}, BITS, UNIT, (W,)),
    "circle": Case("Circle", {}, GROUPS, UNITS, (W,)),
    "circle_options": Case(
        "Circle", {"gamma": 5.0, "margin": 0.2, "remove_diagonal": False}, GROUPS[:, None], UNITS,
        (W,)),
    "ctc": Case("CTC", {}, SPOKEN, HEARD, (W,)),
    "generalized": Case("CategoricalGeneralizedCrossEntropy", {}, LABELS, P, (W,)),
    "generalized_q": Case("CategoricalGeneralizedCrossEntropy", {"q": 0.8}, LABELS, P, (W,)),
}  # fmt: skip

FUNCTIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "f_mse": ("mse", "mean_squared_error", {}),
    "f_mae": ("mae", "mean_absolute_error", {}),
    "f_mape": ("mape_positive", "mean_absolute_percentage_error", {}),
    "f_msle": ("msle", "mean_squared_logarithmic_error", {}),
    "f_cosine": ("cosine", "cosine_similarity", {"axis": 1}),
    "f_huber": ("huber", "huber", {"delta": 0.7}),
    "f_log_cosh": ("log_cosh", "log_cosh", {}),
    "f_hinge": ("hinge_bits", "hinge", {}),
    "f_squared_hinge": ("hinge", "squared_hinge", {}),
    "f_categorical_hinge": ("categorical_hinge", "categorical_hinge", {}),
    "f_kl": ("kl", "kl_divergence", {}),
    "f_poisson": ("poisson", "poisson", {}),
    "f_binary": ("binary_logits", "binary_crossentropy", {"from_logits": True}),
    "f_binary_focal": ("binary_focal", "binary_focal_crossentropy", {"label_smoothing": 0.1}),
    "f_categorical": ("categorical", "categorical_crossentropy", {"label_smoothing": 0.1}),
    "f_categorical_focal": (
        "categorical_focal", "categorical_focal_crossentropy", {"gamma": 1.0}),
    "f_sparse": ("sparse_logits", "sparse_categorical_crossentropy", {"from_logits": True}),
    "f_ignore": (
        "ignore", "sparse_categorical_crossentropy", {"from_logits": True, "ignore_class": -1}),
    "f_dice": ("dice", "dice", {"axis": 1}),
    "f_tversky": ("tversky", "tversky", {"alpha": 0.1}),
    "f_circle": ("circle", "circle", {"gamma": 10.0}),
    "f_ctc": ("ctc", "ctc", {}),
    "f_generalized": ("generalized", "categorical_generalized_cross_entropy", {"q": 0.3}),
}  # fmt: skip


def _differentiated(k: Any, call: Callable[[Any], Any], pred: Any) -> Arrays:
    x = k.ops.convert_to_tensor(pred)
    (gradient,) = gradients(k, lambda: k.ops.sum(call(x)), [x])
    assert gradient is not None
    return {"gradient": gradient}


def make(k: Any, case: Case, **options: Any) -> Any:
    return getattr(k.losses, case.name)(**case.options, **options)


def _loss(case: Case) -> Program:
    def run(k: Any) -> Arrays:
        found: Arrays = {"name": np.array(make(k, case).name)}
        weightings = [None, *case.weights]
        for reduction in REDUCTIONS:
            loss = make(k, case, reduction=reduction)
            values = [numpy(loss(case.true, case.pred, sample_weight=w)) for w in weightings]
            if all(value.shape == () for value in values):
                found[f"{reduction}"] = np.stack(values)
            else:
                found |= {f"{reduction}.{i}": value for i, value in enumerate(values)}
        for i, weights in enumerate(weightings[:2]):
            loss = make(k, case)
            made = _differentiated(
                k, lambda x, f=loss, w=weights: f(case.true, x, sample_weight=w), case.pred
            )
            found[f"gradient.{i}"] = made["gradient"]
        return found

    return run


def _function(given: str, name: str, options: dict[str, Any]) -> Program:
    def run(k: Any) -> Arrays:
        case, function = CASES[given], getattr(k.losses, name)
        # Keras's functions take tensors, not all of them arrays.
        true = k.ops.convert_to_tensor(case.true)
        if name == "categorical_generalized_cross_entropy":
            true = k.ops.cast(true, "int32")

        def call(pred: Any) -> Any:
            return function(true, k.ops.convert_to_tensor(pred), **options)

        return {"value": numpy(call(case.pred)), **_differentiated(k, call, case.pred)}

    return run


class _Own:
    """A loss of one's own, and predictions that are a dict."""

    def __call__(self, k: Any) -> Arrays:
        class Both(k.losses.Loss):  # type: ignore[misc]
            def call(self, y_true: Any, y_pred: Any) -> Any:
                first = k.ops.mean(k.ops.square(y_true["a"] - y_pred["a"]), axis=-1)
                return first + k.ops.mean(k.ops.abs(y_true["b"] - y_pred["b"]), axis=-1)

        true, pred = {"a": BITS, "b": LABELS[:, None]}, {"a": LOGITS, "b": UNIT.astype("float16")}
        loss = Both(reduction="sum")
        return {
            "value": numpy(loss(true, pred)),
            "weighted": numpy(Both("mine")(true, pred, W)),
            "name": np.array(Both("mine").name),
        }


def _dtypes(k: Any) -> Arrays:
    """What losses make of other dtypes than float32."""
    half = LOGITS.astype("float16")
    found = {
        "half": k.losses.MeanSquaredError()(BITS, half),
        "half_asked": k.losses.MeanSquaredError(dtype="float16")(BITS, LOGITS),
        "double_asked": k.losses.MeanSquaredError(dtype="float64")(BITS, LOGITS),
        "integers": k.losses.MeanAbsoluteError()(LABELS, LABELS + 3),
        "bits": k.losses.MeanAbsoluteError()(BITS > 0, LOGITS),
        "double_targets": k.losses.Huber(reduction=None)(BITS.astype("float64"), LOGITS),
        "float_labels": k.losses.SparseCategoricalCrossentropy()(LABELS.astype("float32"), P),
    }
    return {name: numpy(value) for name, value in found.items()}


def _named(k: Any) -> Arrays:
    """What `get` gives."""
    found = {}
    for name in (
        *("mse", "MSE", "mae", "MAPE", "msle", "kld", "bce", "KLD", "BCE"),
        *("mean_squared_error", "huber", "dice"),
    ):
        found[name] = np.array(k.losses.get(name).__name__)
    for name in ("MeanSquaredError", "KLDivergence", "CategoricalCrossentropy", "Huber"):
        found[f"class_{name}"] = np.array(k.losses.get(name).name)
    config = {"class_name": "CategoricalCrossentropy", "config": {"from_logits": True}}
    found["config"] = numpy(k.losses.get(config)(HOT, LOGITS))
    return found


PROGRAMS: dict[str, Program] = {name: _loss(case) for name, case in CASES.items()}
PROGRAMS |= {name: _function(*given) for name, given in FUNCTIONS.items()}
PROGRAMS |= {"own": _Own(), "dtypes": _dtypes, "named": _named}
