"""Shapes: what is promised must hold for every size that a symbol may take.

`test_gradients.py` compares every inferred dimension of its graphs with run time; here are the
cases that decide.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder, differentiate
from onnxtape.compiler.dims import (
    Shape,
    broadcast_shapes,
    format_shape,
    is_static,
    same_dim,
    same_shape,
)
from onnxtape.compiler.inference import BROADCASTING
from tests.compiler.graphs import FLOAT64, INT64, Evaluator, check_shapes, new_graph, spread

END = np.iinfo(np.int64).max


# Dimensions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((2, 3), (3,)), (2, 3)),
        (((2, 1), (1, 3)), (2, 3)),
        (((), (2,)), (2,)),
        (((), ()), ()),
        ((("batch", 3), (3,)), ("batch", 3)),
        ((("batch",), ("batch",)), ("batch",)),
        ((("batch",), (1,)), ("batch",)),
        ((("batch",), (5,)), (5,)),
        ((("batch",), ("m",)), (None,)),
        (((None,), (None,)), (None,)),
        (((None,), ("m",)), (None,)),
        (((None,), (1,)), (None,)),
        (((0,), (1,)), (0,)),
        (((2,), (1, 2), (4, 1, 1)), (4, 1, 2)),
    ],
)
def test_broadcasting(shapes: tuple[Shape, ...], expected: Shape) -> None:
    assert broadcast_shapes(*shapes) == expected
    assert broadcast_shapes(*reversed(shapes)) == expected


def test_what_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"^2 and 3 do not broadcast$"):
        broadcast_shapes((2,), (3,))
    with pytest.raises(ValueError, match=r"^0 and 3 do not broadcast$"):
        broadcast_shapes((0,), (3,))


def test_equal_dimensions() -> None:
    assert same_dim("batch", "batch")
    assert same_dim(3, 3)
    assert not same_dim("batch", "m")
    assert not same_dim(None, None)
    assert same_shape(("batch", 3), ("batch", 3))
    assert not same_shape(("batch",), ("batch", 1))
    assert not same_shape(None, None)
    assert is_static((2, 3))
    assert is_static(())
    assert not is_static(("batch",))
    assert not is_static((None,))
    assert not is_static(None)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (None, "(unknown rank)"),
        ((), "()"),
        ((3,), "(3,)"),
        (("batch", None, 4), "(batch, ?, 4)"),
        ((None,), "(?,)"),
    ],
)
def test_shapes_in_messages(shape: Shape | None, text: str) -> None:
    assert format_shape(shape) == text


# Symbols -----------------------------------------------------------------------------------------


def declared(*shapes: Shape) -> tuple[GraphBuilder, list[ir.Value]]:
    _, b = new_graph()
    return b, [b.input(f"x{i}", FLOAT64, shape) for i, shape in enumerate(shapes)]


def test_static_and_symbolic_shapes_go_through_a_layer() -> None:
    b, (x, w, c) = declared(("batch", 784), (784, 64), (64,))
    y = b.op("Relu", b.op("Add", b.op("MatMul", x, w), c))
    assert b.shape(y) == ("batch", 64)
    assert b.shape(b.op("ReduceMean", y, [0], keepdims=0)) == (64,)
    assert b.shape(b.op("Reshape", y, [-1])) == ("64*batch",)
    assert b.shape(b.op("Transpose", y, perm=[1, 0])) == (64, "batch")
    assert b.shape(b.op("Concat", y, y, axis=0)) == ("2*batch", 64)


@pytest.mark.parametrize("op_type", sorted(BROADCASTING & {"Add", "Mul", "Where", "Max", "Sum"}))
def test_two_symbols_broadcast_to_an_unknown_dimension(op_type: str) -> None:
    b, (x, y) = declared(("batch", 3), ("m", 3))
    condition = [b.op("Greater", x, 0.0)] if op_type == "Where" else []
    z = b.op(op_type, *condition, x, y)
    (unknown, three) = b.shape(z) or ()
    assert three == 3
    assert unknown not in ("batch", "m")
    # It has a name of its own, and the result can be used like any other.
    assert isinstance(unknown, str)
    assert b.shape(b.op("Exp", z)) == (unknown, 3)
    assert b.shape(b.op(op_type, *condition, x, x)) == ("batch", 3)


def test_unknown_dimensions_are_not_equal_to_each_other() -> None:
    b, (x, y) = declared(("batch",), ("m",))
    first, second = b.op("Add", x, y), b.op("Mul", x, y)
    assert not same_shape(b.shape(first), b.shape(second))


def test_two_symbols_in_the_batch_of_a_product() -> None:
    b, (x, y) = declared(("a", 2, 3), ("b", 3, 4))
    shape = b.shape(b.op("MatMul", x, y)) or ()
    assert shape[1:] == (2, 4)
    assert shape[0] not in ("a", "b")


def test_new_symbols_are_new_in_the_whole_graph() -> None:
    """Each builder counts from the start, but what an earlier one named is another dimension."""
    graph, first = new_graph()
    x, y = first.input("x", FLOAT64, ("batch",)), first.input("y", FLOAT64, ("m",))
    earlier = first.shape(first.op("Add", x, y))
    later = GraphBuilder(graph).op("Mul", x, y)
    assert not same_shape(first.shape(later), earlier)


def test_a_users_symbol_is_not_taken_for_a_new_one() -> None:
    b, (_, x, y) = declared(("2*_d0 + _d1",), ("batch",), ("m",))
    assert b.shape(b.op("Add", x, y)) not in (("_d0",), ("_d1",))


def test_dimensions_without_a_name_get_one() -> None:
    """ONNX files may leave dimensions unnamed, which shape inference does not take."""
    b, (x,) = declared((None, 3))
    y = b.op("Exp", x)
    assert same_shape(b.shape(y), b.shape(x))
    assert (b.shape(x) or ())[0] is not None


def test_refine_shape_adds_what_is_not_known() -> None:
    _, b = new_graph()

    def refined(known: Shape | None, shape: Shape | None) -> Shape | None:
        value = ir.Value(name="v", shape=None if known is None else ir.Shape(known))
        assert b.refine_shape(value, shape) is value
        return b.shape(value)

    assert refined(None, ("batch", 3)) == ("batch", 3)
    assert refined(None, None) is None
    assert refined((2,), None) == (2,)
    assert refined(("a", None), ("batch", 3)) == ("batch", 3)
    assert refined((4, "a"), ("batch", None)) == (4, "a")
    assert refined((4,), ("batch", 3)) == ("batch", 3)


# What the library takes for granted --------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        (0, 5, "Min(5, batch)"),
        (0, END, "batch"),
        (0, 2**62, "batch"),
        (0, -1, "batch - 1"),
        (1, END, "batch - 1"),
        (2, 5, "Min(5, batch) - Min(2, batch)"),
        (-3, END, "batch - Max(0, batch - 3)"),
    ],
)
def test_a_slice_of_a_symbolic_dimension(starts: int, ends: int, expected: str) -> None:
    """Compared at run time for every batch size; `expected` may be written in another way."""
    b, (x,) = declared(("batch",))
    dim = (b.shape(b.op("Slice", x, [starts], [ends], [0])) or ())[0]
    assert isinstance(dim, str)
    for batch in range(1, 9):
        actual = len(np.arange(batch)[starts:ends])
        assert ir.SymbolicDim(dim).evaluate({"batch": batch}) == actual
        assert ir.SymbolicDim(expected).evaluate({"batch": batch}) == actual


def test_slices_of_static_dimensions() -> None:
    b, (x,) = declared((6, "batch"))
    for start, end, step in product((0, 2, -2, 9), (4, -1, END, -9), (1, 2, -1, -3)):
        shape = b.shape(b.op("Slice", x, [start], [end], [0], [step]))
        assert shape == (len(np.arange(6)[start:end:step]), "batch")


def test_a_slice_with_bounds_of_run_time() -> None:
    b, (x,) = declared(("batch", 3, 4))
    one, two = b.input("i", INT64, (1,)), b.input("j", INT64, (2,))
    dims = b.shape(b.op("Slice", x, one, one, [1])) or ()
    assert (dims[0], dims[2]) == ("batch", 4)
    assert isinstance(dims[1], str)
    # The first two axes, then axes that are not known.
    dims = b.shape(b.op("Slice", x, two, two)) or ()
    assert dims[2] == 4
    assert not {dims[0], dims[1]} & {"batch", 3}
    dims = b.shape(b.op("Slice", x, [0], [1], one)) or ()
    assert len(dims) == 3
    assert not any(isinstance(d, int) or d == "batch" for d in dims)


def test_a_split_with_sizes_of_run_time() -> None:
    b, (x,) = declared(("batch", 6))
    sizes = b.input("sizes", INT64, (2,))
    parts = [b.shape(o) or () for o in b.op_multi("Split", x, sizes, outputs=2, axis=1)]
    assert parts[0][0] == parts[1][0] == "batch"
    assert parts[0][1] != parts[1][1]
    assert not isinstance(parts[0][1], int)
    # Eight and two steps of a batch, say.
    batch = b.op("Shape", x, end=1)
    flat = b.op("Reshape", b.op("Concat", *[x] * 10, axis=0), [-1, 6])
    uneven = b.op_multi("Split", flat, b.op("Mul", [8, 2], batch), outputs=2, axis=0)
    assert [b.shape(o) for o in uneven] == [("8*batch", 6), ("2*batch", 6)]
    fixed = b.op_multi("Split", x, [2, 4], outputs=2, axis=1)
    assert [b.shape(o) for o in fixed] == [("batch", 2), ("batch", 4)]


def test_a_squeeze_that_run_time_decides() -> None:
    b, (x, y) = declared(("batch", 1, 3), (1, 1, 3))
    axes = b.input("axes", INT64, (1,))
    assert b.shape(b.op("Squeeze", x)) is None
    assert b.shape(b.op("Squeeze", y)) == (3,)
    assert b.shape(b.op("Squeeze", x, [1])) == ("batch", 3)
    assert len(b.shape(b.op("Squeeze", x, axes)) or ()) == 2
    assert b.shape(b.op("Squeeze", y, b.input("n", INT64, ("n",)))) is None


def test_an_expansion_to_another_symbol() -> None:
    b, (x, y) = declared(("batch", 1), ("m", 4))
    dims = b.shape(b.op("Expand", x, b.op("Shape", y))) or ()
    assert dims[1] == 4
    assert dims[0] not in ("batch", "m")
    assert b.shape(b.op("Expand", x, [3, 1, 4])) == (3, "batch", 4)
    assert b.shape(b.op("Expand", x, [5, 1])) == (5, 1)


def test_a_reshape_to_an_unknown_rank_keeps_the_dtype() -> None:
    b, (x,) = declared(("batch", 6))
    y = b.op("Reshape", x, b.input("shape", INT64, ("n",)))
    assert b.shape(y) is None
    assert b.dtype(y) == FLOAT64


def test_the_librarys_notes_stay_out_of_the_model() -> None:
    b, (x,) = declared(("batch", 6))
    assert b.op("Shape", x).metadata_props == {}


# Broadcasting that run time decides --------------------------------------------------------------


@pytest.mark.parametrize("op_type", ["ConstantOfShape", "Expand", "Reshape"])
def test_a_shape_that_is_an_input_has_as_many_dimensions_as_it_is_long(op_type: str) -> None:
    _, b = new_graph()
    x, count = b.input("x", FLOAT64, ("n", 4)), b.input("count", INT64, (1,))
    shape = b.op("Concat", count, [4], axis=0)
    operands = [shape] if op_type == "ConstantOfShape" else [x, shape]
    dims = b.shape(b.op(op_type, *operands)) or ()
    assert len(dims) == 2
    assert isinstance(dims[0], str)
    assert dims[0] != "n"


@pytest.mark.parametrize("sizes", [*product((1, 4), (1, 4))], ids=str)
@pytest.mark.parametrize("op_type", ["Add", "Mul", "Max", "Where", "MatMul", "Expand"])
def test_gradients_of_two_symbols_that_may_broadcast(op_type: str, sizes: Any) -> None:
    """One graph must serve `m = 1` and `m = batch`: the first needs a sum, the second none."""
    graph, b = new_graph()
    tail = (2, 3) if op_type == "MatMul" else (3,)
    x = b.input("x", FLOAT64, ("batch", *tail))
    y = b.input("y", FLOAT64, ("m", *tail[::-1]))
    if op_type == "Where":
        z = b.op("Where", b.op("Greater", x, 0.0), b.op("Mul", x, x), b.op("Exp", y))
    elif op_type == "Expand":
        z = b.op("Mul", b.op("Expand", x, b.op("Shape", y)), y)
    else:
        z = b.op(op_type, x, y)
    dx, dy = differentiate(graph, [b.op("Sin", z)], [x, y])
    assert dx is not None
    assert dy is not None
    assert b.shape(dx) == b.shape(x)
    assert b.shape(dy) == b.shape(y)
    feeds = {
        "x": spread((sizes[0], *tail), -1, 1.1),
        "y": spread((sizes[1], *tail[::-1]), -0.8, 1, seed=1),
    }
    evaluator = Evaluator(graph, [dx, dy, z])
    found = evaluator.all_values(feeds)
    check_shapes(graph, found)
    for gradient, name in ((dx, "x"), (dy, "y")):
        numeric = np.zeros_like(feeds[name])
        for place in np.ndindex(numeric.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = feeds[name].copy()
                moved[place] += step
                ends.append(np.sin(evaluator({**feeds, name: moved})[2]).sum())
            numeric[place] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(found[gradient.name or ""], numeric, rtol=1e-6, atol=1e-7)
