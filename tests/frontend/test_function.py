"""`ot.function`: when it traces, what it takes and returns, and that it changes no number."""

from __future__ import annotations

import dataclasses
import functools
import gc
import re
import threading
import weakref
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import onnxtape as ot
from onnxtape.errors import InputError, ShapeError, TracingError, VariableError
from tests.frontend.training import CLASSES, Training, batches

Array = npt.NDArray[Any]
Pair = namedtuple("Pair", ["first", "second"])


class Point(NamedTuple):
    x: Any
    y: Any


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


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


# What it takes -----------------------------------------------------------------------------------


def test_nested_arguments_and_results() -> None:
    @ot.function
    def step(batch: Any, *, pair: Any) -> Any:
        total = batch["x"] + batch["more"][0] * batch["more"][1]
        return {
            "sum": total,
            "list": [total * 2, (total * 3,)],
            "point": Point(batch["x"], pair.first - pair.second),
            "nothing": None,
            "text": "constant",
        }

    x, a, b = floats(2, 3), floats(2, 3, seed=1), floats(2, 3, seed=2)
    result = step({"x": x, "more": [a, b]}, pair=Pair(a, b))
    np.testing.assert_allclose(result["sum"], x + a * b, rtol=1e-6)
    np.testing.assert_allclose(result["list"][1][0], 3 * (x + a * b), rtol=1e-6)
    assert isinstance(result["list"][1], tuple)
    assert isinstance(result["point"], Point)
    np.testing.assert_array_equal(result["point"].x, x)
    np.testing.assert_array_equal(result["point"].y, a - b)
    assert result["nothing"] is None
    assert result["text"] == "constant"
    names = [
        spec.name
        for spec in step.get_concrete_function({"x": x, "more": [a, b]}, pair=Pair(a, b)).inputs
    ]
    assert names == ["batch.x", "batch.more.0", "batch.more.1", "pair.first", "pair.second"]


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
def test_every_mapping_is_a_nested_argument(kind: Callable[..., Any]) -> None:
    total = ot.function(lambda batch: batch["x"] + 1)
    batch = kind(x=floats(3))
    np.testing.assert_array_equal(total(batch), batch["x"] + 1)
    batch["x"] = floats(3, seed=1)
    np.testing.assert_array_equal(total(batch), batch["x"] + 1)
    assert total.trace_count == 1


def test_other_keys_are_another_trace() -> None:
    total = ot.function(lambda batch: sum(batch.values()))
    assert float(total({"a": floats(), "b": floats()})) == pytest.approx(2 * float(floats()))
    assert float(total({"a": floats()})) == float(floats())
    assert total.trace_count == 2


@pytest.mark.parametrize("result", [None, 3, 2.5, "text", True, (), {}, [None]])
def test_results_without_tensors(result: Any) -> None:
    constant = ot.function(lambda x: result)
    for _ in range(2):
        assert constant(floats(2)) == result


def test_a_function_of_nothing_and_one_that_only_assigns() -> None:
    counter = ot.Variable(0.0)

    @ot.function
    def count() -> None:
        counter.assign_add(1.0)

    for _ in range(3):
        assert count() is None
    assert float(counter) == 3.0


def test_numbers_are_constants_until_they_change() -> None:
    scale = ot.function(lambda x, factor, offset: x * factor + offset)
    x = floats(3)
    np.testing.assert_allclose(scale(x, 2.0, 1), x * 2 + 1, rtol=1e-6)
    np.testing.assert_allclose(scale(x, 2.0, 1), x * 2 + 1, rtol=1e-6)
    assert scale.trace_count == 1
    for factor in (3.0, 0.1, 2.0, float("inf")):
        np.testing.assert_allclose(scale(x, factor, 1), x * np.float32(factor) + 1, rtol=1e-6)
    assert scale.trace_count == 2
    for offset in (5, 6, 7):
        np.testing.assert_allclose(scale(x, 0.5, offset), x * 0.5 + offset, rtol=1e-6)
    assert scale.trace_count == 3
    concrete = scale.get_concrete_function(x, 0.5, 9)
    assert [spec.name for spec in concrete.inputs] == ["x", "factor", "offset"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32", "int64"])
def test_a_number_that_became_an_input_changes_no_dtype_and_no_digit(dtype: str) -> None:
    def combine(x: Any, number: Any) -> Any:
        return ot.ops.maximum(x * number, number - x)

    compiled = ot.function(combine)
    x = np.asarray([1, 2, 3], dtype)
    numbers = (2, 3, 5) if "int" in dtype else (0.1, 0.2, 0.3)
    for number in numbers:
        eager = combine(ot.convert_to_tensor(x), number)
        result = compiled(x, number)
        assert result.dtype == eager.dtype
        # Inside a graph ONNX Runtime computes float16 in float32.
        np.testing.assert_allclose(result, eager, rtol=1e-3 if dtype == "float16" else 0)
    assert compiled.trace_count == 2


@pytest.mark.parametrize(
    "use",
    [
        lambda x, n: x[:, :n],
        lambda x, n: ot.ops.sum(x, axis=n - 1),
        lambda x, n: x * 2 if n > 1 else x,
        lambda x, n: x * {1: 3.0, 2: 5.0}[n],
        lambda x, n: sum((x for _ in range(n)), x),
    ],
    ids=["slice", "axis", "if", "key", "range"],
)
def test_a_number_that_python_needs_stays_a_constant(use: Callable[..., Any]) -> None:
    compiled = ot.function(use, fallback="error")
    x = floats(3, 4)
    for n in (1, 2, 1, 2):
        np.testing.assert_allclose(compiled(x, n), use(ot.convert_to_tensor(x), n), rtol=1e-6)
    traces = compiled.trace_count
    compiled(x, 1)
    assert compiled.trace_count == traces
    assert compiled.fallback_reason is None


def test_flags_and_names_have_a_trace_for_each_value() -> None:
    @ot.function
    def activate(x: Any, kind: str = "relu", negate: bool = False) -> Any:
        result = ot.ops.relu(x) if kind == "relu" else ot.ops.tanh(x)
        return -result if negate else result

    x = floats(4)
    np.testing.assert_array_equal(activate(x), np.maximum(x, 0))
    np.testing.assert_array_equal(activate(x, negate=True), -np.maximum(x, 0))
    np.testing.assert_allclose(activate(x, "tanh"), np.tanh(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(activate(x, "relu", False), np.maximum(x, 0))
    assert activate.trace_count == 3
    np.testing.assert_array_equal(activate(x, negate=np.float32(1) > 0), -np.maximum(x, 0))


def test_every_kind_of_parameter() -> None:
    @ot.function
    def everything(a: Any, b: Any = 2.0, *rest: Any, c: Any, d: Any = None, **more: Any) -> Any:
        total = a * b + c
        for part in (*rest, *more.values()):
            total = total + part
        return total if d is None else total * d

    x = floats(3)
    np.testing.assert_allclose(everything(x, c=x), x * 2 + x, rtol=1e-6)
    np.testing.assert_allclose(everything(x, x, x, x, c=x), x * x + 3 * x, rtol=1e-5)
    np.testing.assert_allclose(everything(a=x, b=x, c=x, d=x), (x * x + x) * x, rtol=1e-5)
    np.testing.assert_allclose(everything(x, c=x, extra=x), 4 * x, rtol=1e-6)


def test_positional_only_parameters_and_wrong_calls() -> None:
    @ot.function
    def add(a: Any, b: Any, /) -> Any:
        return a + b

    np.testing.assert_array_equal(add(floats(2), floats(2)), 2 * floats(2))
    with pytest.raises(TypeError, match=re.escape("add() missing a required argument: 'b'")):
        add(floats(2))
    with pytest.raises(TypeError, match=re.escape("add() too many positional arguments")):
        add(1, 2, 3)

    @ot.function
    def train_step(x: Any, y: Any, *, rate: float = 0.1) -> Any:
        return x + y + rate

    takes = "it is train_step(x, y, *, rate=0.1)"
    for call, wanted in (
        (lambda: train_step(x=1, labels=2), "got an unexpected keyword argument 'labels'"),
        (lambda: train_step(1, 2, labels=2), "got an unexpected keyword argument 'labels'"),
        (lambda: train_step(1, y=2, x=2), "multiple values for argument 'x'"),
        (lambda: train_step(1), "missing a required argument: 'y'"),
    ):
        with pytest.raises(TypeError, match=re.escape(f"train_step() {wanted}; {takes}")):
            call()


def test_the_arguments_of_tf_function() -> None:
    """Those that mean nothing here are taken; the others say what to write."""
    for options in ({"jit_compile": True}, {"jit_compile": False, "reduce_retracing": True}):
        assert ot.function(**options)(lambda x: x + 1)(floats(2)).shape == (2,)
        assert ot.function(lambda x: x + 1, **options)(floats(2)).shape == (2,)
    for name, advice in (
        ("autograph", "autograph': Python's `if` and `while` are never rewritten here: leave it"),
        ("experimental_relax_shapes", "sizes that change become symbolic anyway"),
        ("providers_", "has no argument 'providers_'; did you mean 'providers'?"),
        ("wrong", "it has f, input_signature, fallback, providers, memory_budget, jit_compile"),
    ):
        with pytest.raises(TypeError, match=re.escape(advice)):
            ot.function(**{name: True})


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a[:, 1:],
        np.asfortranarray,
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a.astype(np.float64),
        lambda a: a[0, 0],
    ],
    ids=["T", "step", "reverse", "columns", "fortran", "broadcast", "float64", "scalar"],
)
def test_arrays_of_every_layout(view: Callable[[Array], Array]) -> None:
    x = view(floats(4, 6))
    result = ot.function(lambda x: x * 2)(x)
    assert result.dtype == x.dtype
    np.testing.assert_array_equal(result, np.asarray(x) * 2)


def test_a_read_only_array_is_read() -> None:
    x = floats(3)
    x.flags.writeable = False
    np.testing.assert_array_equal(ot.function(lambda x: x + 1)(x), x + 1)


class OnlyDLPack:
    """What another library's tensor looks like to us."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_tensors_of_other_libraries() -> None:
    double = ot.function(lambda x: x * 2)
    for seed in range(2):
        x = floats(3, seed=seed)
        np.testing.assert_array_equal(double(OnlyDLPack(x)), x * 2)
    assert double.trace_count == 1


@pytest.mark.parametrize("dtype", [">f4", object, "U3", "datetime64[s]"])
def test_arrays_that_no_tensor_holds(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"argument 'batch\.x': cannot make a tensor of dtype"):
        ot.function(lambda batch: batch["x"])({"x": np.zeros(2, dtype)})


def test_objects_are_constants_by_identity() -> None:
    class Config:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    scaled = ot.function(lambda x, config: x * config.scale)
    one, two = Config(1.0), Config(2.0)
    for config in (one, two, one, two):
        np.testing.assert_array_equal(scaled(floats(2), config), floats(2) * config.scale)
    assert scaled.trace_count == 2


def test_a_variable_as_an_argument_is_read_and_assigned() -> None:
    @ot.function
    def add_to(variable: Any, x: Any) -> Any:
        variable.assign_add(x)
        return variable.value

    a, b = ot.Variable([1.0, 2.0]), ot.Variable([3.0, 4.0])
    for _ in range(2):
        add_to(a, np.float32([1, 1]))
    np.testing.assert_array_equal(add_to(b, np.float32([1, 1])), [4, 5])
    np.testing.assert_array_equal(a.numpy(), [3, 4])
    assert add_to.trace_count == 2


def test_many_traces_draw_a_warning() -> None:
    constant = ot.function(lambda x, tag: x)
    for i in range(7):
        constant(floats(1), f"tag {i}")
    with pytest.warns(UserWarning, match="'<lambda>' has been traced for 8 combinations") as caught:
        constant(floats(1), "tag 7")
    assert caught[0].filename == __file__

    shaped = ot.function(lambda x: x * int(x.shape[0]))
    for i in range(1, 9):
        shaped(floats(i))
    with pytest.warns(UserWarning, match=r"needs a trace for each shape.*ops\.shape") as caught:
        shaped(floats(9))
    assert caught[0].filename == __file__


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


# Methods, functions in functions -----------------------------------------------------------------


class Accumulator:
    def __init__(self, start: float) -> None:
        self.total = ot.Variable(start)

    @ot.function
    def add(self, x: Any, *, times: int = 1) -> Any:
        """Add to the total."""
        self.total.assign_add(ot.ops.sum(x) * times)
        return self.total.value


def test_methods_have_their_instances_state_and_traces() -> None:
    one, two = Accumulator(0.0), Accumulator(100.0)
    assert float(one.add(np.float32([1, 2]))) == 3
    assert float(two.add(np.float32([1, 2]), times=2)) == 106
    assert float(one.add(np.float32([1, 2, 3]))) == 9
    assert (one.add.trace_count, two.add.trace_count) == (2, 1)
    assert one.add.__doc__ == "Add to the total."
    assert one.add.__name__ == "add"


def test_a_method_keeps_its_instance_and_the_class_does_not() -> None:
    add = Accumulator(5.0).add
    gc.collect()
    assert float(add(np.float32([1]))) == 6
    reference = weakref.ref(add._instance)
    del add
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("frozen", [False, True])
def test_methods_of_dataclasses(frozen: bool) -> None:
    """They have no hash, or are equal where they are not the same."""

    @dataclasses.dataclass(frozen=frozen)
    class Scaled:
        factor: float
        seen: list[Any] = dataclasses.field(default_factory=list, compare=False)

        @ot.function
        def scale(self, x: Any) -> Any:
            self.seen.append(1)
            return x * self.factor

    one, two = Scaled(2.0), Scaled(2.0)
    for instance in (one, two, one):
        np.testing.assert_array_equal(instance.scale(floats(2)), floats(2) * 2)
    assert (one.seen, two.seen) == ([1], [1])
    assert len(Scaled.scale._methods) == 2
    del one, two, instance
    gc.collect()
    assert len(Scaled.scale._methods) == 0


def test_callable_objects_and_partials() -> None:
    model = ot.Sequential([ot.Input((3,)), ot.layers.Dense(2)])
    np.testing.assert_allclose(ot.function(model)(floats(4, 3)), model(floats(4, 3)), rtol=1e-5)
    add = ot.function(functools.partial(lambda a, b: a + b, b=2.0))
    np.testing.assert_array_equal(add(floats(3)), floats(3) + 2)


def test_static_and_class_methods_and_super() -> None:
    class Base:
        offset = 3.0

        @staticmethod
        @ot.function
        def static(x: Any) -> Any:
            return x + 1

        @classmethod
        @ot.function
        def of_class(cls, x: Any) -> Any:
            return x + cls.offset

        @ot.function(fallback="error")
        def method(self, x: Any) -> Any:
            return x + 5

    class Derived(Base):
        @ot.function
        def method(self, x: Any) -> Any:
            return super().method(x) * 2

    x = floats(2)
    np.testing.assert_array_equal(Base.static(x), x + 1)
    np.testing.assert_array_equal(Derived().static(x), x + 1)
    np.testing.assert_array_equal(Derived.of_class(x), x + 3)
    np.testing.assert_array_equal(Derived().method(x), (x + 5) * 2)


def test_functions_in_functions_become_one_graph() -> None:
    @ot.function
    def square(x: Any) -> Any:
        return x * x

    @ot.function
    def outer(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = square(x)
        return y, tape.gradient(y, x)

    value, gradient = outer(floats(3))
    np.testing.assert_allclose(value, floats(3) ** 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * floats(3), rtol=1e-6)
    assert square.trace_count == 0


def test_an_eager_tape_sees_into_a_compiled_function() -> None:
    weight = ot.Variable(3.0)
    compiled = ot.function(lambda x: x * x * weight)
    x = ot.convert_to_tensor(np.float32(2))
    assert float(compiled(x)) == 12
    with ot.GradientTape() as tape:
        tape.watch(x)
        y = compiled(x)
    assert [float(g) for g in tape.gradient(y, [x, weight])] == [12, 4]


def test_a_compiled_function_in_a_functional_model() -> None:
    double = ot.function(lambda x: x * 2)
    inputs = ot.Input((3,))
    model = ot.Model(inputs, double(inputs))
    np.testing.assert_array_equal(model(floats(2, 3)), floats(2, 3) * 2)


def test_nothing_keeps_a_function_and_its_variables_alive() -> None:
    def make() -> list[Any]:
        training = Training()
        training.run(batches(2, last=3))
        kept = [training, training.step, training.model.variables[0]]
        return [weakref.ref(x) for x in kept]

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


# input_signature ---------------------------------------------------------------------------------


def test_a_signature_decides_shapes_up_front() -> None:
    spec = ot.TensorSpec((None, 3), "float32")
    double = ot.function(lambda x: x * 2, input_signature=[spec])
    for rows in (4, 0, 7):
        np.testing.assert_array_equal(double(floats(rows, 3)), floats(rows, 3) * 2)
    assert double.trace_count == 1
    assert double.get_concrete_function().inputs[0].shape == ("batch", 3)
    assert double.trace_count == 1


def test_a_signature_converts_what_keeps_its_kind() -> None:
    specs = [ot.TensorSpec((2,), "float32", name="features"), ot.TensorSpec((), "float64")]
    scaled = ot.function(lambda x, y: (x * 2, y * 3), input_signature=specs)
    doubled, tripled = scaled(floats(2).astype(np.float64), 0.1)
    np.testing.assert_array_equal(doubled, floats(2) * 2)
    assert tripled.dtype == "float64"
    assert float(tripled) == 0.1 * 3
    assert [s.name for s in scaled.get_concrete_function().inputs] == ["features", "y"]


def signed() -> Any:
    specs = [{"x": ot.TensorSpec((None, 3))}, ot.TensorSpec((None,), "int32")]

    @ot.function(input_signature=specs)
    def step(batch: Any, labels: Any, scale: float = 2.0) -> Any:
        return batch["x"] * scale, labels

    return step


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (({"x": floats(2, 4)}, np.zeros(2, np.int32)), r"'batch\.x' has shape \(2, 4\)"),
        (({"x": floats(2)}, np.zeros(2, np.int32)), r"'batch\.x' has shape \(2,\)"),
        (({"x": floats(2, 3)}, floats(2)), "'labels' has dtype float32; int32 is needed"),
        (
            ({"x": floats(2, 3)}, ot.convert_to_tensor(floats(2))),
            "'labels' has dtype float32, but input_signature declares int32",
        ),
        (
            ({"x": floats(2, 3)}, np.asarray([2**40])),
            "'labels' holds whole numbers that do not fit",
        ),
        (
            (floats(2, 3), np.zeros(2, np.int32)),
            "'batch' is not nested as input_signature declares",
        ),
        (
            ({"x": floats(2, 3)}, np.zeros(2, np.int32), floats(1)),
            "takes 2 tensors by its input_signature, but was given 3",
        ),
    ],
    ids=["size", "rank", "dtype", "tensor dtype", "overflow", "nesting", "number"],
)
def test_a_signature_refuses_by_name(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InputError, match=rf"step\(\).*{text}"):
        signed()(*arguments)


def test_parameters_without_a_spec_take_constants() -> None:
    step = signed()
    for scale in (2.0, 3.0):
        result, _ = step({"x": floats(2, 3)}, np.zeros(2, np.int32), scale)
        np.testing.assert_array_equal(result, floats(2, 3) * np.float32(scale))


def test_a_signature_with_one_symbol_for_sizes_that_differ() -> None:
    specs = [ot.TensorSpec((None, 3)), ot.TensorSpec((None, 3))]
    add = ot.function(lambda x, y: x + y, input_signature=specs)
    np.testing.assert_array_equal(add(floats(2, 3), floats(2, 3)), 2 * floats(2, 3))
    np.testing.assert_array_equal(add(floats(2, 3), floats(1, 3)), floats(2, 3) + floats(1, 3))
    np.testing.assert_array_equal(add(floats(4, 3), floats(1, 3)), floats(4, 3) + floats(1, 3))


def test_signatures_that_fit_no_function() -> None:
    with pytest.raises(ValueError, match=r"has 2 entries, but <lambda>\(\) has 1 parameters"):
        ot.function(lambda x: x, input_signature=[ot.TensorSpec(()), ot.TensorSpec(())])
    with pytest.raises(TypeError, match=r"declares 'x\.0' of <lambda>\(\) by a NoneType"):
        ot.function(lambda x: x, input_signature=[(None, 3)])


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


# Errors ------------------------------------------------------------------------------------------


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
    with pytest.raises(ot.errors.ExecutionError, match=rf"Gather(?s:.*)test_function\.py:{line}$"):
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


# Eager execution, threads ------------------------------------------------------------------------


def test_run_functions_eagerly() -> None:
    seen: list[bool] = []

    @ot.function
    def step(x: Any) -> Any:
        seen.append(x is given)
        return x + 1

    given = ot.convert_to_tensor(floats(2))
    ot.run_functions_eagerly(True)
    for _ in range(2):
        step(given)
    assert seen == [True, True]
    assert step.trace_count == 0
    ot.run_functions_eagerly(False)
    for _ in range(2):
        step(given)
    assert seen == [True, True, False]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors[0]


def test_threads_that_call_one_function() -> None:
    total = ot.Variable(0.0)

    @ot.function
    def step(x: Any) -> Any:
        total.assign_add(1.0)
        return ot.ops.matmul(x, ot.ops.transpose(x))

    def work(i: int) -> None:
        for k in range(50):
            x = floats(3 + (i + k) % 3, 4, seed=i)
            np.testing.assert_allclose(step(x), x @ x.T, rtol=1e-4, atol=1e-5)

    in_threads(4, work)
    assert float(total) == 200
    assert step.trace_count <= 3


def test_a_trace_in_one_thread_does_not_touch_another() -> None:
    inside, outside = threading.Event(), threading.Event()

    @ot.function
    def step(x: Any) -> Any:
        y = x + 1
        inside.set()
        assert outside.wait(30)
        return y * 2

    def work(i: int) -> None:
        if i == 0:
            np.testing.assert_array_equal(step(floats(3)), (floats(3) + 1) * 2)
            return
        assert inside.wait(30)
        x = ot.convert_to_tensor(floats(3))
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = x * x
        np.testing.assert_array_equal(tape.gradient(y, x), 2 * floats(3))
        outside.set()

    in_threads(2, work)


def test_a_symbolic_tensor_is_refused_by_a_concrete_function() -> None:
    leaked: list[Any] = []
    step = ot.function(lambda x: leaked.append(x) or x + 1)
    step(floats(2))
    with pytest.raises(TracingError, match="a tensor of a finished trace"):
        step.get_concrete_function(floats(2))(leaked[0])


def test_a_variable_made_on_a_later_trace_is_refused_in_one_traceback() -> None:
    made = []

    @ot.function
    def step(x: Any) -> Any:
        made.append(ot.Variable(np.float32(1)))
        return x * made[-1]

    step(np.ones(4, np.float32))
    with pytest.raises(ot.errors.VariableError, match="on a call other than its first") as refusal:
        step(np.ones(5, np.float32))
    assert refusal.value.__context__ is None
