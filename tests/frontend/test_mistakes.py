"""What a user does by mistake must be refused in every mode, and said clearly."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import (
    CheckpointError,
    ExecutionError,
    InvalidArgumentError,
    NumericsError,
    ShapeError,
)


class Net(ot.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.first = ot.layers.Dense(8, activation="relu")
        self.dropout = ot.layers.Dropout(0.5)
        self.last = ot.layers.Dense(4)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.dropout(self.first(x), training=training))


def batch(size: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 5)).astype("float32"), rng.integers(0, 4, size)


def training_step() -> Callable[[Any, Any], Any]:
    model, loss_fn = Net(), ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer, accuracy = ot.optimizers.SGD(0.1), ot.metrics.SparseCategoricalAccuracy()

    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            logits = model(x)
            loss = loss_fn(y, logits)
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply(gradients, model.trainable_weights)
        accuracy.update_state(y, logits)
        return loss

    return step


@pytest.mark.parametrize("targets", [10, 1])
@pytest.mark.parametrize("sizes", [(16,), (16, 8)])
def test_fewer_targets_than_samples(targets: int, sizes: tuple[int, ...]) -> None:
    x, y = batch(16)
    step = ot.function(training_step())
    for size in sizes:  # traced for one size; then for any
        step(x[:size], y[:size])
    traces, exported = step.trace_count, step.get_symbolic_function()
    place = r"(?s)takes integer targets of shape .*test_mistakes.py:\d+ in layer 'sparse_cat"
    for _ in range(2):
        with pytest.raises(ShapeError, match=place):
            step(x, y[:targets])
    # Nor do they change what is exported, or traced from then on.
    assert step.get_symbolic_function().inputs == exported.inputs
    step(x[:11], y[:11])
    step(x[:12], y[:12])
    assert step.trace_count == traces + 4 - len(sizes)
    with pytest.raises(ShapeError, match="takes integer targets of shape"):
        training_step()(x, y[:targets])


@pytest.mark.parametrize("signature", [None, [ot.TensorSpec((None, 4)), ot.TensorSpec((None, 4))]])
@pytest.mark.parametrize("loss", ["MeanSquaredError", "CategoricalCrossentropy"])
def test_fewer_targets_of_the_predictions_shape(loss: str, signature: Any) -> None:
    loss_fn, accuracy = getattr(ot.losses, loss)(), ot.metrics.BinaryAccuracy()

    @ot.function(input_signature=signature)
    def step(x: Any, y: Any) -> Any:
        value = loss_fn(y, x)
        accuracy.update_state(y, x)
        return value

    x = np.full((9, 4), 0.25, "f")
    for size in (9, 8, 7, 9):
        with pytest.raises(ShapeError, match=rf"(?s)\({size - 2}, 4\).*\({size}, 4\).*test_mist"):
            step(x[:size], x[: size - 2])
        step(x[:size], x[:size])


def test_sizes_of_arguments_that_were_equal_may_differ() -> None:
    """Sequences of two languages, whose first batch had one length by chance."""
    step = ot.function(lambda x, y: ot.ops.sum(x) + ot.ops.sum(y), fallback="error")
    for lengths in ((5, 5), (4, 7), (3, 4), (2, 9)):
        assert step(*(np.ones((2, length), "f") for length in lengths)) == 2 * sum(lengths)
    # With exact sizes, once with those of the second call to see that they are right, for any.
    assert step.trace_count == 3


def test_a_dimension_with_a_name_is_the_same_everywhere() -> None:
    specs = [ot.TensorSpec(("n", 3)), ot.TensorSpec(("n",))]
    step = ot.function(lambda x, y: ot.ops.sum(x) + ot.ops.sum(y), input_signature=specs)
    step(np.ones((2, 3), "f"), np.ones(2, "f"))
    with pytest.raises(ot.errors.InputError, match=r"dimension 'n' is 2 in 'x' and 3 in 'y'"):
        step(np.ones((2, 3), "f"), np.ones(3, "f"))


def test_a_call_that_is_refused_leaves_no_number_behind() -> None:
    step = ot.function(lambda x, rate: ot.ops.reshape(x, (2, 3)) * rate)
    with pytest.raises(ShapeError):
        step(np.ones(5, "f"), 0.5)
    step(np.ones(6, "f"), 0.25)
    assert [spec.name for spec in step.get_concrete_function().inputs] == ["x"]


def test_a_list_of_numbers_is_no_tensor() -> None:
    """But several inputs, as in Keras, and as many constants of a step, as in TensorFlow."""
    net = Net()
    wanted = (
        r"(?s)Net 'net' takes tensors, and was given a list of numbers.*np.asarray\(x.*mistakes"
    )
    for call in (net, ot.function(net.__call__), ot.function(lambda x: net(x) * 2)):
        with pytest.raises(TypeError, match=wanted):
            call([[0.0] * 5, [1.0] * 5])


def test_a_tape_that_was_never_entered() -> None:
    tape, w = ot.GradientTape(), ot.Variable(2.0)
    loss = w * w
    for ask in (tape.gradient, tape.jacobian):
        with pytest.raises(RuntimeError, match=r"inside of `with ot.GradientTape\(\) as tape:`"):
            ask(loss, w)
    with tape:
        loss = w * w
    assert tape.gradient(loss, w) == 4


def test_an_artifact_refuses_fewer_targets_too(tmp_path: Path) -> None:
    x, y = batch(16)
    step = ot.function(training_step())
    step.export(tmp_path / "artifact", x, y)
    with pytest.raises(ot.errors.InputError, match="batch"):
        ot.TrainingSession(tmp_path / "artifact").step(x=x, y=y[:10])


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class(label: int) -> None:
    x, y = batch(16)
    y[3] = label
    with pytest.raises(InvalidArgumentError, match="Out of range"):
        training_step()(x, y)
    step = ot.function(training_step())
    with pytest.raises(ExecutionError, match=r"(?s)must be within|Out of range"):
        step(x, y)


def test_one_hot_targets_are_told_where_to_go() -> None:
    x, _ = batch(16)
    with pytest.raises(ShapeError, match="for one-hot targets there is categorical_crossentropy"):
        training_step()(x, np.eye(4, dtype="float32")[[0] * 16])


def test_an_unbuilt_model_starts_equal_eager_and_compiled() -> None:
    x, _ = batch(16)
    outputs = []
    for compile_it in (lambda f: f, ot.function):
        ot.set_seed(5)
        model = Net()
        forward = compile_it(lambda x, model=model: model(x, training=True))
        outputs.append([np.asarray(forward(x)) for _ in range(3)])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_build_makes_the_weights_of_a_subclassed_model() -> None:
    model = Net()
    model.build((None, 5))
    assert [w.shape for w in model.weights] == [(5, 8), (8,), (8, 4), (4,)]
    assert model(np.ones((3, 5), "float32")).shape == (3, 4)


def test_restoring_into_what_is_not_built(tmp_path: Path) -> None:
    model = Net()
    model.build((None, 5))
    ot.save_checkpoint(tmp_path / "file", model)
    with pytest.raises(CheckpointError, match="'net' is not built yet: call a model on data once"):
        ot.restore_checkpoint(tmp_path / "file", Net())


def test_numerics_are_checked_eagerly_too() -> None:
    ot.debugging.enable_check_numerics()
    try:
        with pytest.raises(NumericsError, match=r"(?s)Log made an infinity.*test_mistakes.py"):
            ot.ops.log(np.zeros(2, "float32"))
    finally:
        ot.debugging.disable_check_numerics()
    assert np.isneginf(ot.ops.log(np.zeros(2, "float32")).numpy()).all()


def test_numpy_in_a_step_is_blamed_on_the_users_line() -> None:
    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        return np.sum(x)

    with pytest.raises(ot.errors.TracingError, match=r"test_mistakes.py:\d+: return np.sum\(x\)"):
        step(np.ones(3, "float32"))


def test_an_error_after_the_fallback_stands_alone() -> None:
    @ot.function
    def step(x: Any) -> Any:
        if ot.ops.sum(x) > 0:
            raise KeyError("mine")
        return x

    with pytest.warns(ot.FallbackWarning), pytest.raises(KeyError) as caught:
        step(np.ones(3, "float32"))
    assert caught.value.__context__ is None


def test_a_size_that_the_input_fixes_is_refused_after_calls_with_the_right_one() -> None:
    """That the size varies must not make it symbolic, and the step train on it."""
    images = ot.Input((8, 8, 1), name="digits")
    maps = ot.layers.Conv2D(2, 3)(images)
    model = ot.Model(images, ot.layers.Dense(3)(ot.layers.GlobalMaxPooling2D()(maps)))

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        return model(x / 255)

    assert step(np.ones((4, 8, 8, 1), "f")).shape == (4, 3)
    for shape in ((4, 7, 8, 1), (2, 8, 9, 1)):
        wanted = re.escape(f"takes (None, 8, 8, 1) for its input 'digits', not {shape}")
        with pytest.raises(ShapeError, match=wanted):
            step(np.ones(shape, "f"))
    before = step.trace_count
    for size in (3, 2, 7):
        assert step(np.ones((size, 8, 8, 1), "f")).shape == (size, 3)
    assert step.trace_count == before + 1


def test_an_entry_is_not_assigned() -> None:
    for changed in (ot.ops.zeros(3), ot.Variable([0.0, 0.0])):
        with pytest.raises(TypeError, match=r"do not change in place: .*scatter_update"):
            changed[0] = 1.0


def test_gradients_and_variables_in_other_words() -> None:
    net, optimizer = Net(), ot.optimizers.SGD(0.1)
    x, y = batch(4)
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    with ot.GradientTape(persistent=True) as tape:
        loss = loss_fn(y, net(x))
    with pytest.raises(TypeError, match=r"not Net; write model\.trainable_variables"):
        tape.gradient(loss, net)
    gradients = tape.gradient(loss, net.trainable_variables)
    for one in (optimizer, ot.optimizers.LossScaleOptimizer(optimizer)):
        with pytest.raises(ValueError, match=r"write optimizer\.apply\(gradients, model\."):
            one.apply(gradients)
        with pytest.raises(TypeError, match=r"takes gradients, not pairs: .*apply_gradients\(zip"):
            one.apply(zip(gradients, net.trainable_variables, strict=True))


def test_a_loss_outside_of_the_tape_is_blamed_on_the_users_line() -> None:
    net, optimizer = Net(), ot.optimizers.SGD(0.1)

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = net(x)
        optimizer.apply(
            tape.gradient(ot.ops.sum(y), variables := net.trainable_variables), variables
        )

    for run in (step, ot.function(step)):
        with pytest.raises(
            ot.errors.GradientError, match=r"outside the Grad.*\n.*mistakes\.py:\d+"
        ):
            run(batch(4)[0])
