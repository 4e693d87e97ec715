"""Losses as a step uses them; their numbers are compared with Keras's in test_keras.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import losses
from onnxtape.errors import ExecutionError, InvalidArgumentError, ShapeError
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


def test_dtypes() -> None:
    half, double = LOGITS.astype("float16"), LOGITS.astype("float64")
    for pred, expected in ((half, "float32"), (LOGITS, "float32"), (double, "float64")):
        assert losses.MeanSquaredError()(BITS, pred).dtype == expected
        assert losses.MeanSquaredError(dtype="float16")(BITS, pred).dtype == "float16"
    # Targets follow predictions; NumPy's own are float64.
    assert losses.Huber()(BITS.astype("float64"), LOGITS).dtype == "float32"
    assert losses.mean_squared_error(BITS, half).dtype == "float16"
    assert (losses.Huber().dtype, losses.Huber(dtype=np.float16).dtype) == (None, "float16")


def test_classes_are_not_rounded_to_floats() -> None:
    pred = np.zeros((1, 2), np.float32)
    with pytest.raises(InvalidArgumentError):
        losses.SparseCategoricalCrossentropy()(np.array([2**32]), pred)


@pytest.mark.parametrize("from_logits", [True, False])
def test_what_is_ignored_may_be_anything(from_logits: bool) -> None:
    loss_fn = losses.SparseCategoricalCrossentropy(from_logits, ignore_class=-100)
    pred = P.copy()
    pred[1], pred[4] = np.nan, np.inf
    x = ot.Variable(pred)
    with ot.GradientTape() as tape:
        loss = loss_fn(np.where([0, 1, 0, 0, 1, 0], -100, LABELS), x)
    kept = [0, 2, 3, 5]
    expected = losses.SparseCategoricalCrossentropy(from_logits)(LABELS[kept], P[kept])
    np.testing.assert_allclose(float(loss), float(expected), rtol=1e-6)
    gradient = tape.gradient(loss, x).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[[1, 4]] == 0).all()
    assert (gradient[kept] != 0).any(axis=1).all()


def test_classes_on_another_axis() -> None:
    deep = sample((3, 4, 5)).astype(np.float32)
    labels = np.array([[0, 1, 2, 3, 0]] * 3)
    moved = np.moveaxis(deep, 1, -1)
    for ignored in (None, 1):
        function = losses.sparse_categorical_crossentropy
        np.testing.assert_allclose(
            function(labels, deep, True, ignored, axis=1),
            function(labels, moved, True, ignored),
            rtol=1e-6,
        )
    hot = np.eye(4, dtype=np.float32)[labels]
    # The uniform distribution is over the classes, wherever they are.
    np.testing.assert_allclose(
        losses.categorical_crossentropy(np.moveaxis(hot, -1, 1), deep, True, 0.3, axis=1),
        losses.categorical_crossentropy(hot, moved, True, 0.3),
        rtol=1e-6,
    )


def test_huber_at_its_ends() -> None:
    error = np.array([[0.0], [1.0], [-1.0], [1e30], [-np.inf], [np.nan]], np.float32)
    x = ot.Variable(error)
    with ot.GradientTape() as tape:
        loss = losses.huber(np.zeros_like(error), x)
    np.testing.assert_array_equal(loss.numpy(), np.float32([0, 0.5, 0.5, 1e30, np.inf, np.nan]))
    np.testing.assert_array_equal(tape.gradient(loss, x).numpy()[:4, 0], [0, 1, -1, 1])


def test_hinges_take_signs_or_bits() -> None:
    signs = 2 * BITS - 1
    for function in (losses.hinge, losses.squared_hinge):
        np.testing.assert_array_equal(function(BITS, LOGITS), function(signs, LOGITS))
    # As soon as one target is neither, all are what they are.
    mixed = BITS.copy()
    mixed[0, 0] = 0.5
    expected = np.maximum(1 - mixed * LOGITS, 0).mean(1)
    np.testing.assert_allclose(losses.hinge(mixed, LOGITS), expected, rtol=1e-6)


def test_a_circle_without_pairs_is_no_loss() -> None:
    unit = P / np.linalg.norm(P, axis=1, keepdims=True)
    x = ot.Variable(unit)
    loss_fn = losses.Circle(reduction="none")
    with ot.GradientTape() as tape:
        loss = loss_fn(np.arange(6), x)
    np.testing.assert_array_equal(loss.numpy(), np.zeros(6))
    np.testing.assert_array_equal(tape.gradient(loss, x).numpy(), np.zeros_like(unit))
    assert float(losses.Circle()(np.arange(6), unit)) == 0
    others = losses.circle([0], unit[:1], ref_labels=LABELS, ref_embeddings=unit, gamma=2.0)
    assert others.shape == (1,)


def said(path: tuple[int, ...]) -> list[int]:
    """What a way through the times says: without repetitions, then without blanks."""
    return [c for c, _ in itertools.groupby(path) if c != 0]


@pytest.mark.parametrize("target", [[1, 2], [1, 1], [2, 0], [0, 0]])
def test_ctc_sums_over_all_ways(target: list[int]) -> None:
    logits = sample((1, 4, 3)).astype(np.float32)
    p = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    wanted = [c for c in target if c]
    ways = [w for w in itertools.product(range(3), repeat=4) if said(w) == wanted]
    expected = -np.log(sum(p[np.arange(4), list(way)].prod() for way in ways))
    np.testing.assert_allclose(losses.ctc([target], logits), [expected], rtol=1e-5)


def test_ctc_where_there_is_no_way() -> None:
    x = ot.Variable(sample((2, 2, 3)).astype(np.float32))
    with ot.GradientTape() as tape:
        loss = losses.CTC(reduction="none")([[1, 1], [1, 2]], x)
    # Between equal targets there has to be a blank, so these two need three times.
    assert np.isfinite(loss.numpy()).tolist() == [False, True]
    assert np.isfinite(tape.gradient(loss, x).numpy()).all()
    with pytest.raises(ShapeError, match=r"ctc takes targets \(batch, length\) .* \(3,\) and"):
        losses.CTC()([1, 2, 3], x)
    with pytest.raises(InvalidArgumentError, match=r"ctc: Out of range: .* none of the 3 classes"):
        losses.CTC()([[1, 3], [1, 2]], x)


@pytest.mark.parametrize("name", sorted(losses._CLASSES))
def test_configurations(name: str) -> None:
    loss_fn = getattr(losses, name)(reduction="sum", name="mine", dtype="float64")
    config = loss_fn.get_config()
    again = losses.get({"class_name": name, "config": config})
    assert type(again) is type(loss_fn)
    assert again.get_config() == config
    assert (again.name, again.reduction, again.dtype) == ("mine", "sum", "float64")
    assert repr(again) == f"<{name} name=mine, reduction=sum, dtype=float64>"


def test_names() -> None:
    assert losses.get("mse") is losses.mse is losses.MSE is losses.mean_squared_error
    assert losses.get("huber") is losses.huber
    assert losses.get(losses.huber) is losses.huber
    assert type(losses.get("Huber")) is type(losses.get(losses.Huber)) is losses.Huber
    assert losses.get(None) is None
    given = losses.Huber(0.5)
    assert losses.get(given) is given
    with pytest.raises(ValueError, match=r"no loss is called 'mean'; there are CTC, BinaryCr"):
        losses.get("mean")
    with pytest.raises(TypeError, match=r"cannot make a loss of 3"):
        losses.get(3)


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
    for name in ("Huber", "Hinge", "KLDivergence", "Poisson", "CosineSimilarity", "LogCosh"):
        with pytest.raises(
            ShapeError, match=r"targets of shape \(6, 3\) and .* \(6, 4\) do not br"
        ):
            getattr(losses, name)()(BITS[:, :3], LOGITS)
    for name in ("CategoricalHinge", "BinaryFocalCrossentropy", "CategoricalFocalCrossentropy",
                 "Dice", "Tversky"):  # fmt: skip
        with pytest.raises(ShapeError, match=r"one shape, not \(6, 3\) and \(6, 4\)"):
            getattr(losses, name)()(BITS[:, :3], P)
    with pytest.raises(ShapeError, match=r"one class for each, not \(6, 4\) and \(5,\)"):
        losses.Circle()(LABELS[:5], P)
    with pytest.raises(ShapeError, match=r"one integer target per prediction, not .* \(5,\)"):
        losses.CategoricalGeneralizedCrossEntropy()(LABELS[:5], P)
    with pytest.raises(ShapeError, match=r"weight of shape \(5,\) does not fit .* \(6,\)") as no:
        losses.MeanSquaredError(name="mine")(BITS, LOGITS, WEIGHTS[:5])
    assert "test_losses.py" in str(no.value)
    assert "in layer 'mine'" in str(no.value)


OUTSIDE = {
    "sparse": losses.SparseCategoricalCrossentropy,
    "ignored": lambda: losses.SparseCategoricalCrossentropy(ignore_class=0),
    "generalized": losses.CategoricalGeneralizedCrossEntropy,
}


@pytest.mark.parametrize("wrong", [4, -1])
@pytest.mark.parametrize("name", OUTSIDE)
def test_targets_that_are_no_classes(name: str, wrong: int) -> None:
    loss_fn, labels = OUTSIDE[name](), np.where(LABELS == 3, wrong, LABELS)
    with pytest.raises(
        InvalidArgumentError, match=r"a target is none of the 4 classes .* \(6, 4\)"
    ) as refusal:
        loss_fn(labels, P)
    assert "test_losses.py" in str(refusal.value)


@pytest.mark.parametrize("wrong", [4, -1])
@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_compiled_step_says_the_same_of_targets_that_are_no_classes(
    name: str, with_gradient: bool, wrong: int
) -> None:
    loss_fn, labels = OUTSIDE[name](), np.where(LABELS == 3, wrong, LABELS)
    weight = ot.Variable(P)

    @ot.function(fallback="error")
    def step(labels: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(labels, weight)
        return tape.gradient(loss, weight) if with_gradient else loss

    said = (
        r"^the step failed: \w+: Out of range: a target is none of the 4 classes \(counted from 0\)"
        rf" of predictions \(6, 4\)\n  at .*test_losses.py:\d+ in layer '{loss_fn.name}'$"
    )
    with pytest.raises(ExecutionError, match=said):
        step(labels)


def test_one_class_is_a_mistake() -> None:
    with pytest.warns(UserWarning, match=r"one class only.* there is binary_crossentropy"):
        losses.CategoricalCrossentropy()(np.ones((2, 1)), np.ones((2, 1), np.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Huber(0.0), r"delta is positive, not 0"),
        (lambda: losses.BinaryCrossentropy(label_smoothing=2), r"is from 0 to 1, not 2"),
        (lambda: losses.CategoricalGeneralizedCrossEntropy(1.0), r"q is between 0 and 1, not 1"),
    ],
)
def test_arguments_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
