"""Branches and loops that do not fit, and what cannot be had inside them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import engine
from tests.frontend.test_control_flow import X, both, stateless, tensor

ops = ot.ops


def refused(function: Callable[..., Any], kind: type[Exception], *parts: str) -> None:
    step = ot.function(function, fallback="error")
    with pytest.raises(kind) as caught:
        step(tensor(1.0, 2.0))
    for part in (*parts, "test_control_flow_errors.py"):
        assert re.search(part, str(caught.value)), str(caught.value)


def test_branches_that_differ() -> None:
    def branch(first: Any, second: Any) -> Callable[[Any], Any]:
        return lambda x: ot.cond(ops.sum(x) > 0, lambda: first(x), lambda: second(x))

    refused(
        branch(lambda x: {"a": [x, x]}, lambda x: {"a": [x]}),
        ValueError,
        r"the branches of cond differ in structure at 'a': true_fn returned a list of 2, "
        r"false_fn a list of 1",
    )
    refused(
        branch(lambda x: {"a": x}, lambda x: {"b": x}),
        ValueError,
        r"true_fn returned a dict with the keys a, false_fn a dict with the keys b",
    )
    refused(branch(lambda x: x, lambda x: None), ValueError, "a tensor, false_fn None")
    refused(
        branch(lambda x: {"a": x}, lambda x: {"a": ops.cast(x, "int32")}),
        TypeError,
        r"differ in dtype at 'a': true_fn returned float32, false_fn int32; .*ops.cast",
    )
    refused(
        branch(lambda x: x, lambda x: ops.sum(x)),
        ValueError,
        r"differ in shape: true_fn returned \(2,\), false_fn \(\)",
    )
    refused(lambda x: ot.cond(x > 0, lambda: x, lambda: x), ValueError, r"must be a scalar.*\(2,\)")


LOOPS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "shape": (
        lambda x: ot.fori_loop(0, 3, lambda i, v: ops.concatenate([v, v]), x),
        r"the loop variables of fori_loop differ in shape: given \(2,\), returned \(4,\)",
    ),
    "dtype": (
        lambda x: ot.while_loop(lambda v: ops.sum(v) < 9.0, lambda v: ops.cast(v, "float64"), x),
        r"the loop variables of while_loop differ in dtype: given float32, returned float64",
    ),
    "structure": (
        lambda x: ot.scan(lambda c, r: ((c, c), None), 0.0, x),
        r"the carry of scan differ in structure: given a tensor, returned a tuple of 2",
    ),
    "pair": (lambda x: ot.scan(lambda c, r: c, 0.0, x), r"returns a pair \(carry, y\), not Tensor"),
    "lengths": (
        lambda x: ot.scan(lambda c, r: (c, r), 0.0, [x, x[:1]]),
        r"the leaves of xs, and length, differ: \[1, 2\]",
    ),
    "no length": (lambda x: ot.scan(lambda c, r: (c, r), 0.0), "scan needs xs or length"),
    "empty": (lambda x: ot.scan(lambda c, r: (c, r), 0.0, x[:0]), "at least one step"),
    "unroll": (lambda x: ot.scan(lambda c, r: (c, r), 0.0, x, unroll=0), "unroll is True or a pos"),
    "no branches": (lambda x: ops.switch(1, []), "at least one branch"),
}


@pytest.mark.parametrize("name", sorted(LOOPS))
@pytest.mark.parametrize("compiled", [False, True])
def test_loops_that_do_not_fit(name: str, compiled: bool) -> None:
    function, message = LOOPS[name]
    step = ot.function(function, fallback="error") if compiled else function
    with pytest.raises((ValueError, TypeError), match=message):
        step(tensor(1.0, 2.0))


def test_a_tensor_that_leaks_out_of_a_body() -> None:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        ot.cond(ops.sum(x) > 0, lambda: kept.append(x * 2.0), lambda: None)
        return kept[0] + x

    refused(f, ot.errors.TracingError, "made in a branch or in the body of a loop was used outside")


def test_a_watched_variable_assigned_in_a_loop() -> None:
    w = ot.Variable(1.0, name="w")

    def f(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y, _ = ot.scan(lambda c, r: (c + w.assign_add(r) * 1.0, None), 0.0, x)
        return tape.gradient(y, w)

    refused(f, ot.errors.VariableError, "variable 'w' is assigned in the body of a loop")


def test_the_functional_api_has_no_branches() -> None:
    x = ot.Input([2])
    with pytest.raises(ot.errors.TracingError, match=r"(?s)functional API.*call method of a layer"):
        ot.cond(ops.sum(x) > 0, lambda: x, lambda: -x)


def test_layers_with_control_flow_in_functional_models() -> None:
    class Folded(ot.layers.Layer):
        def build(self, shape: Any) -> None:
            self.w = self.add_weight((shape[-1],), "ones", name="w")

        def call(self, x: Any) -> Any:
            rows = ops.transpose(x, (1, 0, 2))
            last, ys = ot.scan(lambda c, r: (c * 0.5 + r * self.w, c), rows[0] * 0.0, rows)
            last = ot.cond(ops.sum(last) > 0, lambda: last, lambda: -last)
            last = ot.fori_loop(0, 2, lambda i, v: v + 1.0, last)
            last = ot.while_loop(lambda v: ops.sum(v) < 0.0, lambda v: v + 1.0, last)
            return last, ops.transpose(ys, (1, 0, 2))

    x = ot.Input([3, 2])
    last, ys = Folded()(x)
    assert (last.shape, ys.shape) == ((None, 2), (None, 3, 2))
    model = ot.Model(x, [last, ys])
    batch = np.arange(12, dtype=np.float32).reshape(2, 3, 2) - 4.0
    rows = batch.transpose(1, 0, 2)
    state = rows[0] * 0.25 + rows[1] * 0.5 + rows[2]
    for call in (model, ot.function(model.__call__, fallback="error")):
        found, states = call(ot.Tensor(batch))
        np.testing.assert_allclose(found.numpy(), state * np.sign(state.sum()) + 2.0, rtol=1e-6)
        np.testing.assert_allclose(states.numpy()[:, 1], rows[0], rtol=1e-6)


def test_an_error_in_a_body_names_the_line() -> None:
    step = ot.function(
        lambda x, n: ot.fori_loop(0, 2, lambda i, v: v + ops.take(x, n), x), fallback="error"
    )
    with pytest.raises(ot.errors.ExecutionError, match=r"(?s)test_control_flow_errors.py:\d+"):
        step(tensor(1.0, 2.0), ot.convert_to_tensor(9))


def test_eager_mode_has_no_subgraphs() -> None:
    with pytest.raises(TypeError, match="TensorBuilder builds no graph that could hold subgraphs"):
        engine.B.nested("body")


def test_falling_back_keeps_the_numbers() -> None:
    @ot.function
    def step(x: Any) -> Any:
        y = ot.fori_loop(0, 3, lambda i, v: v * 2.0, x)
        return y if float(ops.sum(y)) > 0 else -y

    with pytest.warns(ot.FallbackWarning, match="float"):
        assert step(tensor(1.0)).tolist() == [8.0]
    assert step(tensor(-1.0)).tolist() == [8.0]


def test_the_value_of_an_outer_tensor_is_asked_for_in_a_body() -> None:
    refused(
        lambda x: ot.cond(ops.sum(x) > 0, lambda: x * float(x[0]), lambda: x),
        ot.errors.TracingError,
        "no value while the step is traced, but float",
        "what the step computes with it stays a tensor",
    )


def test_what_a_tape_outside_cannot_see() -> None:
    @ot.custom_gradient
    def twice(x: Any) -> Any:
        return x * 1.0, lambda upstream: upstream * 2.0

    def recorded(inside: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            with ot.GradientTape() as tape:
                tape.watch(x)
                y = ot.cond(ops.sum(x) > 0, lambda: inside(tape, x), lambda: x)
            return tape.gradient(y, x)

        return f

    def paused(tape: Any, x: Any) -> Any:
        with tape.stop_recording():
            return x * 2.0

    refused(
        recorded(lambda _, x: twice(x)), ot.errors.GradientError, "twice is called in a branch or"
    )
    refused(recorded(paused), ot.errors.TracingError, "Use ot.stop_gradient inside")
    # Where no tape records around it, it is what it is.
    both(stateless(lambda x: ot.cond(ops.sum(x) > 0, lambda: twice(x), lambda: x)), tensor(1.0))


def test_recomputed_blocks_may_hold_loops() -> None:
    def make() -> Any:
        w = ot.Variable([0.5, -0.7])
        count = ot.Variable(0, trainable=False)

        def block(x: Any) -> Any:
            def step(carry: Any, row: Any) -> Any:
                count.assign_add(1)
                noise = ot.random.uniform([2])
                return ops.tanh(carry * w + row + noise), None

            return ot.scan(step, ops.zeros([2]), x)[0]

        def f(x: Any) -> Any:
            with ot.GradientTape() as tape:
                loss = ops.sum(ot.recompute(block)(x) ** 2)
            return loss, tape.gradient(loss, w)

        return f, [count]

    _, (count,) = both(make, ot.Tensor(X))
    assert count == 6


def test_checking_numerics_runs_loops() -> None:
    ot.debugging.enable_check_numerics()
    step = ot.function(lambda x: ot.fori_loop(0, 3, lambda i, v: v * x, x), fallback="error")
    assert step(tensor(2.0)).tolist() == [16.0]
    with pytest.raises(ot.errors.NumericsError, match="Loop made an infinity"):
        step(tensor(1e20))
