"""GradientTape: what it records and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import onnxtape as ot

ops = ot.ops
Array = npt.NDArray[Any]


def eager(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def compiled(function: Callable[..., Any], *args: Any) -> Any:
    return ot.function(function, fallback="error")(*args)


#: Every test that says `run` holds for both.
both = pytest.mark.parametrize("run", [eager, compiled])


def tensor(value: Any, dtype: str = "float32") -> ot.Tensor:
    return ot.convert_to_tensor(np.asarray(value, dtype))


# What it gives -----------------------------------------------------------------------------------


@both
def test_gradients_keep_the_sources_structure_shape_and_dtype(run: Any) -> None:
    def step(x: Any, more: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch([x, more])
            y = ops.sum(x * more["a"]) + ops.sum(more["b"][0] ** 2)
        return tape.gradient(y, {"x": x, "rest": [more["a"], (more["b"][0],)]})

    x, a, b = tensor([1, 2]), tensor([[3], [4], [5]]), tensor(7)
    found = run(step, x, {"a": a, "b": [b]})
    np.testing.assert_allclose(found["x"], [12, 12])
    np.testing.assert_allclose(found["rest"][0], [[3], [3], [3]])
    assert isinstance(found["rest"][1], tuple)
    np.testing.assert_allclose(found["rest"][1][0], 14)


@both
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(run: Any, dtype: str) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = x * 3
        return tape.gradient(y, x)

    gradient = run(step, tensor([1, 2], dtype))
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(gradient, [3, 3])


@both
def test_several_targets_are_summed_and_weighted(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape(persistent=True) as tape:
            tape.watch(x)
            targets = {"square": x * x, "double": 2 * x}
        weights = {"square": tensor([1, 10]), "double": np.float32([5, 0])}
        partly = {"square": None, "double": np.float32([0, 0])}
        return (
            tape.gradient(targets, x),
            tape.gradient(targets, x, output_gradients=weights),
            tape.gradient(targets, x, output_gradients=partly),
        )

    summed, weighted, partly = run(step, tensor([1, 2]))
    np.testing.assert_array_equal(summed, [4, 6])
    np.testing.assert_array_equal(weighted, [12, 40])
    np.testing.assert_array_equal(partly, [2, 4])


@both
def test_unconnected_sources(run: Any) -> None:
    unused = ot.Variable([1.0, 2.0])

    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape(persistent=True) as tape:
            tape.watch((x, y))
            target = x * ops.stop_gradient(y) + ops.sign(y) + ops.cast(y > 0, "float32")
        return (
            tape.gradient(target, [y, unused]),
            tape.gradient(target, [y, unused], unconnected_gradients="zero"),
        )

    nothing, zeros = run(step, tensor([1, 2, 3]), tensor([1, -1, 2]))
    assert nothing == [None, None]
    np.testing.assert_array_equal(zeros[0], [0, 0, 0])
    np.testing.assert_array_equal(zeros[1], [0, 0])


@both
def test_a_source_that_is_the_target_or_lies_between(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = x * x
            z = y * 3
        return tape.gradient(z, [x, y, z]), tape.gradient(x, x)

    (by_x, by_y, by_z), itself = run(step, tensor([2, 5]))
    np.testing.assert_array_equal(by_x, [12, 30])
    np.testing.assert_array_equal(by_y, [3, 3])
    np.testing.assert_array_equal(by_z, [1, 1])
    np.testing.assert_array_equal(itself, [1, 1])


# What it records ---------------------------------------------------------------------------------


@both
def test_only_what_is_watched(run: Any) -> None:
    weight, frozen = ot.Variable(3.0), ot.Variable(4.0, trainable=False)

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = x * weight * frozen + x * x
        watched = [v is weight for v in tape.watched_variables()]
        return tape.gradient(y, [x, weight, frozen]), watched

    # Had the tape given the part it saw by way of the weight, it would be wrong by x * x.
    (by_x, by_weight, by_frozen), watched = run(step, tensor(2))
    assert (by_x, by_frozen) == (None, None)
    assert float(by_weight) == 8
    assert watched == [True]


@both
def test_watch_accessed_variables_off(run: Any) -> None:
    a, b = ot.Variable(3.0), ot.Variable(4.0, trainable=False)

    def step() -> Any:
        with ot.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(b)
            y = a * b
        return tape.gradient(y, [a, b])

    by_a, by_b = run(step)
    assert by_a is None
    assert float(by_b) == 3


@both
def test_stop_recording(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = x * x
            with tape.stop_recording():
                y = y * y
            z = y * x
        return tape.gradient(z, x)

    np.testing.assert_array_equal(run(step, tensor([2, 3])), [16, 81])


@both
def test_reset_forgets(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = x * x
            tape.reset()
            tape.watch(x)
            z = x * 3
        return tape.gradient(y, x), tape.gradient(z, x)

    before, after = run(step, tensor([2]))
    assert before is None
    np.testing.assert_array_equal(after, [3])


@both
def test_a_persistent_tape_gives_gradients_again_and_of_gradients(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = x * x * x
            first = tape.gradient(y, x)
        return first, tape.gradient(y, x), tape.gradient(first, x)

    first, again, second = run(step, tensor([2, 3]))
    np.testing.assert_allclose(first, [12, 27], rtol=1e-6)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(second, [12, 18], rtol=1e-6)


@both
def test_reading_assigning_and_reading_in_one_tape(run: Any) -> None:
    weight = ot.Variable(3.0)

    def step(x: Any) -> Any:
        weight.assign(3.0)
        with ot.GradientTape() as tape:
            first = weight * x
            weight.assign(weight * 2)
            second = weight * weight
        # Both readings count; nothing flows through the assignment.
        return tape.gradient([first, second], weight), weight.value

    gradient, value = run(step, tensor(5))
    assert float(gradient) == 5 + 2 * 6
    assert float(value) == 6


@both
def test_a_tensor_that_was_assigned_is_still_the_tensor(run: Any) -> None:
    weight = ot.Variable(3.0)

    def step() -> Any:
        weight.assign(3.0)
        with ot.GradientTape() as tape:
            doubled = weight * 2
            weight.assign(doubled)
            y = doubled * weight
        return tape.gradient(y, [weight, doubled])

    by_weight, by_doubled = run(step)
    assert float(by_doubled) == 6
    assert float(by_weight) == 6 * 2 + 6


def test_optimizer_steps_inside_the_tape_change_nothing() -> None:
    """Some write the update inside the `with` block."""
    results = []
    for inside in (False, True):
        weight = ot.Variable([1.0, 2.0])
        optimizer = ot.optimizers.SGD(0.1)
        for _ in range(3):
            with ot.GradientTape() as tape:
                loss = ops.sum(weight * weight)
                if inside:
                    optimizer.apply(tape.gradient(loss, [weight]), [weight])
            if not inside:
                optimizer.apply(tape.gradient(loss, [weight]), [weight])
        results.append(weight.numpy())
    np.testing.assert_array_equal(results[0], results[1])


def test_a_tape_keeps_the_values_that_it_saw() -> None:
    weight = ot.Variable([1.0, 2.0])
    double = ot.function(lambda: weight.assign(weight * 100))
    with ot.GradientTape() as tape:
        y = weight * weight
    double()
    np.testing.assert_array_equal(tape.gradient(y, weight), [2, 4])
    np.testing.assert_array_equal(weight.numpy(), [100, 200])


# Derivatives of derivatives ----------------------------------------------------------------------


@both
def test_second_and_third_derivative_of_a_cube(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape() as outer:
            outer.watch(x)
            with ot.GradientTape() as middle:
                middle.watch(x)
                with ot.GradientTape() as inner:
                    inner.watch(x)
                    y = x**3
                first = inner.gradient(y, x)
            second = middle.gradient(first, x)
        return first, second, outer.gradient(second, x)

    first, second, third = run(step, tensor([1, 2, -3]))
    np.testing.assert_allclose(first, [3, 12, 27], rtol=1e-5)
    np.testing.assert_allclose(second, [6, 12, -18], rtol=1e-5)
    np.testing.assert_allclose(third, [6, 6, 6], rtol=1e-5)


@both
def test_a_gradient_penalty(run: Any) -> None:
    """The penalty of Wasserstein GANs, (|df/dx| - 1)^2, whose gradient by w is worked out."""
    weight = ot.Variable([[1.0], [2.0]])

    def step(x: Any) -> Any:
        with ot.GradientTape() as outer:
            with ot.GradientTape() as inner:
                inner.watch(x)
                y = ops.tanh(x @ weight)
            slope = inner.gradient(y, x)
            norm = ops.sqrt(ops.sum(slope * slope, axis=1))
            penalty = ops.mean((norm - 1) ** 2)
        return penalty, outer.gradient(penalty, weight)

    x = np.float64([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])

    def numpy_penalty(w: Array) -> Any:
        slope = (1 - np.tanh(x @ w) ** 2) * w.T
        return np.mean((np.sqrt((slope**2).sum(1)) - 1) ** 2)

    penalty, gradient = run(step, tensor(x))
    w = np.float64([[1], [2]])
    assert float(penalty) == pytest.approx(numpy_penalty(w), rel=1e-5)
    for i in range(2):
        step_size = np.zeros((2, 1))
        step_size[i] = 1e-6
        numeric = (numpy_penalty(w + step_size) - numpy_penalty(w - step_size)) / 2e-6
        assert float(gradient[i, 0]) == pytest.approx(numeric, rel=1e-4)


@both
def test_a_tape_around_training(run: Any) -> None:
    """The gradient by the learning rate, through an inner step of gradient descent."""

    def step(rate: Any) -> Any:
        with ot.GradientTape() as outer:
            outer.watch(rate)
            w = tensor(2.0)
            with ot.GradientTape() as inner:
                inner.watch(w)
                loss = w**4
            w = w - rate * inner.gradient(loss, w)
            final = w**4
        return outer.gradient(final, rate)

    # f = (2 - 32 r)^4, f' = -128 (2 - 32 r)^3
    assert float(run(step, tensor(0.05))) == pytest.approx(-128 * (2 - 32 * 0.05) ** 3, rel=1e-4)


# Errors ------------------------------------------------------------------------------------------
