"""Rows gathered from copies of a table's rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.repeated_rows import GatherRepeatedRows
from tests.compiler.graphs import new_graph, run
from tests.compiler.pass_checks import apply, operators

FLOAT32 = np.dtype(np.float32)
BAGS, TIMES, WIDTH = 4, 3, 2


def copies(b: GraphBuilder) -> Any:
    bags = b.input("bags", FLOAT32, (BAGS, 1, WIDTH))
    return b.op("Reshape", b.op("Expand", bags, [BAGS, TIMES, WIDTH]), [BAGS * TIMES, WIDTH])


def chosen(b: GraphBuilder) -> Any:
    mask = b.op("Cast", b.input("mask", FLOAT32, (BAGS * TIMES,)), to=9)
    return b.op("Compress", b.constant(np.arange(BAGS * TIMES)), mask, axis=0)


def feeds() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mask = (rng.random(BAGS * TIMES) < 0.5).astype("f")
    return {"bags": rng.integers(-9, 9, (BAGS, 1, WIDTH)).astype("f"), "mask": mask}


def test_rows_and_their_products_come_from_the_table() -> None:
    graph, b = new_graph()
    table, places = copies(b), chosen(b)
    rows = b.op("Gather", table, places, axis=0)
    graph.outputs.append(b.op("Mul", b.op("Mul", rows, 0.5), rows))
    graph.outputs.append(b.op("Neg", b.op("Gather", table, places)))
    before = run(graph, feeds())
    assert apply(GatherRepeatedRows(), graph)
    assert not apply(GatherRepeatedRows(), graph)
    apply(RemoveDeadCode(), graph)
    assert "Expand" not in operators(graph)
    assert operators(graph).count("Gather") == 2
    shapes = [v.shape for node in graph if node.op_type == "Mul" for v in node.outputs]
    assert shapes == [(BAGS, WIDTH), (BAGS, WIDTH)]
    for mine, theirs in zip(run(graph, feeds()), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("case", ["counted from the end", "axis", "not copies", "other places"])
def test_what_is_left_alone(case: str) -> None:
    graph, b = new_graph()
    table, places = copies(b), chosen(b)
    if case == "counted from the end":
        mask = b.op("Cast", b.input("few", FLOAT32, (2,)), to=9)
        rows = b.op("Gather", table, b.op("Compress", np.int64([-1, 3]), mask, axis=0))
    elif case == "axis":
        rows = b.op(
            "Gather", table, b.op("Compress", np.arange(2), np.asarray([True, False])), axis=1
        )
    elif case == "not copies":
        rows = b.op("Gather", b.op("Reshape", table, [TIMES, -1, WIDTH]), places)
    else:
        rows = b.op("Mul", b.op("Neg", table), b.op("Reshape", table, [-1, WIDTH]))
    graph.outputs.append(rows)
    assert not apply(GatherRepeatedRows(), graph)
