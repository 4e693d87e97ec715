"""What comes out of an `ot.function` that fails, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import TracingError
from tests.frontend.samples import floats
from tests.frontend.training import CLASSES, Training, batches


class OddError(Exception):
    pass


def test_exceptions_of_user_code_come_out_unchanged() -> None:
    raised = OddError("mine", 3)

    @ot.function
    def step(x: Any) -> Any:
        raise raised

    for _ in range(2):
        with pytest.raises(OddError) as caught:
            step(floats(2))
        assert caught.value is raised
    assert step.fallback_reason is None


def test_an_exception_leaves_nothing_behind() -> None:
    fail = True

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = x * x
            if fail:
                raise OddError
        return tape.gradient(y, x)

    with pytest.raises(OddError):
        step(floats(2))
    assert float(ot.ops.sum(ot.convert_to_tensor(np.float32([1, 2])))) == 3
    fail = False
    np.testing.assert_array_equal(step(floats(2)), 2 * floats(2))


def test_a_step_that_fails_while_running_leaves_the_state() -> None:
    table = ot.Variable(floats(4, 2))
    count = ot.Variable(0.0)

    @ot.function
    def step(indices: Any) -> Any:
        rows = ot.ops.take(table, indices, axis=0)
        count.assign_add(1.0)
        table.assign(table + ot.ops.sum(rows))
        return rows

    step(np.asarray([0, 3]))
    before = table.numpy()
    line = step.python_function.__code__.co_firstlineno + 2
    with pytest.raises(
        ot.errors.ExecutionError, match=rf"Gather(?s:.*)test_function_errors\.py:{line}$"
    ):
        step(np.asarray([0, 9]))
    np.testing.assert_array_equal(table.numpy(), before)
    step(np.asarray([0, 1]))
    assert not np.array_equal(table.numpy(), before)


@pytest.mark.parametrize("wrong", [-99, CLASSES])
def test_a_batch_that_a_training_step_fails_on_changes_no_state(wrong: int) -> None:
    training = Training()
    (x, y), *_ = batches(1)
    training.step(x, y)
    stream = ot.random.global_generator().state
    before = [*training.state(), stream.numpy()]
    with pytest.raises(
        ot.errors.ExecutionError, match=r"none of the 4 classes(?s:.*)training\.py:\d+"
    ):
        training.step(x, np.where(y == y[0], wrong, y))
    for old, new in zip(before, [*training.state(), stream.numpy()], strict=True):
        np.testing.assert_array_equal(old, new)
    training.step(x, y)
    assert not np.array_equal(before[0], training.state()[0])


def test_fallback_has_two_values() -> None:
    with pytest.raises(ValueError, match="fallback is 'eager' or 'error', not 'never'"):
        ot.function(fallback="never")  # type: ignore[arg-type]


def test_a_symbolic_tensor_is_refused_by_a_concrete_function() -> None:
    leaked: list[Any] = []
    step = ot.function(lambda x: leaked.append(x) or x + 1)
    step(floats(2))
    with pytest.raises(TracingError, match="a tensor of a finished trace"):
        step.get_concrete_function(floats(2))(leaked[0])


def test_a_variable_made_on_a_later_trace_is_refused_in_one_traceback() -> None:
    @ot.function
    def step(x: Any) -> Any:
        return x * (ot.Variable(np.float32(1)) if x.shape[0] == 5 else 2)

    step(np.ones(4, np.float32))
    with pytest.raises(ot.errors.VariableError, match="on a call other than its first") as refusal:
        step(np.ones(5, np.float32))
    assert refusal.value.__context__ is None


def test_a_variable_made_in_each_call_is_refused_at_once() -> None:
    """Eager mode makes a new one in each call; a step would keep the first."""

    def counted(x: Any) -> Any:
        count = ot.Variable(np.float32(0))
        return x + count.assign_add(1)

    assert [float(counted(0.0)) for _ in range(2)] == [1, 1]
    with pytest.raises(ot.errors.VariableError, match=r"create variables outside.*\n.*_errors\.py"):
        ot.function(counted)(np.float32(0))

    kept: list[ot.Variable] = []

    @ot.function(fallback="error")
    def once(x: Any) -> Any:
        if not kept:
            kept.append(ot.Variable(np.float32(0)))
        return x + kept[0].assign_add(1)

    assert [float(once(np.float32(0))) for _ in range(3)] == [1, 2, 3]
