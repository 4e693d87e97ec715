"""What `ot.function` takes: any arguments, or those of an `input_signature`."""

from __future__ import annotations

import re
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import InputError
from tests.frontend.samples import Array, floats

Pair = namedtuple("Pair", ["first", "second"])


class Point(NamedTuple):
    x: Any
    y: Any


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
