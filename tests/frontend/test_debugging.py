"""`enable_check_numerics`: which operator made the first NaN or infinity, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import NumericsError
from tests.frontend.training import Training, batches

ops = ot.ops


@pytest.fixture
def _checking() -> Iterator[None]:
    ot.debugging.enable_check_numerics()
    yield
    ot.debugging.disable_check_numerics()


checking = pytest.mark.usefixtures("_checking")


class Loss(ot.layers.Layer):
    """A weight, seen through a function that may fail."""

    def __init__(self, function: Callable[[Any], Any], start: Any) -> None:
        super().__init__(name="doubtful")
        self.weight = ot.Variable(start, name="weight")
        self.function = function
        self.steps = ot.Variable(0.0, trainable=False, name="steps")

    def call(self, x: Any) -> Any:
        return self.function(x * self.weight)


def step_of(layer: Loss) -> Any:
    @ot.function
    def step(x: Any) -> Any:
        layer.steps.assign_add(1.0)
        with ot.GradientTape() as tape:
            loss = ops.sum(layer(x))
        gradient = tape.gradient(loss, layer.weight)
        layer.weight.assign_sub(0.1 * gradient)
        return {"loss": loss}

    return step


def logarithm(x: Any) -> Any:
    return ops.log(x)


def reciprocal(x: Any) -> Any:
    return 1.0 / x


def root(x: Any) -> Any:
    return ops.sqrt(x)


def overflow(x: Any) -> Any:
    return ops.exp(x * 1000)


CASES = [
    (logarithm, [-1.0, 1.0], "Log made a NaN", "forward"),
    (reciprocal, [0.0, 1.0], "Div made an infinity", "forward"),
    (overflow, [1.0, 1.0], "Exp made an infinity", "forward"),
    (root, [0.0, 1.0], "made an infinity", "backward"),
]
cases = pytest.mark.parametrize(
    ("function", "start", "what", "phase"), CASES, ids=[c[0].__name__ for c in CASES]
)


@checking
@cases
def test_the_operator_the_place_the_phase_and_the_layer(
    function: Callable[[Any], Any], start: list[float], what: str, phase: str
) -> None:
    layer = Loss(function, start)
    step = step_of(layer)
    with pytest.raises(NumericsError) as caught:
        step(np.float32([1, 1]))
    text = str(caught.value)
    assert what in text
    assert f"in the {phase} pass" in text
    assert "from finite inputs of shapes (" in text
    line = function.__code__.co_firstlineno + 1
    assert f"test_debugging.py:{line} in layer 'doubtful'" in text
    # Nothing was assigned, the counter before it neither.
    np.testing.assert_array_equal(layer.weight.numpy(), np.float32(start))
    assert float(layer.steps) == 0


@checking
def test_what_came_in_is_not_blamed_on_an_operator() -> None:
    layer = Loss(logarithm, [1.0, 1.0])
    step = step_of(layer)
    with pytest.raises(NumericsError, match="argument 'x' held a NaN before the step"):
        step(np.float32([1, np.nan]))
    layer.weight.assign([1.0, np.inf])
    with pytest.raises(NumericsError, match=r"variable 'weight' held an infinity before the step"):
        step(np.float32([1, 1]))


@checking
def test_checked_steps_give_the_same_numbers() -> None:
    checked, plain = Training(), Training()
    data = batches(6, last=5)
    checked.restart_masks()
    found = checked.run(data)
    ot.debugging.disable_check_numerics()
    plain.restart_masks()
    np.testing.assert_allclose(found, plain.run(data), rtol=1e-5)
    for one, other in zip(checked.state(), plain.state(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert checked.step.trace_count == 2


@checking
def test_results_and_state_of_a_checked_step_are_their_own() -> None:
    layer = Loss(logarithm, [1.0, 2.0])
    step = step_of(layer)
    held = layer.weight.value
    first = step(np.float32([1, 1]))["loss"]
    numbers = float(first)
    step(np.float32([1, 1]))
    ot.debugging.disable_check_numerics()
    step(np.float32([1, 1]))
    assert float(first) == numbers
    np.testing.assert_array_equal(held, [1, 2])
    assert float(layer.steps) == 3


@cases
def test_without_the_switch_nothing_is_said(
    function: Callable[[Any], Any], start: list[float], what: str, phase: str
) -> None:
    layer = Loss(function, start)
    step = step_of(layer)
    ot.debugging.enable_check_numerics()
    ot.debugging.disable_check_numerics()
    loss = float(step(np.float32([1, 1]))["loss"])
    assert np.isfinite(loss) == (phase == "backward")
    assert float(layer.steps) == 1
    if phase == "backward":
        assert np.isinf(layer.weight.numpy()).any()


@checking
def test_infinities_that_were_written_down_are_no_mistake() -> None:
    masked = ot.function(lambda x: ops.softmax(ops.where(x > 0, x, -np.inf)))
    np.testing.assert_allclose(masked(np.float32([1, -1, 1])), [0.5, 0, 0.5])


@checking
def test_integers_and_empty_tensors_pass() -> None:
    step = ot.function(lambda x, n: (x * 2, n // 2, n > 1))
    doubled, halved, _ = step(np.zeros((0, 2), np.float32), np.arange(4))
    assert doubled.shape == (0, 2)
    np.testing.assert_array_equal(halved, [0, 0, 1, 1])
