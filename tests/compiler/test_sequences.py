"""Tensors that pass through sequences and optionals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GradientError, GraphBuilder, differentiate
from tests.compiler.graphs import FLOAT64, INT64, Array, Evaluator, new_graph, spread


def position(b: GraphBuilder, number: int) -> ir.Value:
    return b.constant(np.asarray(number, np.int64))


def construct(b: GraphBuilder, x: ir.Value) -> ir.Value:
    """[x^2, sin x, x]"""
    return b.op("SequenceConstruct", b.op("Mul", x, x), b.op("Sin", x), x)


def at(place: int) -> Callable[[GraphBuilder, ir.Value], ir.Value]:
    return lambda b, x: b.op("SequenceAt", construct(b, x), position(b, place))


def inserted(place: int | None, wanted: int) -> Callable[[GraphBuilder, ir.Value], ir.Value]:
    def program(b: GraphBuilder, x: ir.Value) -> ir.Value:
        empty = b.op("SequenceEmpty", dtype=11)
        one = b.op("SequenceInsert", empty, b.op("Sin", x))
        two = b.op("SequenceInsert", one, b.op("Mul", x, x))
        places = [] if place is None else [position(b, place)]
        three = b.op("SequenceInsert", two, b.op("Exp", x), *places)
        return b.op("SequenceAt", three, position(b, wanted))

    return program


def erased(place: int | None, wanted: int) -> Callable[[GraphBuilder, ir.Value], ir.Value]:
    def program(b: GraphBuilder, x: ir.Value) -> ir.Value:
        places = [] if place is None else [position(b, place)]
        rest = b.op("SequenceErase", construct(b, x), *places)
        return b.op("SequenceAt", rest, position(b, wanted))

    return program


def split(sizes: Any, wanted: int, **attributes: int) -> Callable[[GraphBuilder, Any], ir.Value]:
    def program(b: GraphBuilder, x: ir.Value) -> ir.Value:
        given = [] if sizes is None else [b.constant(np.asarray(sizes, np.int64))]
        parts = b.op("SplitToSequence", b.op("Mul", x, x), *given, **attributes)
        return b.op("SequenceAt", parts, position(b, wanted))

    return program


def joined(**attributes: int) -> Callable[[GraphBuilder, ir.Value], ir.Value]:
    return lambda b, x: b.op("ConcatFromSequence", construct(b, x), **attributes)


def copied(b: GraphBuilder, x: ir.Value) -> ir.Value:
    parts = b.op("Identity", b.op("SplitToSequence", x, axis=1))
    return b.op("SequenceAt", parts, position(b, 1))


def optional(b: GraphBuilder, x: ir.Value) -> ir.Value:
    return b.op("OptionalGetElement", b.op("Optional", b.op("Mul", x, x)))


def optional_sequence(b: GraphBuilder, x: ir.Value) -> ir.Value:
    sequence = b.op("OptionalGetElement", b.op("Optional", construct(b, x)))
    return b.op("SequenceAt", sequence, position(b, 0))


def element_of_a_tensor(b: GraphBuilder, x: ir.Value) -> ir.Value:
    return b.op("OptionalGetElement", b.op("Mul", x, x))


#: The program, and its result in NumPy.
PROGRAMS: dict[str, tuple[Callable[[GraphBuilder, ir.Value], ir.Value], Callable[[Array], Any]]] = {
    "first": (at(0), lambda x: x * x),
    "last": (at(-1), lambda x: x),
    "inserted at the end": (inserted(None, 2), np.exp),
    "inserted in front": (inserted(0, 1), np.sin),
    "inserted before the last": (inserted(-1, 1), np.exp),
    "erased the last": (erased(None, -1), np.sin),
    "erased the first": (erased(0, 0), np.sin),
    "erased one from the end": (erased(-1, -1), np.sin),
    "split in rows": (split(None, 1), lambda x: x[1:2] ** 2),
    "split in vectors": (split(None, 2, axis=1, keepdims=0), lambda x: x[:, 2] ** 2),
    "split by a number": (split(2, 1, axis=1), lambda x: x[:, 2:] ** 2),
    "split by a number, last axis": (split(2, 0, axis=-1), lambda x: x[:, :2] ** 2),
    "split by sizes": (split([1, 2], 1, axis=1), lambda x: x[:, 1:] ** 2),
    "concatenated": (joined(axis=1), lambda x: np.concatenate([x * x, np.sin(x), x], 1)),
    "stacked": (joined(axis=0, new_axis=1), lambda x: np.stack([x * x, np.sin(x), x])),
    "stacked at the end": (
        joined(axis=-1, new_axis=1),
        lambda x: np.stack([x * x, np.sin(x), x], -1),
    ),
    "copied": (copied, lambda x: x[:, 1:2]),
    "optional": (optional, lambda x: x * x),
    "optional sequence": (optional_sequence, lambda x: x * x),
    "element of a tensor": (element_of_a_tensor, lambda x: x * x),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradient(name: str) -> None:
    """Against central differences of the NumPy function; and once more, of the gradient."""
    program, function = PROGRAMS[name]
    graph, b = new_graph()
    x, point = b.input("x", FLOAT64, (2, 3)), spread((2, 3))
    y = program(b, x)
    shape = b.shape(y)
    (first,) = differentiate(graph, [y], [x])
    assert first is not None
    (second,) = differentiate(graph, [b.op("Mul", first, first)], [x])
    wanted = [y, first] if second is None else [y, first, second]
    result, *found = Evaluator(graph, wanted)({"x": point})
    np.testing.assert_allclose(result, function(point), rtol=1e-12)
    if name != "optional sequence":
        assert shape is not None, "shape inference sees through sequences too"
        assert len(shape) == result.ndim
        dims = zip(shape, result.shape, strict=True)
        assert all(d == size for d, size in dims if isinstance(d, int))

    def slope(shift: Array) -> Any:
        step = 1e-4
        ends = [np.sum(function(point + shift + s)) for s in unit_steps(step)]
        return (np.asarray(ends[0::2]) - ends[1::2]).reshape(2, 3) / (2 * step)

    np.testing.assert_allclose(found[0], slope(np.zeros((2, 3))), rtol=1e-6, atol=1e-6)
    if second is not None:
        step = 1e-4
        ends = [np.sum(slope(s) ** 2) for s in unit_steps(step)]
        expected = (np.asarray(ends[0::2]) - ends[1::2]).reshape(2, 3) / (2 * step)
        np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-4)


def unit_steps(step: float) -> list[Array]:
    """One step forward and one back along each element of a (2, 3) array."""
    units = np.eye(6).reshape(6, 2, 3) * step
    return [sign * unit for unit in units for sign in (1, -1)]


def test_a_symbolic_axis_split_by_sizes() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, "n"))
    parts = b.op("SplitToSequence", x, b.constant(np.asarray([1, 2])), axis=1)
    y = b.op("SequenceAt", parts, position(b, 0))
    (dx,) = differentiate(graph, [y], [x])
    (found,) = Evaluator(graph, [dx])({"x": np.zeros((2, 3))})
    np.testing.assert_array_equal(found, [[1, 0, 0], [1, 0, 0]])


REFUSED = "sequences are seen through only where their contents and the positions are known"


@pytest.mark.parametrize("operator", ["SequenceAt", "SequenceInsert", "SplitToSequence"])
def test_what_comes_at_run_time_is_refused(operator: str) -> None:
    graph, b = new_graph()
    x, place = b.input("x", FLOAT64, (2, 3)), b.input("place", INT64, ())
    if operator == "SequenceAt":
        y = b.op("SequenceAt", construct(b, x), place)
    elif operator == "SequenceInsert":
        longer = b.op("SequenceInsert", construct(b, x), x, place)
        y = b.op("SequenceAt", longer, position(b, 0))
    else:
        y = b.op("SequenceAt", b.op("SplitToSequence", x, place), position(b, 0))
    with pytest.raises(GradientError, match=REFUSED):
        differentiate(graph, [y], [x])


@pytest.mark.parametrize("place", [-4, 3])
def test_a_position_that_does_not_exist_is_refused(place: int) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 3))
    y = b.op("SequenceAt", construct(b, x), position(b, place))
    with pytest.raises(GradientError, match=REFUSED):
        differentiate(graph, [y], [x])


def test_a_sequence_beside_the_path_does_no_harm() -> None:
    graph, b = new_graph()
    x, place = b.input("x", FLOAT64, (2, 3)), b.input("place", INT64, ())
    b.op("SequenceAt", construct(b, x), place)
    (dx,) = differentiate(graph, [b.op("Mul", x, 2.0)], [x])
    (found,) = Evaluator(graph, [dx])({"x": spread((2, 3)), "place": np.asarray(0)})
    np.testing.assert_array_equal(found, np.full((2, 3), 2.0))
