"""grad, value_and_grad, vjp, jvp, jacobian, hessian: eager, compiled, and of each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import GradientError, ShapeError

ops = ot.ops
X = np.float32([0.5, -1.0, 2.0])
W = np.float32([[1, -2, 0.5], [0, 3, -1]])


def eager(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def compiled(function: Callable[..., Any], *args: Any) -> Any:
    return ot.function(function, fallback="error")(*args)


both = pytest.mark.parametrize("run", [eager, compiled])


def close(found: Any, expected: Any, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=1e-6)


# grad --------------------------------------------------------------------------------------------


@both
def test_grad_is_taken_by_the_first_argument(run: Any) -> None:
    close(run(ot.grad(lambda a, b: ops.sum(a**2 * b)), X, X), 2 * X * X)


@both
def test_grad_by_several_arguments_and_structures(run: Any) -> None:
    def f(p: Any, scale: Any, x: Any) -> Any:
        return scale * ops.sum(p["w"] @ x + p["b"][0])

    p = {"w": W, "b": [np.float32([1, 2])]}
    by_p, by_x = run(ot.grad(f, argnums=(0, -1)), p, np.float32(3), X)
    close(by_p["w"], 3 * np.tile(X, (2, 1)))
    close(by_p["b"][0], [3, 3])
    close(by_x, 3 * W.sum(0))


def test_one_tensor_may_be_two_arguments() -> None:
    x = ot.convert_to_tensor(X)
    close(ot.grad(lambda a, b: ops.sum(a * b))(x, x), X)


@both
def test_value_and_grad_with_something_else(run: Any) -> None:
    def f(x: Any) -> Any:
        y = ops.sin(x)
        return ops.sum(y), {"y": y}

    (value, aux), gradient = run(ot.value_and_grad(f, has_aux=True), X)
    close(value, np.sin(X).sum())
    close(aux["y"], np.sin(X))
    close(gradient, np.cos(X))
    gradient, aux = run(ot.grad(f, has_aux=True), X)
    close(aux["y"], np.sin(X))
    close(gradient, np.cos(X))


@both
def test_what_does_not_matter_has_a_gradient_of_zeros(run: Any) -> None:
    close(run(ot.grad(lambda a, b: ops.sum(b)), X, X), np.zeros(3))


@both
def test_grad_of_grad_of_grad(run: Any) -> None:
    close(
        run(ot.grad(ot.grad(ot.grad(lambda x: ops.exp(2 * x)))), np.float32(0.25)), 8 * np.exp(0.5)
    )


def test_an_outer_tape_sees_through_grad() -> None:
    v = ot.Variable(X)
    with ot.GradientTape() as tape:
        penalty = ops.sum(ot.grad(lambda x: ops.sum(x**3 * v))(v.value) ** 2)
    # d/dv sum((3 v^2 v)^2), where the gradient is taken by x alone at x = v
    close(tape.gradient(penalty, v), 54 * X**5)


def test_grad_refuses_what_is_no_scalar() -> None:
    def rows(x: Any) -> Any:
        return x * 2

    with pytest.raises(GradientError, match=r"'rows' returned float32 \(3,\).*ops\.sum.*jacobian"):
        ot.grad(rows)(X)
    with pytest.raises(GradientError, match="returned int32"):
        ot.grad(lambda x: ops.cast(ops.sum(x), "int32"))(X)


def test_arguments_that_cannot_be_differentiated_by() -> None:
    with pytest.raises(TypeError, match="grad differentiates by floating-point arguments, not int"):
        ot.grad(lambda x: ops.sum(x))(np.arange(3))
    with pytest.raises(
        ValueError, match="positional argument 2, but the function was called with 1"
    ):
        ot.grad(lambda x: ops.sum(x), argnums=2)(X)


# vjp and jvp -------------------------------------------------------------------------------------


@both
def test_vjp(run: Any) -> None:
    def f(x: Any, u: Any) -> Any:
        result, pullback = ot.vjp(lambda a: {"y": ops.matmul(W, a)}, x)
        return result, pullback({"y": u}), pullback({"y": 2 * u})

    u = np.float32([3, -1])
    result, (one,), (two,) = run(f, X, u)
    close(result["y"], W @ X)
    close(one, W.T @ u)
    close(two, 2 * W.T @ u)


@both
def test_jvp_against_differences(run: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        return {"y": ops.tanh(ops.matmul(w, x)) / ops.sum(x**2), "z": ops.exp(x[:2])}

    def numpy_f(x: Any, w: Any) -> Any:
        return np.tanh(w @ x) / np.sum(x**2), np.exp(x[:2])

    tangents = np.float32([0.3, -0.2, 0.7]), W[::-1] * 0.5
    value, tangent = run(lambda x, w, *t: ot.jvp(f, (x, w), t), X, W, *tangents)
    h = 1e-6
    point = [X.astype("float64"), W.astype("float64")]
    ends = [
        numpy_f(*(p + s * h * t for p, t in zip(point, tangents, strict=True))) for s in (1, -1)
    ]
    for name, high, low, exact in zip("yz", *ends, numpy_f(*point), strict=True):
        close(value[name], exact)
        close(tangent[name], (high - low) / (2 * h), 1e-4)


@both
def test_hessian_vector_product(run: Any) -> None:
    def hvp(x: Any, v: Any) -> Any:
        return ot.jvp(ot.grad(lambda a: ops.sum(a**4)), (x,), (v,))[1]

    close(run(hvp, X, X[::-1].copy()), 12 * X**2 * X[::-1])


def test_a_tangent_of_what_does_not_matter_is_zero() -> None:
    value, tangent = ot.jvp(lambda x: ops.ones(2), (X,), (X,))
    close(value, [1, 1])
    close(tangent, [0, 0])


def test_jvp_refuses_tangents_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"a tangent has shape \(2,\), its primal \(3,\)"):
        ot.jvp(lambda x: x, (X,), (X[:2],))
    with pytest.raises(ValueError, match="tangents of the same structure"):
        ot.jvp(lambda x: x, (X,), (X, X))
    with pytest.raises(TypeError, match=r"jvp\(f, \(x,\), \(t,\)\)"):
        ot.jvp(lambda x: x, X, X)


# Jacobians ---------------------------------------------------------------------------------------


@both
def test_jacobian_has_the_results_axes_first(run: Any) -> None:
    def f(w: Any) -> Any:
        return ops.matmul(w, ops.transpose(w))

    found = np.asarray(run(ot.jacobian(f), W))
    assert found.shape == (2, 2, 2, 3)
    eye = np.eye(2)
    expected = np.einsum("ik,jl->ijkl", eye, W) + np.einsum("jk,il->ijkl", eye, W)
    close(found, expected)


@both
def test_hessian(run: Any) -> None:
    found = run(ot.hessian(lambda x: ops.sum(x**3) * x[0]), X)
    cubes, first = X.astype("float64"), X[0]
    expected = np.diag(6 * cubes * first)
    expected[0] += 3 * cubes**2
    expected[:, 0] += 3 * cubes**2
    close(found, expected)


def test_hessian_of_several_arguments() -> None:
    found = ot.hessian(lambda a, b: ops.sum(a * b * b), argnums=(0, 1))(X[:2], X[1:])
    close(found[0][0], np.zeros((2, 2)))
    close(found[0][1], np.diag(2 * X[1:]))
    close(found[1][1], np.diag(2 * X[:2]))


@both
@pytest.mark.parametrize("persistent", [True, False])
def test_tape_jacobian(run: Any, persistent: bool) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape(persistent=persistent) as tape:
            tape.watch(x)
            y = ops.stack([x[0] * x[1], ops.sum(x)])
        return tape.jacobian(y, [x])

    (found,) = run(step, ot.convert_to_tensor(X))
    close(found, [[X[1], X[0], 0], [1, 1, 1]])


def test_tape_jacobian_of_a_scalar_and_by_a_scalar() -> None:
    x = ot.convert_to_tensor(np.float32(3))
    with ot.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    found = tape.jacobian(y, x)
    assert found.shape == ()
    close(found, 6)
    with pytest.raises(RuntimeError, match="persistent=True"):
        tape.jacobian(y, x)


def test_unconnected_jacobians() -> None:
    x, z = ot.convert_to_tensor(X), ot.convert_to_tensor(W)
    with ot.GradientTape(persistent=True) as tape:
        tape.watch([x, z])
        y = x * 2
    assert tape.jacobian(y, z) is None
    close(tape.jacobian(y, z, unconnected_gradients="zero"), np.zeros((3, 2, 3)))


@pytest.mark.parametrize("sizes", [[4], [4, 2, 3]])
def test_batch_jacobian_with_any_batch(sizes: list[int]) -> None:
    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = ops.tanh(ops.matmul(x, W.T))
        return tape.batch_jacobian(y, x)

    for size in sizes:
        x = np.linspace(-1, 1, size * 3, dtype="float32").reshape(size, 3)
        close(step(x), (1 - np.tanh(x @ W.T) ** 2)[:, :, None] * W)
    assert step.trace_count == min(len(sizes), 2)


def test_a_jacobian_needs_a_static_target(tmp_path: Path) -> None:
    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = x * 2
        return tape.jacobian(y, x)

    with pytest.raises(ShapeError, match=r"needs the shape of the target.*batch_jacobian"):
        step.export(tmp_path, ot.TensorSpec((None, 3), "float32"))


def test_jacobian_of_an_empty_target() -> None:
    x = ot.convert_to_tensor(X)
    with ot.GradientTape() as tape:
        tape.watch(x)
        y = x[:0] * 2
    assert tape.jacobian(y, x, unconnected_gradients="zero").shape == (0, 3)
