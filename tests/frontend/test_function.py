"""`ot.function`: when it traces, what it returns, and that it changes no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import InputError, ShapeError, VariableError
from tests.frontend.samples import floats
from tests.frontend.training import Training, batches

# When it traces ----------------------------------------------------------------------------------


def test_the_first_trace_is_exact_and_the_second_symbolic() -> None:
    seen: list[Any] = []

    @ot.function
    def double(x: Any) -> Any:
        seen.append(x.shape[0])
        return x * 2

    for size in (8, 8, 3, 8, 5, 1, 7):
        x = floats(size, 4)
        np.testing.assert_array_equal(double(x), x * 2)
    assert double.trace_count == 2
    assert seen[0] == 8
    assert not isinstance(seen[1], int)


def test_a_partial_last_batch_costs_one_more_trace_in_all_epochs() -> None:
    training = Training()
    for _ in range(4):
        training.run(batches(3, size=16, last=6))
    assert training.step.trace_count == 2


def test_sizes_seen_only_together_share_a_symbol() -> None:
    @ot.function
    def residual(x: Any, y: Any) -> Any:
        return x - y

    for rows in (6, 4):
        residual(floats(rows, 3), floats(rows, 3, seed=1))
    concrete = residual.get_concrete_function(floats(4, 3), floats(4, 3))
    assert [spec.shape for spec in concrete.inputs] == [("batch", 3), ("batch", 3)]


def test_sizes_that_stop_agreeing_still_give_the_right_numbers() -> None:
    @ot.function
    def residual(x: Any, y: Any) -> Any:
        return x - y

    def check(rows: int, others: int) -> None:
        x, y = floats(rows, 3), floats(others, 3, seed=1)
        np.testing.assert_array_equal(residual(x, y), x - y)

    check(6, 6)
    check(4, 4)
    assert residual.trace_count == 2
    check(5, 1)  # broadcasts
    check(1, 7)
    check(2, 2)
    assert residual.trace_count <= 4


def test_a_step_is_right_where_a_symbolic_size_is_one() -> None:
    @ot.function
    def centred(x: Any, scale: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch((x, scale))
            loss = ot.ops.sum(ot.ops.square((x - ot.ops.mean(x, axis=0)) * scale))
        return tape.gradient(loss, [x, scale])

    for rows in (4, 3, 1):
        x, scale = floats(rows, 2), floats(rows, 2, seed=1)
        for compiled, eager in zip(
            centred(x, scale),
            centred.python_function(ot.convert_to_tensor(x), ot.convert_to_tensor(scale)),
            strict=True,
        ):
            np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)
    assert centred.trace_count == 2


def test_another_dtype_or_rank_is_another_trace() -> None:
    double = ot.function(lambda x: x * 2)
    for x in (floats(3), floats(3).astype(np.float64), np.arange(3), floats(3, 1)):
        result = double(x)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, x * 2)
    assert double.trace_count == 4


def test_empty_batches_and_scalars() -> None:
    summed = ot.function(lambda x: (ot.ops.sum(x), x + 1))
    for shape in ((0, 3), (2, 3), (0, 3), ()):
        x = floats(*shape)
        total, more = summed(x)
        assert more.shape == shape
        assert float(total) == pytest.approx(float(x.sum()), abs=1e-6)


def test_assigning_the_learning_rate_traces_nothing() -> None:
    training = Training(dropout=0.0)
    (x, y), *_ = batches(1)
    training.step(x, y)
    before = training.state()
    training.optimizer.learning_rate = 0.0
    training.step(x, y)
    for old, new in zip(before[:4], training.state()[:4], strict=True):
        np.testing.assert_array_equal(old, new)
    training.optimizer.learning_rate = 0.5
    training.step(x, y)
    assert not np.array_equal(before[0], training.state()[0])
    assert training.step.trace_count == 1


# What it returns ---------------------------------------------------------------------------------


def test_returning_inputs_variables_constants_and_one_tensor_twice() -> None:
    variable = ot.Variable([1.0, 2.0])
    array = floats(2, seed=3)

    @ot.function
    def step(x: Any) -> Any:
        y = x + 1
        return x, variable, y, y, x + 1, ot.convert_to_tensor([7, 8]), array

    x = floats(2)
    for _ in range(2):
        results = step(x)
        expected = [x, [1, 2], x + 1, x + 1, x + 1, [7, 8], array]
        for result, right in zip(results, expected, strict=True):
            assert isinstance(result, ot.Tensor)
            np.testing.assert_array_equal(result, right)


def test_results_are_independent_of_later_calls_and_of_the_callers_arrays() -> None:
    same = ot.function(lambda x: (x, x * 1))
    x = floats(3)
    kept = x.copy()
    first, second = same(x)
    x[:] = 99
    same(x)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, kept)


def test_a_size_is_a_result_like_any_other() -> None:
    sizes = ot.function(lambda x: (x.shape[0], x.shape))
    for rows in (3, 5, 2):
        rows_found, shape = sizes(floats(rows, 4))
        assert int(rows_found) == rows
        assert [int(d) for d in shape] == [rows, 4]


def test_a_result_named_like_an_input() -> None:
    step = ot.function(lambda x: {"x": x + 1})
    np.testing.assert_array_equal(step(floats(2))["x"], floats(2) + 1)


# Variables ---------------------------------------------------------------------------------------


def test_reading_after_assigning_sees_the_new_value() -> None:
    variable = ot.Variable(2.0)

    @ot.function
    def step(x: Any) -> Any:
        before = variable.value
        variable.assign(variable * 3)
        between = variable.value
        variable.assign_add(x)
        return before, between, variable, variable * x

    results = [float(r) for r in step(np.float32(10))]
    assert results == [2, 6, 16, 160]
    assert float(variable) == 16
    results = [float(r) for r in step(np.float32(1))]
    assert results == [16, 48, 49, 49]


def test_two_variables_exchanged_in_one_step() -> None:
    a, b = ot.Variable([1.0, 2.0]), ot.Variable([3.0, 4.0])

    @ot.function
    def swap() -> None:
        old = a.value
        a.assign(b)
        b.assign(old)

    for i in range(1, 6):
        swap()
        np.testing.assert_array_equal(a.numpy(), [3, 4] if i % 2 else [1, 2])
        np.testing.assert_array_equal(b.numpy(), [1, 2] if i % 2 else [3, 4])


def test_variables_may_be_created_in_the_first_call_only() -> None:
    kept: dict[str, Any] = {}

    @ot.function
    def step(x: Any, again: bool = False) -> Any:
        if again or not kept:
            kept["scale"] = ot.Variable(3.0, name="scale")
        return x * kept["scale"]

    np.testing.assert_array_equal(step(floats(2)), floats(2) * 3)
    kept["scale"].assign(4.0)
    np.testing.assert_array_equal(step(floats(2)), floats(2) * 4)
    with pytest.raises(
        VariableError, match="created variable 'scale' on a call other than"
    ) as error:
        step(floats(2), again=True)
    assert "test_function.py" in str(error.value)


def test_a_failed_first_call_does_not_count_as_the_first() -> None:
    layers: list[Any] = []

    @ot.function
    def step(x: Any, y: Any) -> Any:
        total = x + y
        if not layers:
            layers.append(ot.layers.Dense(2))
        return layers[0](total)

    with pytest.raises(ShapeError):
        step(floats(2, 3), floats(2, 4))
    assert step(floats(2, 3), floats(2, 3)).shape == (2, 2)


def test_a_failed_call_teaches_nothing_about_sizes() -> None:
    @ot.function
    def step(x: Any, y: Any) -> Any:
        return x + y

    with pytest.raises(ShapeError):
        step(floats(5, 3), floats(6, 3))
    step(floats(2, 3), floats(2, 3))
    step(floats(7, 3), floats(7, 3))
    shapes = [spec.shape for spec in step.get_concrete_function(floats(7, 3), floats(7, 3)).inputs]
    assert shapes == [("batch", 3), ("batch", 3)]


def test_a_variable_refuses_another_shape_when_traced() -> None:
    variable = ot.Variable([1.0, 2.0], name="weights")
    with pytest.raises(VariableError, match=r"variable 'weights' has shape \(2,\) .* shape \(3,\)"):
        ot.function(lambda x: variable.assign(x))(floats(3))


# Concrete functions ------------------------------------------------------------------------------


def test_concrete_functions_check_what_they_are_given() -> None:
    step = ot.function(lambda x, y: x + y)
    with pytest.raises(ValueError, match="'<lambda>' has not been called yet"):
        step.get_concrete_function()
    spec = ot.TensorSpec((None, 3))
    concrete = step.get_concrete_function(spec, spec)
    np.testing.assert_array_equal(concrete(floats(5, 3), floats(5, 3)), 2 * floats(5, 3))
    step(floats(4, 3), floats(4, 3))
    assert step.trace_count == 1
    with pytest.raises(InputError, match=r"has 2 inputs \(x, y\), but 1 were given"):
        concrete(floats(5, 3))
    with pytest.raises(InputError, match="input 'y' has dtype float64, not float32"):
        concrete(floats(5, 3), floats(5, 3).astype(np.float64))
    with pytest.raises(InputError, match="dimension 'batch' is 5 in 'x' and 4 in 'y'"):
        concrete(floats(5, 3), floats(4, 3))


def test_the_concrete_model_is_plain_onnx_that_runs_as_it_is() -> None:
    import onnx
    import onnxruntime

    training = Training(dropout=0.0)
    (x, y), *_ = batches(1)
    concrete = training.step.get_concrete_function(x, y)
    onnx.checker.check_model(concrete.model, full_check=True)
    session = onnxruntime.InferenceSession(concrete.model.SerializeToString())
    state = {
        e.input_name: v.numpy() for e, v in zip(concrete.state, concrete.variables, strict=True)
    }
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"x": x, "y": y, **state}), strict=True))
    assert float(training.step(x, y)["loss"]) == pytest.approx(float(found["loss"]), rel=1e-6)
    for entry, variable in zip(concrete.state, concrete.variables, strict=True):
        if entry.output_name is not None:
            np.testing.assert_allclose(
                found[entry.output_name], variable.numpy(), rtol=1e-5, atol=1e-6
            )
    roles = {entry.name: entry.role for entry in concrete.state}
    assert set(roles.values()) == {"parameter", "optimizer", "metric"}


def test_variable_arguments_take_the_short_way() -> None:
    """What a later call with the same shapes is recognized by: arrays and tensors alone."""

    @ot.function(fallback="error")
    def add(first: Any, *rest: Any) -> Any:
        parts = [part if isinstance(part, list) else [part] for part in rest]
        return sum((leaf for part in parts for leaf in part), start=first)

    x = np.ones(2, np.float32)
    np.testing.assert_array_equal(add(x, [x, x], []).numpy(), [3, 3])
    assert add._recent is None
    np.testing.assert_array_equal(add(x, x, x).numpy(), [3, 3])
    assert add._recent is not None
    assert add._recent.match((x, x, x)) is not None
    assert add._recent.match((x, [x, x], [])) is None
    np.testing.assert_array_equal(add(x, 2 * x, x).numpy(), [4, 4])
