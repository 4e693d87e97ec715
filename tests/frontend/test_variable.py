"""Variables: assignment, snapshots, and buffers that compiled steps overwrite in place."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxtape as ot
from onnxtape import compilation
from onnxtape.errors import VariableError
from onnxtape.runtime.session import create_session
from tests.frontend.training import Training, batches

Array = npt.NDArray[Any]


def pointer(variable: ot.Variable) -> int:
    """Where the value lies, without taking hold of it."""
    return int(variable._tensor._ort.data_ptr())


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (1, "int32", ()),
        (1.5, "float32", ()),
        ([[1, 2]], "int32", (1, 2)),
        (np.zeros((2, 0)), "float64", (2, 0)),
        (np.float16([1]), "float16", (1,)),
        (lambda: ot.ops.ones((2, 3)), "float32", (2, 3)),
        (lambda: np.arange(3), "int64", (3,)),
        (True, "bool", ()),
    ],
)
def test_initial_values(value: Any, dtype: str, shape: tuple[int, ...]) -> None:
    variable = ot.Variable(value)
    assert variable.dtype == dtype
    assert variable.shape == shape
    assert variable.numpy().shape == shape
    assert f"shape={shape}, dtype={dtype}" in repr(variable)


def test_what_it_is() -> None:
    variable = ot.Variable(np.ones((2, 3)), dtype="float32", name="kernel")
    assert (variable.ndim, variable.size, len(variable), variable.trainable) == (2, 6, 2, True)
    assert (variable.name, variable.role) == ("kernel", "parameter")
    assert ot.Variable(0, trainable=False).role == "buffer"
    assert (float(ot.Variable(2.5)), int(ot.Variable(3)), bool(ot.Variable(0.0))) == (2.5, 3, False)
    assert f"{ot.Variable(2.5):.2f}" == "2.50"
    np.testing.assert_array_equal(np.asarray(variable), np.ones((2, 3)))
    np.testing.assert_array_equal(variable * 2 + variable[0], 3 * np.ones((2, 3)))
    with pytest.raises(TypeError, match="cannot make a tensor of dtype"):
        ot.Variable("text")


def test_assigning_converts_and_checks() -> None:
    variable = ot.Variable(np.float32([1, 2]), name="weights")
    variable.assign([3, 4])
    np.testing.assert_array_equal(variable.numpy(), np.float32([3, 4]))
    variable.assign_add(np.float64([1, 1])).assign_sub(0.5)
    np.testing.assert_array_equal(variable.numpy(), np.float32([3.5, 4.5]))
    for wrong in (np.zeros(3), np.zeros((1, 2)), 1.0):
        with pytest.raises(VariableError, match=r"variable 'weights' has shape \(2,\) and cannot"):
            variable.assign(wrong)
    with pytest.raises(VariableError, match=r"test_variable\.py"):
        variable.assign(np.zeros(3))
    np.testing.assert_array_equal(variable.numpy(), np.float32([3.5, 4.5]))


def test_an_assigned_array_stays_the_callers() -> None:
    array = np.float32([1, 2])
    tensor = ot.convert_to_tensor(array)
    for value in (array, tensor, np.asfortranarray(array)):
        variable = ot.Variable([0.0, 0.0])
        variable.assign(value)
        increment(variable)()
        np.testing.assert_array_equal(variable.numpy(), [2, 3])
        np.testing.assert_array_equal(array, [1, 2])
    array[:] = 7
    np.testing.assert_array_equal(variable.numpy(), [2, 3])


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_is_a_variable_of_its_own(duplicate: Callable[[Any], Any]) -> None:
    variable = ot.Variable([1.0, 2.0], trainable=False, name="w", role="metric")
    step = increment(variable)
    step()
    other = duplicate(variable)
    step()
    np.testing.assert_array_equal(variable.numpy(), [3, 4])
    np.testing.assert_array_equal(other.numpy(), [2, 3])
    assert (other.name, other.role, other.trainable) == ("w", "metric", False)
    increment(other)()
    np.testing.assert_array_equal(other.numpy(), [3, 4])


# Snapshots ---------------------------------------------------------------------------------------


def increment(variable: ot.Variable) -> Any:
    """A compiled step, which overwrites the variable in place."""

    @ot.function
    def step() -> Any:
        return variable.assign_add(ot.ops.ones(variable.shape))

    return step


@pytest.mark.parametrize(
    "hold",
    [
        lambda v: v.value,
        lambda v: v.numpy(),
        lambda v: v.value.numpy(),
        lambda v: np.asarray(v.value),
        lambda v: np.asarray(v),
        lambda v: np.from_dlpack(v.value),
        lambda v: v.value.numpy()[1:],
        lambda v: v * 1,
        lambda v: v[1:],
        lambda v: ot.ops.reshape(v, (2, 1)),
        lambda v: ot.ops.expand_dims(v, 0),
        lambda v: ot.ops.squeeze(ot.ops.reshape(v, (2, 1))),
        lambda v: ot.ops.transpose(v),
        lambda v: ot.ops.broadcast_to(v, (2,)),
        lambda v: ot.ops.stop_gradient(v),
        lambda v: ot.ops.cast(v, "float32"),
        lambda v: ot.convert_to_tensor(v),
        lambda v: ot.engine.B.op("Identity", v.value),
        lambda v: ot.Variable(v),
        lambda v: ot.Variable([0.0, 0.0]).assign(v),
        lambda v: ot.function(lambda: v.value)(),
        lambda v: copy.copy(v.value),
    ],
    ids=[
        "value",
        "numpy",
        "value.numpy",
        "asarray of value",
        "asarray",
        "dlpack",
        "view",
        "product",
        "slice",
        "reshape",
        "expand_dims",
        "squeeze",
        "transpose",
        "broadcast",
        "stop_gradient",
        "cast",
        "convert",
        "Identity",
        "Variable",
        "assigned to another",
        "compiled result",
        "copy",
    ],
)
def test_whatever_was_taken_from_a_variable_keeps_its_numbers(hold: Callable[[Any], Any]) -> None:
    variable = ot.Variable([1.0, 2.0])
    step = increment(variable)
    step()
    held = hold(variable)
    before = np.array(held)
    for _ in range(3):
        step()
    np.testing.assert_array_equal(np.array(held), before)
    np.testing.assert_array_equal(variable.numpy(), [5, 6])


def test_results_of_a_step_keep_their_numbers() -> None:
    variable = ot.Variable([1.0, 2.0])
    step = increment(variable)
    results = [step() for _ in range(4)]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, [2 + i, 3 + i])


def test_a_computed_tensor_stays_the_holders_when_it_is_assigned() -> None:
    variable, other = ot.Variable([0.0, 0.0]), ot.Variable([0.0, 0.0])
    step = increment(variable)
    tensor = ot.convert_to_tensor(np.float32([1, 2])) * 2
    variable.assign(tensor)
    other.assign(tensor)
    for _ in range(2):
        step()
    np.testing.assert_array_equal(tensor, [2, 4])
    np.testing.assert_array_equal(other.numpy(), [2, 4])
    np.testing.assert_array_equal(variable.numpy(), [4, 6])


def test_a_result_that_is_assigned_stays_the_holders() -> None:
    variable = ot.Variable([1.0, 2.0])
    step = increment(variable)
    double = ot.function(lambda x: x * 2)
    result = double(np.float32([1, 2]))
    variable.assign(result)
    step()
    np.testing.assert_array_equal(result, [2, 4])
    variable.assign(double(np.float32([5, 6])))  # nobody else holds this one
    where = pointer(variable)
    step()
    assert pointer(variable) == where
    np.testing.assert_array_equal(variable.numpy(), [11, 13])


def test_an_export_holds_its_snapshot(tmp_path: Any) -> None:
    training = Training(dropout=0.0)
    data = batches(3)
    training.run(data)
    session = ot.TrainingSession(training.step.export(tmp_path / "artifact"))
    exported = session.state_dict()
    training.run(data)
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, exported[name])


# Several users of one variable -------------------------------------------------------------------


def test_functions_and_eager_code_take_turns() -> None:
    variable = ot.Variable([1.0, 2.0])
    add = increment(variable)
    double = ot.function(lambda: variable.assign(variable * 2))
    read = ot.function(lambda: variable * 1)
    expected = np.float32([1, 2])
    held: list[tuple[Any, Array]] = []
    for i in range(12):
        if i % 4 == 0:
            add()
            expected = expected + 1
        elif i % 4 == 1:
            double()
            expected = expected * 2
        elif i % 4 == 2:
            variable.assign(variable * 3 - 1)
            expected = expected * 3 - 1
        else:
            variable.assign(np.float32([i, -i]))
            expected = np.float32([i, -i])
        held += [(variable.value, expected), (read(), expected)]
        np.testing.assert_array_equal(variable.numpy(), expected)
    for value, numbers in held:
        np.testing.assert_array_equal(value, numbers)


def test_a_training_and_an_evaluation_function_share_their_weights() -> None:
    training = Training()
    evaluate = ot.function(lambda x: training.model(x))
    (x, y), *_ = batches(1)
    for _ in range(5):
        training.step(x, y)
        eager = training.model(x)
        np.testing.assert_allclose(evaluate(x), eager, rtol=1e-5, atol=1e-6)
    assert (training.step.trace_count, evaluate.trace_count) == (1, 1)


# In place ----------------------------------------------------------------------------------------


def test_every_assigned_state_is_updated_in_place() -> None:
    training = Training()
    (x, y), *_ = batches(1)
    function = training.step.get_concrete_function(x, y)
    assigned = [entry.name for entry in function.state if entry.output_name is not None]
    # 4 weights with 2 averages each, the iterations, 2 of the metric, the generator.
    assert len(assigned) == 16
    assert function.in_place_count == len(assigned)
    assert [e.name for e in function.state if e.output_name is None] == ["adam/learning_rate"]


def test_the_state_never_moves() -> None:
    training = Training()
    data = batches(5, last=7)
    training.run(data)
    function = training.step.get_concrete_function(*data[0])
    where = {variable.path: pointer(variable) for variable in function.variables}
    for _ in range(10):
        training.run(data)
        [variable.numpy() for variable in function.variables]
    assert {variable.path: pointer(variable) for variable in function.variables} == where


def test_a_state_that_somebody_holds_moves_once() -> None:
    variable = ot.Variable([1.0, 2.0])
    step = increment(variable)
    step()
    first = pointer(variable)
    held = variable.value
    step()
    second = pointer(variable)
    assert second != first
    step()
    assert pointer(variable) == second
    np.testing.assert_array_equal(held, [2, 3])


def test_in_place_and_alternating_buffers_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = batches(20, last=5)
    states = []
    for in_place in (True, False):
        if not in_place:
            monkeypatch.setattr(compilation, "packs_updates", lambda traced, providers: False)
            monkeypatch.setattr(compilation, "schedule_updates", lambda *_: frozenset())
        training = Training()
        training.restart_masks()
        losses = [training.run(data) for _ in range(10)]
        function = training.step.get_concrete_function(*data[0])
        assert (function.in_place_count > 0) == in_place
        states.append([np.asarray(losses), *training.state()])
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


#: What a random program is made of: each takes two values and gives a new one.
STATEMENTS: dict[str, Callable[[Any, Any], Any]] = {
    "copy": lambda a, b: a,
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: ot.ops.tanh(a - 2 * b),
    "multiply": lambda a, b: a * b,
    "matmul": lambda a, b: ot.ops.tanh(ot.ops.matmul(a, b)),
    "transpose": lambda a, b: ot.ops.transpose(a),
    "reshape": lambda a, b: ot.ops.reshape(ot.ops.reshape(a, (-1,)), (3, 3)) * 0.5,
    "row": lambda a, b: ot.ops.tanh(a + b[:1]),
    "column": lambda a, b: ot.ops.tanh(a + ot.ops.transpose(a[:1])),
    "relu": lambda a, b: ot.ops.relu(a) - 0.25,
    "maximum": lambda a, b: ot.ops.maximum(a, b) * 0.9,
    "where": lambda a, b: ot.ops.where(a > b, b, 0.5 * a),
    "sum": lambda a, b: ot.ops.tanh(ot.ops.sum(a, axis=0, keepdims=True) + b),
    "constant": lambda a, b: ot.ops.ones((3, 3)) * 0.1,
}
place = st.integers(0, 3)
programs = st.lists(
    st.tuples(st.sampled_from(sorted(STATEMENTS)), place, place, st.integers(0, 2)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(program=programs)
def test_random_programs_of_reading_and_assigning(program: list[tuple[str, int, int, int]]) -> None:
    """Places 0 to 2 are variables, 3 is the batch; each statement reads two and assigns one."""
    rng = np.random.default_rng(len(program))
    initial = rng.uniform(-1, 1, (3, 3, 3)).astype(np.float32)

    def step_on(variables: list[ot.Variable]) -> Callable[[Any], Any]:
        def step(x: Any) -> Any:
            seen = []
            for name, first, second, target in program:
                a, b = (x if i == 3 else variables[i].value for i in (first, second))
                seen.append(a)
                variables[target].assign(STATEMENTS[name](a, b))
            return seen

        return step

    eager_variables = [ot.Variable(array) for array in initial]
    compiled_variables = [ot.Variable(array) for array in initial]
    eager_step = step_on(eager_variables)
    compiled_step = ot.function(step_on(compiled_variables), fallback="error")
    for i in range(4):
        x = rng.uniform(-1, 1, (3, 3)).astype(np.float32)
        expected = eager_step(ot.convert_to_tensor(x))
        for one, other in zip(compiled_step(x), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=f"step {i}")
        for mine, theirs in zip(compiled_variables, eager_variables, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


class ReadAfterUpdate:
    """A step whose backward pass reads the weight that its update overwrites.

    The results, in NumPy: h = x w, w' = w - x^T h, and h w^T, which needs the old w.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((4, 8), dtype=np.float32)
        self.initial = rng.standard_normal((8, 8), dtype=np.float32)
        self.weight = ot.Variable(self.initial, name="weight")

        @ot.function
        def step(x: Any) -> Any:
            old = self.weight.value
            h = x @ old
            self.weight.assign(old - ot.ops.transpose(x) @ h)
            return {"back": h @ ot.ops.transpose(old)}

        self.step = step

    def expected(self, w: Array) -> tuple[Array, Array]:
        """The result and the new weight."""
        h = self.x @ w
        return h @ w.T, w - self.x.T @ h

    def run_naively(self, **options: Any) -> Array:
        """The result when the session is bound in place and runs in an order of its own."""
        function = self.step.get_concrete_function(self.x)
        (state,) = function.state
        session = create_session(function.model.SerializeToString(), **options)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(self.initial.copy())
        binding = session.io_binding()
        binding.bind_cpu_input("x", self.x)
        binding.bind_ortvalue_input(state.input_name, value)
        binding.bind_output("back")
        binding.bind_ortvalue_output(state.output_name, value)
        session.run_with_iobinding(binding)
        result: Array = binding.get_outputs()[0].numpy()
        return result


def test_the_backward_pass_reads_the_weight_before_it_is_overwritten() -> None:
    case = ReadAfterUpdate()
    function = case.step.get_concrete_function(case.x)
    assert function.in_place_count == 1
    weight = case.initial
    for _ in range(3):
        back, weight = case.expected(weight)
        np.testing.assert_allclose(case.step(case.x)["back"], back, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(case.weight.numpy(), weight, rtol=1e-3, atol=1e-3)
        case.weight.assign(weight)


def test_without_a_schedule_it_would_read_the_new_weight() -> None:
    """So the test above can fail: the same graph, bound in place, in orders nobody checked."""
    case = ReadAfterUpdate()
    back, new = case.expected(case.initial)
    h = case.x @ case.initial
    corrupted = h @ new.T
    assert not np.allclose(back, corrupted, rtol=1e-2)
    found = {
        name: case.run_naively(optimize=False, in_order=in_order)
        for name, in_order in (("default order", False), ("file order", True))
    }
    for result in found.values():
        right = np.allclose(result, back, rtol=1e-3, atol=1e-3)
        assert right or np.allclose(result, corrupted, rtol=1e-3, atol=1e-3)
    # In the order of the file the update comes first: it was traced first.
    np.testing.assert_allclose(found["file order"], corrupted, rtol=1e-3, atol=1e-3)
