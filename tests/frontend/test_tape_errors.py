"""What a GradientTape refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.compiler import registry
from onnxtape.errors import DtypeError, GradientError, ShapeError
from tests.frontend.test_tape import both, tensor

ops = ot.ops


@both
@pytest.mark.parametrize(
    ("use", "kind", "text"),
    [
        (
            lambda tape, x: tape.gradient(ops.cast(x, "int32"), x),
            GradientError,
            "needs a floating-point target, not int32",
        ),
        (
            lambda tape, x: (tape.gradient(x * 2, x), tape.gradient(x * 2, x)),
            RuntimeError,
            r"one set of gradients; use GradientTape\(persistent=True\)",
        ),
        (
            lambda tape, x: tape.gradient(x * 2, np.ones(2)),
            TypeError,
            "by tensors and variables, not ndarray",
        ),
        (
            lambda tape, x: tape.gradient(x * 2, x, unconnected_gradients="None"),
            ValueError,
            "unconnected_gradients is 'none' or 'zero', not 'None'",
        ),
        (lambda tape, x: tape.watch(3.0), TypeError, "takes tensors and variables, not float"),
        (
            lambda tape, x: tape.watch(ops.cast(x, "int64")),
            TypeError,
            "takes floating-point tensors, not int64",
        ),
        (
            lambda tape, x: tape.gradient(x * 2, x, output_gradients=np.ones(3, np.float32)),
            ShapeError,
            r"output gradient has shape \(3,\), its target \(2,\)",
        ),
        (
            lambda tape, x: tape.gradient([x * 2, x], x, output_gradients=[x]),
            ValueError,
            "1 output gradients were given for 2 targets",
        ),
        (lambda tape, x: tape.__enter__(), ValueError, "this tape is recording already"),
    ],
    ids=[
        "integer target",
        "second call",
        "array source",
        "unconnected",
        "watch number",
        "watch integers",
        "output gradient",
        "too few output gradients",
        "nested in itself",
    ],
)
def test_refusals(run: Any, use: Callable[..., Any], kind: type[Exception], text: str) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            x = x * 1
            return use(tape, x)

    with pytest.raises(kind, match=text):
        run(step, tensor([1, 2]))
    # And the tape is off the stack again.
    assert ot.GradientTape().watched_variables() == ()
    assert not ot.tensor.context.state.tapes


@pytest.fixture
def erf_without_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.lookup("Erf")  # loads the rules
    table = {op: rule for op, rule in registry._TABLE.items() if op != "Erf"}
    monkeypatch.setattr(registry, "_TABLE", table)


@both
@pytest.mark.usefixtures("erf_without_rule")
def test_an_operator_without_a_gradient_is_named_with_the_users_line(run: Any) -> None:
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = ops.sum(no_rule(x))
        return tape.gradient(y, x)

    with pytest.raises(GradientError) as caught:
        run(step, tensor([[1.0, 2.0], [3.0, 5.0]]))
    text = str(caught.value)
    assert "Erf has no gradient rule" in text
    assert "ot.stop_gradient" in text
    line = no_rule.__code__.co_firstlineno + 1
    assert f"test_tape_errors.py:{line}" in text


def no_rule(x: Any) -> Any:
    return ot.engine.B.op("Erf", x)


@both
def test_dtypes_that_do_not_meet_are_refused_where_they_meet(run: Any) -> None:
    def step(x: Any) -> Any:
        return ot.engine.B.op("Add", x, ops.cast(x, "float64"))

    with pytest.raises(DtypeError, match=r"Add .*(?s:.*)test_tape_errors\.py:\d+"):
        run(step, tensor([1, 2]))


@pytest.mark.usefixtures("erf_without_rule")
def test_a_layer_is_named_where_its_gradient_fails() -> None:
    class ErrorFunction(ot.layers.Layer):
        def call(self, x: Any) -> Any:
            return no_rule(x)

    layer = ErrorFunction(name="erf")
    x = tensor([[1.0, 2.0], [3.0, 5.0]])
    with ot.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    with pytest.raises(GradientError, match="in layer 'erf'"):
        tape.gradient(y, x)


def test_tapes_of_threads_do_not_see_each_other() -> None:
    import threading

    x = tensor([1, 2])
    seen: list[Any] = []

    def work() -> None:
        seen.append(list(ot.tensor.context.state.tapes))

    with ot.GradientTape() as tape:
        tape.watch(x)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        y = x * x
    assert seen == [[]]
    np.testing.assert_array_equal(tape.gradient(y, x), [2, 4])
