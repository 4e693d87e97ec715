"""Rows of which some belong to the same place, and adding them to a table."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.distinct_rows import Rows, add_rows, distinct_rows, row_sums
from onnxtape.compiler.passes.add_to_rows import AddToRows
from onnxtape.compiler.passes.cuda.added_rows import AddRowsOfFixedShape
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from tests.compiler.graphs import Array, new_graph, run
from tests.compiler.pass_checks import apply, operators

FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)

PLACES = {
    "none": [],
    "one": [3],
    "all different": [4, 0, 2],
    "all equal": [2, 2, 2, 2],
    "some equal": [5, 1, 5, 0, 3, 1, 5],
    "counted from both ends": [-1, 5, 5, -6, 0],
}


def _numbered(name: str) -> tuple[Array, Array]:
    """Places, and as many rows."""
    places = np.array(PLACES[name], np.int64)
    return places, np.random.default_rng(0).integers(-9, 9, (len(places), 2, 3)).astype("f")


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", PLACES)
def test_each_place_is_there_once_with_its_sum(name: str, symbolic: bool) -> None:
    places, rows = _numbered(name)
    count = "n" if symbolic else len(places)
    graph, b = new_graph()
    given = b.input("places", INT64, (count,)), b.input("rows", FLOAT32, (count, 2, 3))
    found = distinct_rows(b, b.constant([6]), *given)
    # Shapes that the checker can see.
    graph.outputs.append(b.op("Reshape", found.places, [-1, 1]))
    sums = b.op("Concat", found.alone, found.sums, axis=0)
    graph.outputs.append(b.op("Reshape", sums, [-1, 2, 3]))
    kept, sums = run(graph, {"places": places, "rows": rows})
    wrapped = kept[:, 0] % 6
    assert sorted(wrapped) == sorted(set(places % 6))
    expected = np.zeros((6, 2, 3), "f")
    np.add.at(expected, places, rows)
    np.testing.assert_array_equal(sums, expected[wrapped])


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", PLACES)
def test_one_row_of_each_place_has_its_sum(name: str, symbolic: bool) -> None:
    places, rows = _numbered(name)
    count = "n" if symbolic else len(places)
    graph, b = new_graph()
    given = b.input("places", INT64, (count,)), b.input("rows", FLOAT32, (count, 2, 3))
    found = row_sums(b, b.constant([6]), *given)
    assert b.shape(found) == (count, 2, 3)
    graph.outputs.append(found)
    (sums,) = run(graph, {"places": places, "rows": rows})
    for place in set(places % 6):
        own = places % 6 == place
        assert np.count_nonzero(np.any(sums[own], axis=(1, 2))) <= 1
        np.testing.assert_array_equal(sums[own].sum(0), rows[own].sum(0))
    assert "Compress" not in operators(graph)


@pytest.mark.parametrize("square", [None, 0.5])
def test_rows_are_added_in_a_fixed_shape(square: float | None) -> None:
    places = np.int64([5, 1, -1, 0, 3, 1, 5])
    rows = np.random.default_rng(0).integers(-9, 9, (7, 4)).astype("f")
    table = np.random.default_rng(1).integers(-9, 9, (6, 4)).astype("f")
    graph, b = new_graph()
    values = b.input("table", FLOAT32, (6, 4)), b.input("places", INT64, (7,))
    distinct = distinct_rows(b, b.constant([6]), values[1], b.input("rows", FLOAT32, (7, 4)))
    made = add_rows(b, values[0], distinct, square=square)
    graph.outputs.append(b.op("Neg", made))
    feeds = {"table": table, "places": places, "rows": rows}
    before = run(graph, feeds)[0]
    sums = np.zeros((6, 4), "f")
    np.add.at(sums, places, rows)
    expected = table + (sums if square is None else (square * sums) ** 2)
    np.testing.assert_array_equal(before, -expected)
    assert apply(AddRowsOfFixedShape(), graph)
    apply(RemoveDeadCode(), graph)
    assert "Compress" not in operators(graph)
    np.testing.assert_array_equal(run(graph, feeds)[0], before)


def added(b: GraphBuilder, table: ir.Value, axis: int | None = None) -> ir.Value:
    places, sums = b.input("places", INT64, (2, 1)), b.input("sums", FLOAT32, (2, 4))
    if axis is None:
        alone, several = (b.op("Slice", sums, [i], [i + 1], [0]) for i in range(2))
        return add_rows(b, table, Rows(places, alone, several, (places, sums)))
    before = b.op("Gather", table, b.op("Squeeze", places, [-1]), axis=axis)
    return b.op("ScatterND", table, places, b.op("Add", sums, before))


FEEDS: dict[str, Array] = {
    "table": np.arange(16, dtype="f").reshape(4, 4),
    "places": np.int64([[3], [0]]),
    "sums": np.ones((2, 4), "f"),
}


def test_rows_are_added_to_a_table() -> None:
    graph, b = new_graph()
    graph.outputs.append(added(b, b.input("table", FLOAT32, (4, 4))))
    (got,) = run(graph, FEEDS)
    np.testing.assert_array_equal(got - FEEDS["table"], np.outer([1, 0, 0, 1], np.ones(4)))


@pytest.mark.parametrize("axis", [None, 0])
def test_what_is_read_added_to_and_written_is_added(axis: int | None) -> None:
    graph, b = new_graph()
    graph.outputs.append(added(b, b.input("table", FLOAT32, (4, 4)), axis))
    before = run(graph, FEEDS)[0]
    assert apply(AddToRows(), graph)
    assert not apply(AddToRows(), graph)
    (node,) = (node for node in graph if node.op_type == "ScatterND")
    assert node.attributes["reduction"].as_string() == "add"
    maker = node.inputs[2].producer()
    assert (maker.op_type if maker else graph.inputs[2].name) == ("sums" if axis == 0 else "Concat")
    np.testing.assert_array_equal(run(graph, FEEDS)[0], before)


def test_rows_from_elsewhere_are_written() -> None:
    """Another axis, other places, another table, and new rows that somebody reads too."""
    graph, b = new_graph()
    table, other = b.input("table", FLOAT32, (4, 2)), b.input("other", FLOAT32, (4, 2))
    one, two = b.input("one", INT64, (2, 1)), b.input("two", INT64, (2, 1))
    sums = b.input("sums", FLOAT32, (2, 2))

    def written(read: ir.Value, places: ir.Value, axis: int = 0) -> ir.Value:
        before = b.op("Gather", read, b.op("Squeeze", places, [-1]), axis=axis)
        before = b.op("Slice", before, [0], [2], [0])
        return b.op("Add", before, sums)

    shared = b.op("Add", b.op("Gather", table, b.op("Squeeze", one, [-1])), sums)
    for new in (written(other, one), written(table, two), written(table, one, 1), shared):
        graph.outputs.append(b.op("ScatterND", table, one, new))
    graph.outputs.append(b.op("Neg", shared))
    assert not apply(AddToRows(), graph)
    assert operators(graph).count("ScatterND") == 4
