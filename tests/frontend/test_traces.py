"""`ot.function`: what makes it give up symbolic sizes, and what is a defect that it shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.compiler.graph_builder import GraphBuilder


def ones(rows: int) -> Any:
    return np.ones((rows, 3), "f")


def triple(x: Any) -> Any:
    return x * 3


def break_on_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the compiler for symbolic dimensions, and only for those."""
    plain = GraphBuilder.emit
    # A function of the compiler's, as a traceback shows it.
    source = """def emit(self, op_type, inputs, *args, **kwargs):
        if any(isinstance(d, str) for x in inputs for d in self.shape(x) or ()):
            raise TypeError("unsupported operand type(s) for +: 'NoneType' and 'int'")
        return plain(self, op_type, inputs, *args, **kwargs)
    """
    defined: dict[str, Any] = {"__name__": "onnxtape.compiler.graph_builder", "plain": plain}
    exec(source, defined)
    monkeypatch.setattr(GraphBuilder, "emit", defined["emit"])


def test_what_breaks_in_the_compiler_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ot.function(triple)
    step(ones(2))
    break_on_symbols(monkeypatch)
    with pytest.raises(TypeError, match="NoneType"):
        step(ones(4))
    with pytest.raises(TypeError, match="NoneType"):
        step.get_symbolic_function(ones(2))


def test_what_breaks_once_there_is_a_graph_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    step, scaled = ot.function(triple), ot.function(lambda x, number: x * number)
    step(ones(2))
    scaled(ones(2), 2)

    def compiled(*_: Any) -> Any:
        raise ValueError("a pass is wrong")

    monkeypatch.setattr("onnxtape.concrete.compile_step", compiled)
    with pytest.raises(ValueError, match="a pass is wrong"):
        step(ones(4))
    with pytest.raises(ValueError, match="a pass is wrong"):
        scaled(ones(2), 3)
    assert step.trace_count == scaled.trace_count == 2


class TooFewError(Exception):
    """The user's own."""


def own_error(x: Any) -> Any:
    if not isinstance(x.shape[0], int):
        raise TooFewError
    return triple(x)


@pytest.mark.parametrize(
    "needs_sizes",
    [
        own_error,
        lambda x: triple(x) + np.zeros(x.shape, "f"),
        lambda x: {2: triple, 4: triple, 5: triple}[x.shape[0]](x),
        lambda x: ot.ops.concatenate(ot.ops.unstack(triple(x[None]), axis=1)),
        lambda x: ot.ops.matmul(x, np.ones((3, 3), "f")) if x.shape[0] > 2 else triple(x),
    ],
    ids=["own error", "numpy", "key", "refused", "if"],
)
def test_what_needs_sizes_has_a_trace_for_each(needs_sizes: Any) -> None:
    step = ot.function(needs_sizes, fallback="error")
    for rows in (2, 4, 5, 4):
        np.testing.assert_array_equal(step(ones(rows)), 3 * ones(rows))
    assert step.trace_count == 4
