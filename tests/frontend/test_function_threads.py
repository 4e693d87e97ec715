"""`ot.function` run eagerly, and by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import onnxtape as ot
from tests.frontend.samples import floats


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
