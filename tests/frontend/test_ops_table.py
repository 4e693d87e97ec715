"""Every operation against NumPy: eagerly, and compiled with a symbolic batch dimension."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.frontend.op_cases import CASES, Case
from tests.frontend.op_cases.case import Array

#: Those of namespaces by their dotted names.
OPERATIONS = {*ot.ops.__all__, *(f"image.{name}" for name in ot.ops.image.__all__)}
#: What takes functions is in test_control_flow.py and test_ops_functions.py, and what gives no
#: tensor too.
OPERATIONS -= set(ot.ops.control_flow.__all__)
OPERATIONS -= {"associative_scan", "custom_gradient", "jvp", "vectorized_map"}
OPERATIONS -= {"convert_to_numpy", "dtype", "is_tensor"}

#: Operations through which no gradient flows, and why there is no gradient case.
WITHOUT_GRADIENT = {
    **dict.fromkeys(
        ["angle", "floor", "ceil", "round", "sign", "floor_divide", "heaviside", "trunc"],
        "piecewise constant",
    ),
    **dict.fromkeys(
        [
            *["arange", "bartlett", "blackman", "empty", "empty_like", "eye", "full_like"],
            *["hamming", "hanning", "identity", "imag", "kaiser", "ones", "ones_like", "tri"],
            *["zeros", "zeros_like"],
        ],
        "made of numbers",
    ),
    **dict.fromkeys(
        [
            name
            for name in ot.ops.__all__
            if name.startswith(("bitwise", "logical", "is")) and name in OPERATIONS - {"istft"}
        ],
        "not of floats",
    ),
    **dict.fromkeys(["gcd", "lcm", "left_shift", "right_shift"], "of integers"),
    **dict.fromkeys(
        [
            *["equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "all", "any"],
            *["allclose", "in_top_k", "signbit"],
        ],
        "to booleans",
    ),
    **dict.fromkeys(
        [
            *["argmax", "argmin", "argpartition", "argsort", "count_nonzero", "digitize"],
            *["multi_hot", "nanargmax", "nanargmin", "ndim", "nonzero", "one_hot"],
            *["searchsorted", "shape", "size", "unravel_index"],
        ],
        "to integers",
    ),
    "histogram": "counts; its edges are steps of the elements",
    "stop_gradient": "that is its purpose; see below",
    "unique": "which elements there are depends on all of them, by jumps",
}

TOLERANCES = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-12}


def ids(cases: Sequence[Case]) -> list[str]:
    return [case.id for case in cases]


def arrays(case: Case) -> list[Array]:
    return [tensor.array for tensor in case.tensors()]


def grown(case: Case) -> list[Array]:
    return [tensor.grown().array for tensor in case.tensors()]


def apply(case: Case, tensors: Sequence[Any]) -> list[Any]:
    queue = iter(tensors)
    result = operator.attrgetter(case.op)(ot.ops)(*case.map(lambda _: next(queue)), **case.kwargs)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def in_double(values: Sequence[Array]) -> list[Array]:
    return [v.astype(np.float64) if v.dtype.kind == "f" else v for v in values]


def compiled(case: Case, call: Any) -> Any:
    """`call` compiled for the case's tensors, with their batch dimensions symbolic."""
    specs = [ot.TensorSpec(t.shape, t.array.dtype) for t in case.tensors()]
    return ot.function(call, input_signature=[specs], fallback="error")


def check(case: Case, results: Sequence[Any], values: Sequence[Array]) -> None:
    with np.errstate(all="ignore"):
        expected = case.expected(in_double(values))
    assert len(results) == len(expected)
    for result, value, dtype in zip(results, expected, case.dtypes(len(expected)), strict=True):
        found = np.asarray(result)
        assert found.dtype.name == dtype
        assert found.shape == value.shape
        if found.dtype.kind != "f":
            np.testing.assert_array_equal(found, value.astype(found.dtype))
            continue
        tolerance = case.tolerance or TOLERANCES[dtype]
        with np.errstate(over="ignore"):
            rounded = value.astype(found.dtype)
        np.testing.assert_allclose(
            in_double([found])[0], in_double([rounded])[0], rtol=tolerance, atol=0.5 * tolerance
        )


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_eager_results_are_numpys(case: Case) -> None:
    values = arrays(case)
    check(case, apply(case, [ot.Tensor(v) for v in values]), values)


COMPILED = [case for case in CASES if case.compiled]


@pytest.mark.parametrize("case", COMPILED, ids=ids(COMPILED))
def test_compiled_results_are_numpys_for_every_batch_size(case: Case) -> None:
    step = compiled(case, lambda tensors: apply(case, tensors))
    for values in (arrays(case), grown(case)):
        check(case, step(values), values)
    assert step.trace_count == 1


#: One case per operation that makes tensors of float32 ones.
FUNCTIONAL = {
    case.op: case
    for case in reversed(CASES)
    if any(t.array.dtype == np.float32 and t.array.size for t in case.tensors())
    and case.op not in ("shape", "size", "ndim")
}


@pytest.mark.parametrize("name", sorted(FUNCTIONAL))
def test_functional_models_compute_the_same(name: str) -> None:
    case = FUNCTIONAL[name]
    inputs = [ot.Input(batch_shape=t.shape, dtype=t.array.dtype) for t in case.tensors()]
    model = ot.Model(inputs, apply(case, inputs))
    for values in (arrays(case), grown(case)):
        check(case, model(values), values)


DIFFERENTIABLE = [case for case in CASES if case.gradient]


def objective(results: Sequence[Any]) -> Any:
    """A number whose gradient differs from element to element."""
    parts = [r * r * 0.5 + r * 0.3 for r in results if str(r.dtype).startswith("float")]
    total: Any = 0.0
    for part in parts:
        total = ot.ops.sum(part) + total if isinstance(part, ot.Tensor) else part.sum() + total
    return total


def differentiate(case: Case, tensors: Sequence[Any]) -> list[Any]:
    sources = [t for t in tensors if t.dtype == "float32"]
    with ot.GradientTape() as tape:
        tape.watch(sources)
        value = objective(apply(case, tensors))
    return list(tape.gradient(value, sources))


def differences(case: Case, values: Sequence[Array]) -> list[Array]:
    """Central differences of NumPy's results, in float64."""
    points = in_double(values)

    def value() -> float:
        with np.errstate(all="ignore"):
            return float(objective([r for r in case.expected(points) if r.dtype.kind == "f"]))

    found = []
    for point, array in zip(points, values, strict=True):
        if array.dtype != np.float32:
            continue
        slopes = np.zeros_like(point)
        for place in np.ndindex(point.shape):
            middle = point[place]
            point[place] = middle + case.step
            above = value()
            point[place] = middle - case.step
            slopes[place] = (above - value()) / (2 * case.step)
            point[place] = middle
        found.append(slopes)
    return found


def check_gradients(case: Case, found: Sequence[Any], values: Sequence[Array]) -> None:
    expected = differences(case, values)
    assert len(found) == len(expected) > 0
    for gradient, slopes in zip(found, expected, strict=True):
        assert gradient is not None
        assert gradient.dtype == "float32"
        scale = max(1.0, float(np.abs(slopes).max()))
        np.testing.assert_allclose(gradient.numpy(), slopes, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=ids(DIFFERENTIABLE))
def test_eager_gradients_are_differences(case: Case) -> None:
    values = arrays(case)
    check_gradients(case, differentiate(case, [ot.Tensor(v) for v in values]), values)


COMPILED_DIFFERENTIABLE = [case for case in DIFFERENTIABLE if case.compiled]


@pytest.mark.parametrize("case", COMPILED_DIFFERENTIABLE, ids=ids(COMPILED_DIFFERENTIABLE))
def test_compiled_gradients_are_differences_for_every_batch_size(case: Case) -> None:
    step = compiled(case, lambda tensors: differentiate(case, tensors))
    for values in (arrays(case), grown(case)):
        check_gradients(case, step(values), values)
    assert step.trace_count == 1


def test_every_operation_has_a_case() -> None:
    assert {case.op for case in CASES} == OPERATIONS


def test_every_operation_has_a_gradient_case_or_a_reason() -> None:
    with_gradient = {case.op for case in DIFFERENTIABLE}
    assert with_gradient.isdisjoint(WITHOUT_GRADIENT)
    assert with_gradient | set(WITHOUT_GRADIENT) == OPERATIONS


def test_the_public_names_are_the_operations() -> None:
    public = {
        name
        for name, member in vars(ot.ops).items()
        if not name.startswith("_") and callable(member)
    }
    assert public == set(ot.ops.__all__)


def test_cases_have_names_of_their_own() -> None:
    names = ids(CASES)
    assert sorted(set(names)) == sorted(names)


def test_stopped_gradients() -> None:
    x = ot.Variable([2.0, 3.0])
    with ot.GradientTape(persistent=True) as tape:
        y = ot.ops.sum(ot.ops.stop_gradient(x) * x)
        z = ot.ops.sum(ot.ops.stop_gradient(x * x))
    np.testing.assert_array_equal(tape.gradient(y, x), [2.0, 3.0])
    assert tape.gradient(z, x) is None
