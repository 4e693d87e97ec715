"""Gradients by expansion: an operator written with simpler ones, or by its schema's function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxtape.compiler import (
    GradientError,
    differentiate,
    refuse,
    registry,
)
from onnxtape.compiler.expansion import expand_by_schema, expansion
from tests.compiler.graphs import FLOAT64, Array, Evaluator, new_graph, spread


@pytest.fixture
def without_rule(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take an operator's rule away for the length of a test."""

    def take(op_type: str) -> None:
        registry.lookup(op_type)  # loads the rules
        monkeypatch.setattr(registry, "_TABLE", {**registry._TABLE})
        monkeypatch.setattr(registry, "_REFUSED", {**registry._REFUSED})
        registry._TABLE.pop(op_type)

    return take


def values(graph: Any, wanted: list[Any], **feeds: Array) -> list[Array]:
    return Evaluator(graph, wanted)(feeds)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_body_of_the_schema(without_rule: Any, approximate: str) -> None:
    def gradient_and_second() -> list[Array]:
        graph, b = new_graph()
        x = b.input("x", FLOAT64, ("n",))
        y = b.op("Gelu", x, approximate=approximate)
        (dx,) = differentiate(graph, [y], [x])
        (ddx,) = differentiate(graph, [dx], [x])
        return values(graph, [dx, ddx], x=spread((7,)))

    by_rule = gradient_and_second()
    without_rule("Gelu")
    expand_by_schema("Gelu")
    for found, expected in zip(gradient_and_second(), by_rule, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_value_that_is_two_inputs_gets_its_gradient_once(without_rule: Any) -> None:
    without_rule("Mul")

    @expansion("Mul")
    def multiply(b: Any, n: Any) -> list[Any]:
        # a * b == a / (1 / b)
        return [b.op("Div", n.required(0), b.op("Reciprocal", n.required(1)))]

    graph, b = new_graph()
    x = b.input("x", FLOAT64, (5,))
    (dx,) = differentiate(graph, [b.op("Mul", x, x)], [x])
    point = spread((5,))
    np.testing.assert_allclose(values(graph, [dx], x=point)[0], 2 * point, rtol=1e-9)


def test_an_output_that_the_expansion_does_not_cover(without_rule: Any) -> None:
    without_rule("Split")

    @expansion("Split")
    def split(b: Any, n: Any) -> list[Any]:
        return [b.op("Slice", n.required(0), [0], [1]), None]

    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    first, second = b.op_multi("Split", x, outputs=2, num_outputs=2)
    (dx,) = differentiate(graph, [first], [x])
    assert values(graph, [dx], x=np.ones(2))[0].tolist() == [1, 0]
    with pytest.raises(GradientError, match=r"Split .*its expansion does not cover output 1"):
        differentiate(graph, [second], [x])


def test_a_refused_operator_says_why(without_rule: Any) -> None:
    without_rule("Sin")
    refuse("Sin", because="nobody knows its derivative")
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    with pytest.raises(GradientError, match="nobody knows its derivative; it lies between"):
        differentiate(graph, [b.op("Sin", x)], [x])
    assert registry.refusals()["Sin"] == "nobody knows its derivative"
    with pytest.raises(ValueError, match="Sin has a gradient rule already"):
        refuse("Sin", because="twice")
