"""What operators cost, by estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxtape.compiler.passes.costs import estimated_seconds, flop_count
from tests.compiler.graphs import new_graph

FLOAT32 = np.dtype(np.float32)


def test_a_product_of_matrices_costs_its_multiplications() -> None:
    graph, b = new_graph()
    product = b.op("MatMul", b.input("x", FLOAT32, (8, 32)), b.input("w", FLOAT32, (32, 4)))
    assert flop_count(graph[0]) == 2 * 8 * 32 * 4
    once = estimated_seconds(graph)
    b.op("Tanh", product)
    assert once < estimated_seconds(graph) < 2 * once


def test_more_numbers_cost_more() -> None:
    seconds = []
    for count in (1 << 10, 1 << 20):
        graph, b = new_graph()
        b.op("Tanh", b.input("x", FLOAT32, (count,)))
        seconds.append(estimated_seconds(graph))
    assert seconds[1] > 20 * seconds[0]


@pytest.mark.parametrize(
    ("shape", "operator"), [(("batch", 4), "Tanh"), ((None, 4), "Tanh"), ((4, 4), "Einsum")]
)
def test_nobody_knows(shape: tuple[int | str | None, ...], operator: str) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, shape)
    b.op("Tanh", x) if operator == "Tanh" else b.op("Einsum", x, equation="ij->i")
    assert estimated_seconds(graph) == math.inf
