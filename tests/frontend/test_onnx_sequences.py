"""load_onnx: sequences, of which nothing is left in what is traced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnxtape as ot
from onnxtape.errors import ModelError
from tests.frontend.onnx_graphs import with_gradients
from tests.frontend.onnx_texts import WEIGHTS, X, check_outputs_and_gradients, parsed, run

ops = ot.ops

COLLECTED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 given) => (double[n,p] y) {
    go = Constant <value = bool {1}> ()
    COUNT
    empty = SequenceEmpty <dtype = 11> ()
    h, parts = Loop (count, go, x, empty) <
        body = step (int64 i, bool before, double[n,4] a, seq(double[n,4]) s) => (bool after,
                double[n,4] next, seq(double[n,4]) t) {
            after = Identity(before)
            next = MatMul(a, w)
            t = SequenceInsert(s, next)
        }
    >
    y = ConcatFromSequence <axis = 1> (parts)
}
"""


def test_sequences_that_a_loop_collects() -> None:
    """As TorchScript writes a list that grows; where the number of iterations is a constant."""
    proto = parsed(COLLECTED.replace("COUNT", "count = Constant <value = int64 {3}> ()"))
    model = ot.load_onnx(proto)
    feeds = {"x": X, "given": np.array(3)}
    (expected,) = run(proto, feeds)
    for step in (model, ot.function(model, fallback="error")):
        np.testing.assert_allclose(step(feeds), expected)
    with ot.GradientTape() as tape:
        loss = ops.sum(model(feeds))
    assert tape.gradient(loss, model.trainable_variables)[0] is not None


WHILE_IT_COLLECTS = """
<ir_version: 8, opset_import: ["": 18]>
net (double[n,4] x) => (double[m,4] y) {
    go = Constant <value = bool {1}> ()
    first = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    sizes = Shape (x)
    rows = Gather (sizes, first)
    empty = SequenceEmpty <dtype = 11> ()
    last, parts = Loop ("", go, first, empty) <
        body = step (int64 i, bool before, int64 k, seq(double[1,4]) s) => (bool after,
                int64 next, seq(double[1,4]) t) {
            next = Add(k, one)
            from = Unsqueeze(k, first_axis)
            to = Unsqueeze(next, first_axis)
            row = Slice(x, from, to)
            odd = Mod(next, two)
            even = Equal(odd, first)
            made = If (even) <
                then_branch = yes () => (double[1,4] a) { a = MatMul(row, w) },
                else_branch = no () => (double[1,4] c) { c = Mul(row, b) }
            >
            t = SequenceInsert(s, made)
            after = Less(next, rows)
        }
    >
    y = ConcatFromSequence <axis = 0> (parts)
}
"""


def test_iterations_that_depend_on_a_size_that_is_known() -> None:
    """As PyTorch's exporter writes EmbeddingBag: numbers decide how long, and which branch."""
    proto = parsed(WHILE_IT_COLLECTS)
    for name, array in {"first_axis": np.int64([0]), "two": np.int64(2)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = ot.load_onnx(proto)

    step = ot.function(with_gradients(model), fallback="error")
    assert not {"If", "Loop"} & {n.op_type for n in step.get_concrete_function(X).model.graph.node}
    for x in (X, X[:3]):
        y, gradients = step(x)
        np.testing.assert_allclose(y, run(proto, {"x": x})[0])
        by_path = dict(zip([v.path for v in model.trainable_variables], gradients, strict=True))
        np.testing.assert_allclose(by_path["b"], x[::2].sum(0))
        np.testing.assert_allclose(by_path["w"], np.tile(x[1::2].sum(0)[:, None], 4))


MAPPED = """
<ir_version: 8, opset_import: ["": 18]>
net (double[n,4] x) => (double[n,4] y) {
    three = Constant <value = int64[2] {1, 3}> ()
    parts = SplitToSequence <axis = 1> (x, three)
    turned = SequenceMap (parts, b) <
        body = each (double[n,k] part, double[4] shift) => (double[n,k] made) {
            total = ReduceSum (shift)
            made = Mul (part, total)
        }
    >
    maybe = Optional (turned)
    here = OptionalHasElement (maybe)
    y = If (here) <
        then_branch = some () => (double[n,4] t) {
            held = OptionalGetElement (maybe)
            t = ConcatFromSequence <axis = 1> (held)
        },
        else_branch = none () => (double[n,4] e) { e = Identity (x) }
    >
}
"""


def test_sequences_are_mapped_and_optionals_opened() -> None:
    model = ot.load_onnx(parsed(MAPPED))
    expected = X * WEIGHTS["b"].sum()
    for step in (model, ot.function(model, fallback="error")):
        np.testing.assert_allclose(step(X), expected)
    with ot.GradientTape() as tape:
        loss = ops.sum(model(X))
    (gradient,) = tape.gradient(loss, model.trainable_variables)
    np.testing.assert_allclose(gradient, np.full(4, X.sum()))


DIVIDED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64[2] sizes) => (double[n,4] y) {
    parts = SplitToSequence <axis = 0> (x, sizes)
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    first = SequenceAt (parts, zero)
    second = SequenceAt (parts, one)
    f = MatMul (first, w)
    s = Mul (second, b)
    y = Concat <axis = 0> (f, s)
}
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_pieces_whose_sizes_are_known_when_it_runs(compiled: bool) -> None:
    """As a mixture of experts divides its tokens."""
    proto = parsed(DIVIDED)
    model = ot.load_onnx(proto)

    def gradients(x: Any, sizes: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x, sizes)
            loss = ops.sum(y)
        return y, tape.gradient(loss, model.trainable_variables)

    step = ot.function(gradients, fallback="error") if compiled else gradients
    for first in (3, 1, 5):
        sizes = np.array([first, 5 - first])
        y, found = step(X, sizes)
        (expected,) = run(proto, {"x": X, "sizes": sizes})
        np.testing.assert_allclose(y, expected)
        by_name = dict(zip([v.path for v in model.trainable_variables], found, strict=True))
        ones = np.ones((first, 4))
        np.testing.assert_allclose(by_name["w"], X[:first].T @ ones)
        np.testing.assert_allclose(by_name["b"], X[first:].sum(0))


# Lengths that are known when the step runs -------------------------------------------------------

# As TorchScript writes a recurrent network that takes its input apart and stacks its outputs.
UNROLLED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,l,4] x) => (double[n,l,4] y, double[n,4] last, double[m,4] joined) {
    parts = SplitToSequence <axis = 1, keepdims = 0> (x)
    count = SequenceLength (parts)
    empty = SequenceEmpty <dtype = 11> ()
    sizes = Shape <end = 1> (x)
    four = Constant <value_ints = [4]> ()
    shape = Concat <axis = 0> (sizes, four)
    start = ConstantOfShape <value = double[1] {0.0}> (shape)
    last, made = Loop (count, "", start, empty) <
        body = step (int64 i, bool before, double[n,4] h, seq(double[n,4]) s) => (bool after,
                double[n,4] next, seq(double[n,4]) t) {
            after = Identity(before)
            part = SequenceAt(parts, i)
            p = MatMul(h, w)
            q = Add(p, part)
            r = Add(q, b)
            next = Tanh(r)
            t = SequenceInsert(s, next)
        }
    >
    y = ConcatFromSequence <axis = 1, new_axis = 1> (made)
    joined = ConcatFromSequence <axis = -2> (made)
}
"""

# Two tensors in each iteration, behind one that is there; the number of iterations is an input.
IN_TURNS = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 count) => (double[m,4] y, double[n,4] picked, int64 length) {
    given = SequenceConstruct (x)
    last, made = Loop (count, "", x, given) <
        body = step (int64 i, bool before, double[n,4] h, seq(double[n,4]) s) => (bool after,
                double[n,4] next, seq(double[n,4]) u) {
            after = Identity(before)
            next = MatMul(h, w)
            t = SequenceInsert(s, next)
            side = Mul(next, b)
            u = SequenceInsert(t, side)
        }
    >
    more = SequenceInsert (made, x)
    y = ConcatFromSequence <axis = 0> (more)
    back = Constant <value = int64 {-2}> ()
    picked = SequenceAt (more, back)
    length = SequenceLength (more)
}
"""

# What an iteration computes decides whether there is another.
UNTIL = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x) => (double[n,m,4] y) {
    most = Constant <value = int64 {9223372036854775807}> ()
    go = Constant <value = bool {1}> ()
    limit = Constant <value = double {30.0}> ()
    empty = SequenceEmpty <dtype = 11> ()
    last, made = Loop (most, go, x, empty) <
        body = step (int64 i, bool before, double[n,4] h, seq(double[n,4]) s) => (bool after,
                double[n,4] next, seq(double[n,4]) t) {
            doubled = Add(h, h)
            moved = Add(doubled, b)
            next = MatMul(moved, w)
            size = ReduceL1 <keepdims = 0> (next)
            after = Less(size, limit)
            t = SequenceInsert(s, next)
        }
    >
    y = ConcatFromSequence <axis = -2, new_axis = 1> (made)
}
"""

# A position that is an input: of parts that are all alike.
PICKED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 place) => (double[n,2] y, double[1,4] row, double[n,4] rows) {
    h = MatMul (x, w)
    two = Constant <value = int64 {2}> ()
    halves = SplitToSequence <axis = 1> (h, two)
    y = SequenceAt (halves, place)
    single = SplitToSequence <axis = 0> (h)
    row = SequenceAt (single, place)
    rows = ConcatFromSequence <axis = 0> (single)
}
"""

Y = np.random.default_rng(6).normal(size=(2, 5, 4))
OPEN: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "unrolled": (UNROLLED, [{"x": Y}, {"x": Y[:1, :2]}]),
    "in turns": (IN_TURNS, [{"count": np.array(3)}, {"count": np.array(1), "x": X[:2]}]),
    "until": (UNTIL, [{}, {"x": X[:1] / 8}]),
    "picked": (PICKED, [{"place": np.array(1)}, {"place": np.array(-2), "x": X[:3]}]),
}


@pytest.mark.parametrize("name", OPEN)
def test_sequences_of_open_length(name: str, tmp_path: Path) -> None:
    text, calls = OPEN[name]
    check_outputs_and_gradients(parsed(text), calls, tmp_path)


def test_a_sequence_as_long_as_an_open_dimension_takes_a_loop() -> None:
    model = ot.load_onnx(parsed(UNROLLED))
    step = ot.function(model, fallback="error")
    traced = step.get_concrete_function(ot.TensorSpec((None, None, 4), "float64"))
    assert "Loop" in {n.op_type for n in traced.model.graph.node}
    for x in (Y, Y[:, :1]):
        np.testing.assert_allclose(step(x)[0], model(x)[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            IN_TURNS.replace("SequenceInsert(s, next)", "SequenceErase(s)"),
            "Loop with SequenceErase carries a sequence through a number of iterations that is not",
        ),
        (
            IN_TURNS.replace("SequenceInsert (made, x)", "SequenceErase (made)"),
            "SequenceErase takes a sequence whose length is not known while tracing",
        ),
        (
            PICKED.replace("value = int64 {2}", "value = int64[2] {1, 3}"),
            "SequenceAt's position, where the tensors' shapes differ, must be a constant",
        ),
        (
            IN_TURNS.replace("u = SequenceInsert(t, side)", "u = SequenceConstruct(side)"),
            "Loop .*carries a sequence .* and does more than add tensors at its end",
        ),
    ],
)
def test_what_is_not_known_of_sequences_is_refused(text: str, message: str) -> None:
    step = ot.function(ot.load_onnx(parsed(text)), fallback="error")
    feeds = {"x": X, "count": np.array(2), "place": np.array(1)}
    with pytest.raises(ModelError, match=message):
        step({name: feeds[name] for name in step.python_function.input_names})
