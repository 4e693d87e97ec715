"""Where by arithmetic on bits: what is chosen, to the bit, and what is left a Where."""

from __future__ import annotations

import numpy as np
import pytest

from onnxtape.compiler.dims import Shape
from onnxtape.compiler.passes import run_passes
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.selections import OPSET, SelectByBits
from tests.compiler.graphs import BOOL, FLOAT64, model_of, new_graph
from tests.compiler.pass_checks import apply, operators

FLOAT32 = np.dtype(np.float32)
MANY = (64, 128)


def test_values_that_several_choose_among_are_read_once() -> None:
    graph, b = new_graph()
    c, x, y = (b.input(n, d, MANY) for n, d in zip("cxy", (BOOL, FLOAT32, FLOAT32), strict=True))
    chosen = [b.op("Where", c, x, y), b.op("Where", c, y, 0.0), b.op("Where", c, 0.0, x)]
    graph.outputs.extend(chosen)
    names = [value.name for value in chosen]
    assert apply(SelectByBits(), graph)
    assert operators(graph) == [
        *("Cast", "BitCast", "BitCast", "Sub", "Mul", "Add", "BitCast"),
        *("Mul", "BitCast"),
        *("Mul", "Sub", "BitCast"),
    ]
    assert [value.name for value in graph.outputs] == names
    assert graph.opset_imports[""] == OPSET
    run_passes(model_of(graph), [RemoveDeadCode()])
    assert len(operators(graph)) == 12


@pytest.mark.parametrize(
    ("dtype", "condition", "shape"),
    [
        pytest.param(FLOAT64, MANY, MANY, id="float64"),
        pytest.param(FLOAT32, (), MANY, id="one condition"),
        pytest.param(FLOAT32, (1, 1), MANY, id="one condition of some rank"),
        pytest.param(FLOAT32, (9, 9), (9, 9), id="few"),
    ],
)
def test_the_rest_stays(dtype: np.dtype[np.generic], condition: Shape, shape: Shape) -> None:
    graph, b = new_graph()
    x, y = b.input("x", dtype, shape), b.input("y", dtype, shape)
    graph.outputs.append(b.op("Where", b.input("c", BOOL, condition), x, y))
    before = dict(graph.opset_imports)
    assert not apply(SelectByBits(), graph)
    assert graph.opset_imports == before


def test_sizes_that_are_not_known_count() -> None:
    for batch, shape in (("n", ("n", 256)), ("m", ("m", 2))):
        graph, b = new_graph()
        x = b.input("x", FLOAT32, shape)
        graph.outputs.append(b.op("Where", b.input("c", BOOL, (batch, 1)), x, 0.0))
        assert apply(SelectByBits(), graph) == (shape[1] == 256)
