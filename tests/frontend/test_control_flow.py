"""Branches and loops: eagerly and compiled the same, in values, gradients and state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import nest
from onnxtape.runtime import TrainingSession

ops = ot.ops


def arrays(tree: Any) -> list[Any]:
    return [x.numpy() if isinstance(x, ot.Tensor) else x for x in nest.flatten(tree)]


def both(make: Callable[[], tuple[Callable[..., Any], list[ot.Variable]]], *args: Any) -> Any:
    """The results of the second call, eager and compiled alike, and the variables after it."""
    runs = []
    for compiled in (False, True):
        ot.set_seed(3)
        function, variables = make()
        step = ot.function(function, fallback="error") if compiled else function
        step(*args)
        result = step(*args)
        runs.append((result, [v.numpy() for v in variables]))
    (eager, state), (found, after) = runs
    assert nest.structure(eager) == nest.structure(found)
    for x, y in zip(arrays(eager) + state, arrays(found) + after, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_allclose(y, x, rtol=2e-6, atol=1e-6)
            assert y.dtype == x.dtype
    return arrays(eager), state


def stateless(function: Callable[..., Any]) -> Any:
    return lambda: (function, [])


def tensor(*numbers: float) -> ot.Tensor:
    return ot.convert_to_tensor(list(numbers))


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "expected"), [(2.0, [4.0, 1.0]), (-2.0, [-4.0, 2.0])])
def test_cond(x: float, expected: list[float]) -> None:
    def f(x: Any) -> Any:
        def square(a: Any) -> Any:
            return {"y": a * a, "n": ops.ones_like(a)}

        return ot.cond(x > 0, square, lambda a: {"y": -a * a, "n": 2.0}, x)

    found, _ = both(stateless(f), ot.convert_to_tensor(x))
    np.testing.assert_array_equal(found, expected)


def test_only_the_chosen_branch_runs() -> None:
    """The other would fail: a gather out of range."""
    step = ot.function(lambda i, x: ot.cond(i < 3, lambda: ops.take(x, i), lambda: x[0] * 0.0))
    x = tensor(1.0, 2.0, 3.0)
    assert step(ot.convert_to_tensor(2), x).item() == 3.0
    assert step(ot.convert_to_tensor(7), x).item() == 0.0


def test_a_python_bool_picks_the_branch() -> None:
    step = ot.function(lambda x: ot.cond(True, lambda: x + 1, lambda: "no tensor at all"))
    assert step(tensor(1.0)).tolist() == [2.0]
    assert all(node.op_type != "If" for node in step.get_concrete_function().model.graph.node)


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 3, 9])
def test_switch(index: int) -> None:
    def f(i: Any, x: Any) -> Any:
        return ops.switch(i, [lambda a, k=k: a * 10.0 + k for k in range(4)], x)

    found, _ = both(stateless(f), ot.convert_to_tensor(index), tensor(1.0))
    assert found[0].tolist() == [10.0 + min(max(index, 0), 3)]


@pytest.mark.parametrize("limit", [None, 3, 0])
def test_while_loop(limit: int | None) -> None:
    def f(x: Any) -> Any:
        def body(v: Any, n: Any) -> Any:
            return [v * 2.0, n + 1]

        return ot.while_loop(lambda v, n: ops.sum(v) < 20.0, body, [x, 0], limit)

    (value, count), _ = both(stateless(f), tensor(1.0, 0.5))
    steps = 4 if limit is None else limit
    assert count == steps
    np.testing.assert_array_equal(value, np.asarray([1.0, 0.5]) * 2**steps)


def test_a_while_loop_of_one_dict() -> None:
    def f(x: Any) -> Any:
        return ot.while_loop(
            lambda s: s["k"] < 5, lambda s: {"k": s["k"] + 2, "x": s["x"] + 1.0}, {"k": 0, "x": x}
        )

    found, _ = both(stateless(f), tensor(0.0))
    assert [a.tolist() for a in found] == [6, [3.0]]


@pytest.mark.parametrize("upper", [5, 2, 1])
def test_fori_loop(upper: int) -> None:
    def f(n: Any, x: Any) -> Any:
        return ot.fori_loop(2, n, lambda i, v: v * 2.0 + ops.cast(i, "float32"), x)

    found, _ = both(stateless(f), ot.convert_to_tensor(upper), tensor(1.0))
    value = 1.0
    for i in range(2, upper):
        value = value * 2 + i
    assert found[0].tolist() == [value]


SCANS = [(reverse, unroll) for reverse in (False, True) for unroll in (1, 2, 3, 5, True)]


@pytest.mark.parametrize(("reverse", "unroll"), SCANS)
def test_scan(reverse: bool, unroll: Any) -> None:
    def step(carry: Any, x: Any) -> Any:
        return carry * 0.5 + x["a"], {"sum": carry + x["b"], "none": None}

    def f(xs: Any) -> Any:
        return ot.scan(step, 1.0, xs, reverse=reverse, unroll=unroll)

    xs = {"a": tensor(1, 2, 3, 4, 5), "b": tensor(5, 4, 3, 2, 1)}
    (carry, sums, _), _ = both(stateless(f), xs)
    state, expected = 1.0, np.zeros(5)
    for i in reversed(range(5)) if reverse else range(5):
        expected[i] = state + (5 - i)
        state = state * 0.5 + (i + 1)
    assert carry == state
    np.testing.assert_allclose(sums, expected, rtol=1e-6)


def test_scan_by_length_alone_and_map() -> None:
    def f(x: Any) -> Any:
        powers = ot.scan(lambda c, _: (c * x, c), ops.ones_like(x), length=4)
        return powers, ops.map(lambda row: ops.sum(row) * x, ops.stack([x, x + 1.0]))

    (last, all_, mapped), _ = both(stateless(f), tensor(2.0, 3.0))
    np.testing.assert_array_equal(last, [16, 81])
    np.testing.assert_array_equal(all_, [[1, 1], [2, 3], [4, 9], [8, 27]])
    np.testing.assert_array_equal(mapped, [[10, 15], [14, 21]])


def test_one_trace_serves_every_length() -> None:
    step = ot.function(
        lambda x: ot.scan(lambda c, row: (c + row, c), ops.zeros([2]), x),
        input_signature=[ot.TensorSpec((None, 2))],
        fallback="error",
    )
    for rows in (1, 4):
        x = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
        last, before = step(x)
        np.testing.assert_allclose(last.numpy(), x.sum(0))
        np.testing.assert_allclose(before.numpy(), np.cumsum(x, 0) - x)
    assert step.trace_count == 1


# Gradients ---------------------------------------------------------------------------------------


def losses(w: ot.Variable) -> dict[str, Callable[[Any], Any]]:
    def nested(x: Any) -> Any:
        def row(carry: Any, r: Any) -> Any:
            def twice(i: Any, c: Any) -> Any:
                return ot.cond(i < 1, lambda: ops.tanh(c * w + r), lambda: c * ops.sum(w))

            carry = ot.fori_loop(0, 2, twice, carry)
            return carry, carry * w

        last, ys = ot.scan(row, w * 0.0, x)
        return ops.sum(last) + ops.sum(ys * ys)

    def until(x: Any) -> Any:
        y = x[0]
        return ops.sum(
            ot.while_loop(lambda v: ops.sum(v * v) < 30.0, lambda v: v * (1.5 + w * w), y)
        )

    return {
        "cond": lambda x: ops.sum(ot.cond(ops.sum(x) > 0, lambda: x * w, lambda: x - w)),
        "while": until,
        "scan": lambda x: ops.sum(ot.scan(lambda c, r: (ops.tanh(c * w + r), c), w * 1.0, x)[0]),
        "unrolled": lambda x: ops.sum(
            ot.scan(lambda c, r: (ops.tanh(c * w + r), c), w * 1.0, x, unroll=2, reverse=True)[1]
        ),
        "nested": nested,
        # Only one of the two readings carries a gradient, inside as outside.
        "stopped": lambda x: ops.sum(
            ot.scan(lambda c, r: (c * w * ops.stop_gradient(c * w), r), w * 1.0, x)[0]
        ),
        "stopped outside": lambda x: (
            lambda s: ops.sum(ot.cond(ops.sum(x) > 0, lambda: s * w, lambda: w))
        )(ops.stop_gradient(w.value)),
    }


X = np.asarray([[0.3, -0.2], [0.5, 0.9], [-0.4, 0.1]], np.float32)


@pytest.mark.parametrize("name", sorted(losses(ot.Variable([0.5, -0.7]))))
def test_gradients(name: str) -> None:
    """Compiled as eager, and (where nothing is stopped) as central differences."""

    def make() -> Any:
        w = ot.Variable([0.5, -0.7])
        loss = losses(w)[name]

        def f(x: Any) -> Any:
            with ot.GradientTape() as tape:
                tape.watch(x)
                value = loss(x)
            return value, tape.gradient(value, [w, x])

        return f, [w]

    (_, by_w, by_x), _ = both(make, ot.Tensor(X))
    if "stopped" in name:
        expected = {"stopped": None, "stopped outside": [0.5, -0.7]}[name]
        assert expected is None or np.allclose(by_w, expected)
        return
    point = {"w": np.asarray([0.5, -0.7]), "x": X.astype(np.float64)}
    w = ot.Variable(point["w"])
    loss = losses(w)[name]
    for found, array in ((by_w, point["w"]), (by_x, point["x"])):
        for index in np.ndindex(found.shape):
            ends, middle = [], array[index]
            for shift in (1e-5, -1e-5):
                array[index] = middle + shift
                w.assign(point["w"])
                ends.append(float(loss(ot.Tensor(point["x"]))))
            array[index] = middle
            assert found[index] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=2e-5)


@pytest.mark.parametrize("name", ["cond", "while", "scan", "nested"])
def test_gradients_of_gradients(name: str) -> None:
    def make() -> Any:
        w = ot.Variable([0.5, -0.7])
        loss = losses(w)[name]

        def f(x: Any) -> Any:
            with ot.GradientTape() as outer:
                outer.watch(x)
                with ot.GradientTape() as tape:
                    value = loss(x)
                slope = tape.gradient(value, w)
                squares = ops.sum(slope * slope)
            return slope, outer.gradient(squares, [w, x])

        return f, [w]

    both(make, ot.Tensor(X))


def test_gradients_for_every_batch_size() -> None:
    w = ot.Variable([[0.5, -0.7], [0.2, 0.4]])

    def f(x: Any) -> Any:
        with ot.GradientTape() as tape:
            rows = ops.transpose(x, (1, 0, 2))
            last, ys = ot.scan(lambda h, r: (ops.tanh(h @ w + r), h), rows[0] * 0.0, rows)
            last = ot.cond(ops.sum(x) > 0, lambda: last * 2.0, lambda: last @ w)
            loss = ops.mean(last) + ops.mean(ys * ys)
        return loss, tape.gradient(loss, w)

    step = ot.function(f, input_signature=[ot.TensorSpec((None, 3, 2))], fallback="error")
    for batch in (4, 1):
        x = np.random.default_rng(batch).normal(size=(batch, 3, 2)).astype(np.float32)
        for found, expected in zip(step(x), f(ot.Tensor(x)), strict=True):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-5, atol=1e-6)
    assert step.trace_count == 1


@pytest.mark.parametrize("unroll", [2, True])
def test_unrolling_needs_a_length(unroll: Any) -> None:
    step = ot.function(
        lambda x: ot.scan(lambda c, r: (c + r, None), 0.0, x, unroll=unroll)[0],
        input_signature=[ot.TensorSpec((None,))],
        fallback="error",
    )
    with pytest.raises(ValueError, match="needs a length that is known while tracing"):
        step.get_concrete_function()


def test_a_body_reads_what_the_one_around_it_assigned() -> None:
    def make() -> Any:
        v = ot.Variable(1.0, trainable=False)

        def row(carry: Any, r: Any) -> Any:
            v.assign(v + r[0])
            inner = ot.fori_loop(0, 2, lambda i, c: c + v * 1.0, 0.0)
            ot.cond(inner > 3.0, lambda: (v.assign(0.0), None)[1], lambda: None)
            return carry + inner, v * 1.0

        return lambda x: ot.scan(row, 0.0, x), [v]

    both(make, ot.Tensor(X))


def test_a_tape_inside_a_body() -> None:
    """Newton's method: the derivative is taken in each iteration."""

    def f(x: Any) -> Any:
        def step(_: Any, v: Any) -> Any:
            with ot.GradientTape() as tape:
                tape.watch(v)
                y = v * v - x
            return v - y / tape.gradient(y, v)

        return ot.fori_loop(0, 6, step, x)

    found, _ = both(stateless(f), tensor(4.0, 9.0))
    np.testing.assert_allclose(found[0], [2.0, 3.0], rtol=1e-6)


# Variables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [1.0, -1.0])
def test_assignment_in_a_branch(x: float) -> None:
    def make() -> Any:
        a, b = ot.Variable(1.0), ot.Variable(10.0, trainable=False)

        def first(x: Any) -> Any:
            a.assign_add(x)
            b.assign(a * 2.0)
            return b.value

        def f(x: Any) -> Any:
            return ot.cond(x > 0, lambda: first(x), lambda: a * x), a * b

        return f, [a, b]

    _, state = both(make, ot.convert_to_tensor(x))
    assert [float(v) for v in state] == ([3.0, 6.0] if x > 0 else [1.0, 10.0])


def test_assignment_in_loops() -> None:
    def make() -> Any:
        count = ot.Variable(0, trainable=False)
        total = ot.Variable([0.0, 0.0], trainable=False)

        def row(carry: Any, r: Any) -> Any:
            before = total.value
            total.assign_add(r)
            ot.fori_loop(0, 2, lambda i, c: (count.assign_add(1), c)[1], 0.0)
            return carry + count.value, before

        def f(x: Any) -> Any:
            return ot.scan(row, 0, x), count * 1

        return f, [count, total]

    (carry, before, _), (count, total) = both(make, ot.Tensor(X))
    assert count == 12
    np.testing.assert_allclose(total, 2 * X.sum(0), rtol=1e-6)
    np.testing.assert_allclose(before[1] - before[0], X[0], rtol=1e-5)
    assert carry == 8 + 10 + 12


def test_random_numbers_differ_between_iterations() -> None:
    def f(x: Any) -> Any:
        return ot.scan(lambda c, r: (c, ot.random.uniform([2]) + 0.0 * r), 0.0, x)[1]

    (drawn,), _ = both(stateless(f), ot.Tensor(X))
    assert len(np.unique(drawn)) == drawn.size


def test_training_steps_inside_a_loop() -> None:
    """One call makes a step for each batch: the optimizer's state is carried along."""

    def make() -> Any:
        w = ot.Variable([0.5, -0.7], name="w")
        optimizer = ot.optimizers.Adam(0.1)
        optimizer.build([w])

        def batch(carry: Any, row: Any) -> Any:
            with ot.GradientTape() as tape:
                loss = ops.sum((w * row - 1.0) ** 2)
            optimizer.apply(tape.gradient(loss, [w]), [w])
            return carry, loss

        return lambda x: ot.scan(batch, 0.0, x)[1], [w, optimizer.iterations]

    (found,), (_, iterations) = both(make, ot.Tensor(X))
    assert iterations == 6
    assert found[0] > 0


def test_a_step_with_loops_trains_as_an_artifact(tmp_path: Path) -> None:
    w = ot.Variable([0.5, -0.7], name="w")
    optimizer = ot.optimizers.SGD(0.1)
    optimizer.build([w])

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            last, _ = ot.scan(lambda c, r: (ops.tanh(c * w + r), c), ops.zeros([2]), x)
            loss = ot.cond(ops.sum(x) > 0, lambda: ops.sum(last * last), lambda: ops.sum(last))
        optimizer.apply(tape.gradient(loss, [w]), [w])
        return {"loss": loss}

    first = step(X)
    session = TrainingSession(step.export(tmp_path / "artifact"))
    for x in (X, -X, np.concatenate([X, X])):
        np.testing.assert_allclose(session.step(x=x)["loss"], step(x)["loss"].numpy(), rtol=1e-6)
    np.testing.assert_allclose(session.state_dict()["w"], w.numpy(), rtol=1e-6)
    assert first["loss"].item() != 0.0
