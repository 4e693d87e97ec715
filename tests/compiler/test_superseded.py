"""Operators that their own gradients compute again: the pass that drops the first computation."""

from __future__ import annotations

import numpy as np

from onnxtape.compiler.passes.superseded import UseSuperseding
from tests.compiler.graphs import FLOAT64, new_graph, run
from tests.compiler.pass_checks import apply, operators


def test_users_and_outputs_take_the_second_computation() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    first = b.op("Exp", x)
    first.name = "result"
    used = b.op("Neg", first)
    graph.outputs.extend([used, first])
    b.supersede(first, lambda: b.op("Pow", b.constant(np.asarray(np.e)), x))
    b.supersede(first, lambda: b.op("Cos", x))
    expected = run(graph, {"x": np.asarray([0.5, -1.0])})
    assert apply(UseSuperseding(), graph)
    assert graph.outputs[1].name == "result"
    # Sorted: what makes a value comes before what uses it. The first computation is dead code.
    assert operators(graph) == ["Exp", "Pow", "Neg"]
    for found, wanted in zip(run(graph, {"x": np.asarray([0.5, -1.0])}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    assert not apply(UseSuperseding(), graph)
