"""custom_gradient and recompute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import onnxtape as ot
from onnxtape import compilation
from onnxtape.errors import GradientError
from onnxtape.runtime.session import create_session

ops = ot.ops
X = np.float32([0.5, -1.0, 2.0])


def eager(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def compiled(function: Callable[..., Any], *args: Any) -> Any:
    return ot.function(function, fallback="error")(*args)


both = pytest.mark.parametrize("run", [eager, compiled])


@ot.custom_gradient
def log1pexp(x: Any) -> Any:
    """TensorFlow's example: the naive gradient is NaN at 100."""
    e = ops.exp(x)

    def grad(upstream: Any) -> Any:
        return upstream * (1 - 1 / (1 + e))

    return ops.log(1 + e), grad


@both
def test_the_gradient_is_the_given_one(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = 3 * log1pexp(2 * x)
        return y, tape.gradient(y, x)

    y, gradient = run(step, ot.convert_to_tensor(np.float32(100)))
    assert np.isinf(y)
    assert float(gradient) == 6


@both
def test_the_given_gradient_is_differentiated_in_turn(run: Any) -> None:
    found = run(ot.grad(ot.grad(log1pexp)), np.float32(0.5))
    s = 1 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(np.asarray(found), s * (1 - s), rtol=1e-5)


@both
def test_structures_several_results_and_none(run: Any) -> None:
    @ot.custom_gradient
    def f(pair: Any, scale: float, y: Any) -> Any:
        def grad(*upstream: Any) -> Any:
            first, second = upstream
            return {"a": first * 10, "b": second * 100}, None, None

        return [pair["a"], pair["b"] * y], grad

    def step(a: Any, b: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch([a, b, y])
            results = f({"a": a, "b": b}, 2.0, y)
            target = ops.sum(results[1])
        return results, tape.gradient(target, [a, b, y], unconnected_gradients="zero")

    tensors = [ot.convert_to_tensor(X * k) for k in (1, 2, 3)]
    results, (a, b, y) = run(step, *tensors)
    np.testing.assert_allclose(results[1], 6 * X**2)
    np.testing.assert_array_equal(a, np.zeros(3))
    np.testing.assert_array_equal(b, np.full(3, 100))
    np.testing.assert_array_equal(y, np.zeros(3))


@both
def test_variables(run: Any) -> None:
    v = ot.Variable(X)

    @ot.custom_gradient
    def scaled(x: Any) -> Any:
        def grad(upstream: Any, variables: Any = None) -> Any:
            assert variables == [v]
            return upstream * 5, [upstream * 7]

        return x * v, grad

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = ops.sum(scaled(x))
        return tape.gradient(y, [x, v])

    by_x, by_v = run(step, ot.convert_to_tensor(X))
    np.testing.assert_array_equal(by_x, np.full(3, 5))
    np.testing.assert_array_equal(by_v, np.full(3, 7))


def test_mistakes() -> None:
    v = ot.Variable(X, name="v")
    x = ot.convert_to_tensor(X)

    @ot.custom_gradient
    def forgets_variables(x: Any) -> Any:
        return x * v, lambda upstream: upstream

    with pytest.raises(
        GradientError, match=r"forgets_variables reads v.*variables=None(?s:.*)\.py:"
    ):
        forgets_variables(x)

    @ot.custom_gradient
    def no_pair(x: Any) -> Any:
        return x

    with pytest.raises(TypeError, match="no_pair must return a pair"):
        no_pair(x)

    for returned, text in (
        ([x, x], "grad function of wrong returned 2 gradients for 1 argument"),
        (x[:2], r"returned a gradient of shape \(2,\) for argument 0, which has shape \(3,\)"),
    ):

        @ot.custom_gradient
        def wrong(x: Any, returned: Any = returned) -> Any:
            return x * 2, lambda upstream: returned

        with pytest.raises(GradientError, match=text):
            ot.grad(lambda x: ops.sum(wrong(x)))(x)


# recompute ---------------------------------------------------------------------------------------


def make_model() -> Any:
    ot.set_seed(0)
    block = ot.Sequential(
        [ot.layers.Dense(8, activation="tanh"), ot.layers.Dropout(0.5), ot.layers.Dense(3)]
    )
    block.build((None, 3))
    return block


@both
@pytest.mark.parametrize("nested", [False, True])
def test_results_gradients_and_random_numbers_are_the_same(run: Any, nested: bool) -> None:
    def gradients(again: bool) -> Any:
        block = make_model()

        def twice(x: Any) -> Any:
            inner = ot.recompute(block) if again and nested else block
            return inner(inner(x, training=True), training=True)

        apply = ot.recompute(twice) if again else twice

        def step(x: Any) -> Any:
            with ot.GradientTape() as tape:
                tape.watch(x)
                y = ops.sum(apply(x) ** 2)
            return y, tape.gradient(y, [x, *block.trainable_weights])

        found = []
        for _ in range(2):  # The random state goes on as if nothing had been computed twice.
            y, grads = run(step, ot.convert_to_tensor(np.outer(X, X)))
            found += [np.asarray(y), *map(np.asarray, grads)]
        return found

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@both
def test_assignments_are_made_once_and_readings_repeat(run: Any) -> None:
    count = ot.Variable(np.float32(1), trainable=False)
    scale = ot.Variable(np.float32(3))

    @ot.recompute
    def block(x: Any) -> Any:
        before = x * count * scale
        count.assign_add(1)
        return ops.exp(before) * count

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = ops.sum(block(x))
        scale.assign(10.0)
        return tape.gradient(y, [x, scale])

    by_x, by_scale = run(step, ot.convert_to_tensor(X))
    np.testing.assert_allclose(by_x, 6 * np.exp(3 * X), rtol=1e-5)
    np.testing.assert_allclose(by_scale, np.sum(2 * X * np.exp(3 * X)), rtol=1e-5)
    assert float(count) == 2
    assert float(scale) == 10


def test_second_derivatives_through_recompute() -> None:
    found = ot.grad(ot.grad(ot.recompute(lambda x: ops.exp(2 * x) * x)))(np.float32(0.5))
    np.testing.assert_allclose(float(found), (4 + 4 * 0.5) * np.exp(1), rtol=1e-5)


def test_the_compiled_graph_computes_again_and_stays_so_in_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[bytes] = []

    def spy(model: bytes, *args: Any, **options: Any) -> Any:
        opened.append(model)
        return create_session(model, *args, **options)

    monkeypatch.setattr(compilation, "create_session", spy)

    def count(wrap: Callable[[Any], Any]) -> Any:
        """Of Sin and Cos, in our graph and in the one that ONNX Runtime has made of it."""
        weight = ot.Variable(X)

        @wrap
        def block(x: Any) -> Any:
            for _ in range(3):
                x = ops.sin(x)
            return x

        @ot.function(fallback="error")
        def step() -> Any:
            with ot.GradientTape() as tape:
                y = ops.sum(block(weight))
            weight.assign_sub(tape.gradient(y, weight))
            return y

        graph = step.get_concrete_function().model.graph
        optimized = onnx.load_model_from_string(opened[-1]).graph
        return [
            [node.op_type for node in g.node].count(op)
            for g in (graph, optimized)
            for op in ("Sin", "Cos")
        ]

    assert count(lambda f: f) == [3, 3, 3, 3]
    # The last of the three is not needed again.
    assert count(ot.recompute) == [5, 3, 5, 3]
