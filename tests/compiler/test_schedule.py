"""The order in which state can be updated in place.

The judge is a simulation (`simulation.py`): it runs the graph in file order, state inputs and the
outputs declared in place share memory, views are views, and a node that overwrites its operands
does so element by element. What it computes must be what the graph means.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes import schedule
from onnxtape.compiler.passes.schedule import schedule_updates
from tests.compiler.graphs import BOOL, FLOAT64, Array, model_of, new_graph, run, spread
from tests.compiler.simulation import simulate

SHAPE = (2, 2)


def topological(graph: ir.Graph) -> bool:
    seen = {id(v) for v in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        if any(x is not None and id(x) not in seen for x in node.inputs):
            return False
        seen.update(map(id, node.outputs))
    return True


class Step:
    """A graph with state under construction; state 'w' is updated by the output 'w.next'."""

    def __init__(self) -> None:
        self.graph, self.b = new_graph()
        self.state: dict[str, str] = {}

    def variable(self, name: str, shape: tuple[int, ...] = SHAPE) -> ir.Value:
        self.state[name] = f"{name}.next"
        return self.b.input(name, FLOAT64, shape)

    def update(self, name: str, value: ir.Value) -> ir.Value:
        value.name = self.state[name]
        self.graph.outputs.append(value)
        return value

    def output(self, value: ir.Value) -> None:
        self.graph.outputs.append(value)

    def feeds(self) -> dict[str, Array]:
        feeds = {}
        for i, value in enumerate(self.graph.inputs):
            shape = () if value.shape is None else value.shape.numpy()
            if value.dtype == ir.DataType.BOOL:
                feeds[value.name or ""] = np.asarray(True)
            else:
                feeds[value.name or ""] = spread(shape, -0.9, 1.1, seed=i)
        return feeds

    def check(self) -> set[str]:
        """Schedule, simulate, compare; returns the states that are updated in place."""
        nodes = set(self.graph)
        feeds = self.feeds()
        names = [v.name or "" for v in self.graph.outputs]
        expected = dict(zip(names, run(self.graph, feeds), strict=True))
        in_place = schedule_updates(model_of(self.graph), self.state)
        assert in_place <= set(self.state)
        assert set(self.graph) == nodes
        assert topological(self.graph)
        found = simulate(self.graph, feeds, {s: self.state[s] for s in in_place})
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
        return set(in_place)


def test_the_simulation_sees_a_late_reader() -> None:
    """Otherwise the other tests would prove nothing."""
    step = Step()
    w = step.variable("w")
    step.update("w", step.b.op("Neg", w))
    step.output(step.b.op("Tanh", w))
    feeds = step.feeds()
    wrong = simulate(step.graph, feeds, step.state)
    right = simulate(step.graph, feeds, {})
    np.testing.assert_array_equal(wrong["w.next"], right["w.next"])
    assert not np.allclose(wrong["Tanh_2"], right["Tanh_2"])


# Orders ------------------------------------------------------------------------------------------


def test_an_update_that_is_written_early_moves_behind_the_readers() -> None:
    step = Step()
    w, x = step.variable("w"), step.b.input("x", FLOAT64, SHAPE)
    new = step.update("w", step.b.op("Sub", w, x))
    step.output(step.b.op("MatMul", x, w))
    step.output(step.b.op("Tanh", w))
    assert step.check() == {"w"}
    assert list(step.graph)[-1] is new.producer()


def test_an_order_that_is_right_already_stays() -> None:
    step = Step()
    w, x = step.variable("w"), step.b.input("x", FLOAT64, SHAPE)
    loss = step.b.op("MatMul", x, w)
    step.output(loss)
    step.update("w", step.b.op("Sub", w, loss))
    before = list(step.graph)
    assert step.check() == {"w"}
    assert list(step.graph) == before


def test_a_reader_of_both_the_old_and_the_new_value_forbids_it() -> None:
    step = Step()
    w, x = step.variable("w"), step.b.input("x", FLOAT64, SHAPE)
    new = step.update("w", step.b.op("Sub", w, x))
    step.output(step.b.op("Mul", new, w))
    assert step.check() == set()


def test_one_impossible_update_does_not_cost_the_others_theirs() -> None:
    """v's reader needs the new w, and w cannot be updated in place: v need not suffer."""
    step = Step()
    v, w, x = step.variable("v"), step.variable("w"), step.b.input("x", FLOAT64, SHAPE)
    step.update("v", step.b.op("Neg", v))
    new_w = step.update("w", step.b.op("Sub", w, x))
    step.output(step.b.op("Mul", step.b.op("Add", new_w, w), v))
    assert step.check() == {"v"}


def test_two_updates_that_read_each_other() -> None:
    step = Step()
    v, w = step.variable("v"), step.variable("w")
    step.update("v", step.b.op("Add", v, w))
    step.update("w", step.b.op("Sub", v, w))
    assert len(step.check()) == 1


def test_a_circle_beside_an_update_that_only_waits_for_it() -> None:
    """u waits for a reader behind the circle of v and w; only one of these two must give up."""
    step = Step()
    u, v, w = step.variable("u"), step.variable("v"), step.variable("w")
    step.update("u", step.b.op("Neg", u))
    new_v = step.update("v", step.b.op("Add", v, w))
    step.update("w", step.b.op("Sub", v, w))
    step.output(step.b.op("Mul", new_v, u))
    found = step.check()
    assert "u" in found
    assert len(found) == 2


def test_a_swap() -> None:
    step = Step()
    v, w = step.variable("v"), step.variable("w")
    step.update("v", step.b.op("Identity", w))
    step.update("w", step.b.op("Identity", v))
    assert len(step.check()) <= 1


def test_half_a_step_that_reads_what_the_other_half_updated() -> None:
    """As a GAN: the discriminator is updated, then the generator by the new discriminator."""
    step = Step()
    b = step.b
    d, g, x = step.variable("d"), step.variable("g"), b.input("x", FLOAT64, SHAPE)
    fake = b.op("MatMul", x, g)
    gradient_d = b.op("MatMul", fake, b.op("Tanh", b.op("MatMul", fake, d)))
    new_d = step.update("d", b.op("Sub", d, gradient_d))
    score = b.op("MatMul", fake, new_d)
    gradient_g = b.op("MatMul", x, b.op("Tanh", score))
    step.output(score)
    step.update("g", b.op("Sub", g, gradient_g))
    assert step.check() == {"d", "g"}


def test_momentum() -> None:
    """Two states in one update: the velocity's new value makes the weight's."""
    step = Step()
    b = step.b
    w, m, x = step.variable("w"), step.variable("m"), b.input("x", FLOAT64, SHAPE)
    gradient = b.op("MatMul", x, b.op("MatMul", x, w))
    new_m = step.update("m", b.op("Add", b.op("Mul", m, 0.9), gradient))
    step.update("w", b.op("Sub", w, new_m))
    assert step.check() == {"w", "m"}


# Views, broadcasting, operators ------------------------------------------------------------------


@pytest.mark.parametrize("view", ["Reshape", "Identity", "Expand"])
def test_a_view_that_is_read_late(view: str) -> None:
    step = Step()
    b = step.b
    w = step.variable("w")
    shape = {"Reshape": [[1, 4]], "Identity": [], "Expand": [[3, 2, 2]]}[view]
    seen = b.op(view, w, *shape)
    step.update("w", b.op("Neg", w))
    step.output(b.op("Tanh", b.op("Reshape", seen, [-1])))
    assert step.check() == {"w"}


def test_a_view_that_is_read_by_what_needs_the_new_value() -> None:
    step = Step()
    b = step.b
    w = step.variable("w")
    flat = b.op("Reshape", w, [4])
    new = step.update("w", b.op("Neg", w))
    step.output(b.op("Mul", b.op("Reshape", new, [4]), flat))
    assert step.check() == set()


def test_an_update_that_reads_the_state_through_a_view() -> None:
    """w + the first row of w, spread out: the row changes while it is still read."""
    step = Step()
    b = step.b
    w = step.variable("w", (1, 2))
    step.update("w", b.op("Add", w, b.op("Reshape", w, [1, 2])))
    assert step.check() == set()


def test_an_update_of_another_shape() -> None:
    """A state of one element that grows: nothing to share."""
    step = Step()
    b = step.b
    w, x = step.variable("w", (1, 2)), b.input("x", FLOAT64, SHAPE)
    step.update("w", b.op("Add", w, x))
    assert step.check() == set()


def test_a_smaller_operand_is_read_along() -> None:
    step = Step()
    b = step.b
    w, x = step.variable("w"), b.input("x", FLOAT64, (1, 2))
    step.update("w", b.op("Mul", w, b.op("Neg", x)))
    assert step.check() == {"w"}


@pytest.mark.parametrize("op_type", ["MatMul", "Transpose"])
def test_an_update_that_reads_more_than_it_writes_over(op_type: str) -> None:
    step = Step()
    w = step.variable("w")
    operands = [w, w] if op_type == "MatMul" else [w]
    step.update("w", step.b.op(op_type, *operands))
    assert step.check() == set()


def test_an_update_that_does_not_read_the_state_itself() -> None:
    step = Step()
    b = step.b
    w, x = step.variable("w"), b.input("x", FLOAT64, SHAPE)
    step.update("w", b.op("MatMul", x, b.op("Tanh", w)))
    assert step.check() == {"w"}


@pytest.mark.parametrize("operands", [2, 3])
def test_operators_of_many_operands(operands: int) -> None:
    """With three, the first result is written before the third operand is read."""
    step = Step()
    b = step.b
    w = step.variable("w")
    others = [b.input(f"x{i}", FLOAT64, SHAPE) for i in range(operands - 1)]
    step.update("w", b.op("Max", *others, w))
    assert step.check() == ({"w"} if operands == 2 else set())


def test_a_sum_is_never_trusted() -> None:
    step = Step()
    b = step.b
    w = step.variable("w")
    step.update("w", b.op("Sum", b.input("x", FLOAT64, SHAPE), b.input("y", FLOAT64, SHAPE), w))
    assert step.check() == set()


def test_an_elementwise_name_in_another_domain_is_not_trusted() -> None:
    step = Step()
    w = step.variable("w")
    node = ir.Node("com.example", "Neg", [w], name="foreign")
    node.outputs[0].type, node.outputs[0].shape = w.type, w.shape
    step.graph.append(node)
    step.update("w", node.outputs[0])
    assert schedule_updates(model_of(step.graph), step.state) == frozenset()


def test_an_update_of_another_dtype() -> None:
    step = Step()
    w = step.variable("w")
    step.update("w", step.b.op("Cast", w, to=1))
    assert schedule_updates(model_of(step.graph), step.state) == frozenset()


# Inputs and outputs ------------------------------------------------------------------------------


def test_a_state_that_is_returned_as_it_came() -> None:
    """Whoever reads the result later would find the new value in it."""
    step = Step()
    w = step.variable("w")
    step.output(w)
    step.update("w", step.b.op("Neg", w))
    assert schedule_updates(model_of(step.graph), step.state) == frozenset()


def test_a_state_without_an_update() -> None:
    step = Step()
    w, v = step.variable("w"), step.variable("v")
    step.update("v", step.b.op("Sub", v, w))
    assert schedule_updates(model_of(step.graph), step.state) == {"v"}


def test_a_state_whose_update_is_another_input() -> None:
    step = Step()
    w, x = step.variable("w"), step.b.input("x", FLOAT64, SHAPE)
    step.output(step.b.op("Neg", w))
    step.state = {"w": x.name or ""}
    step.graph.outputs.append(x)
    assert schedule_updates(model_of(step.graph), step.state) == frozenset()


def test_names_that_the_graph_does_not_have() -> None:
    step = Step()
    w = step.variable("w")
    step.update("w", step.b.op("Neg", w))
    state = {**step.state, "gone": "gone.next", "w2": "w.next"}
    assert schedule_updates(model_of(step.graph), state) == {"w"}


def test_no_state_at_all() -> None:
    step = Step()
    step.output(step.b.op("Neg", step.b.input("x", FLOAT64, SHAPE)))
    assert schedule_updates(model_of(step.graph), {}) == frozenset()


# Subgraphs ---------------------------------------------------------------------------------------


def conditional(b: GraphBuilder, c: ir.Value, x: ir.Value, through_view: bool) -> ir.Value:
    """If c: tanh(x), else -x, computed inside the branches, perhaps from a view of x."""
    branches = []
    for op_type in ("Tanh", "Neg"):
        inner = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name=op_type)
        inner_builder = GraphBuilder(inner)
        seen = inner_builder.op("Identity", x) if through_view else x
        inner.outputs.append(inner_builder.op(op_type, seen))
        for i, node in enumerate(inner):
            node.outputs[0].name = f"{op_type}_{b.unique_name('inner')}_{i}"
        branches.append(inner)
    out = b.op("If", c, then_branch=branches[0], else_branch=branches[1])
    out.type, out.shape = x.type, x.shape
    return out


@pytest.mark.parametrize("through_view", [False, True])
def test_a_subgraph_that_reads_the_state(through_view: bool) -> None:
    step = Step()
    w, c = step.variable("w"), step.b.input("c", BOOL, ())
    new = step.update("w", step.b.op("Neg", w))
    step.output(conditional(step.b, c, w, through_view))
    assert step.check() == {"w"}
    assert list(step.graph)[-1] is new.producer()


def test_a_subgraph_that_reads_the_state_and_needs_the_new_value() -> None:
    step = Step()
    b = step.b
    w = step.variable("w")
    new = step.update("w", b.op("Neg", w))
    # The condition comes from the new value, the branches read the old one.
    flag = b.op("Cast", b.op("ReduceSum", new, [0, 1], keepdims=0), to=9)
    step.output(conditional(b, flag, w, False))
    assert schedule_updates(model_of(step.graph), step.state) == frozenset()


def test_a_subgraph_that_makes_the_update() -> None:
    """It reads the state where it writes it, in an order that is its own."""
    step = Step()
    w, c = step.variable("w"), step.b.input("c", BOOL, ())
    step.update("w", conditional(step.b, c, w, False))
    assert step.check() == set()


def test_a_loop_body_that_reads_the_state() -> None:
    step = Step()
    b = step.b
    w, x = step.variable("w"), b.input("x", FLOAT64, SHAPE)
    new = step.update("w", b.op("Neg", w))
    body_i = ir.Value(name="i", shape=ir.Shape(()), type=ir.TensorType(ir.DataType.INT64))
    body_c = ir.Value(name="keep", shape=ir.Shape(()), type=ir.TensorType(ir.DataType.BOOL))
    carried = ir.Value(name="carried", shape=ir.Shape(SHAPE), type=w.type)
    body = ir.Graph([body_i, body_c, carried], [], nodes=[], opset_imports={"": 21}, name="body")
    inner = GraphBuilder(body)
    body.outputs.extend([inner.op("Identity", body_c), inner.op("Add", carried, w)])
    for node in body:
        node.outputs[0].name = f"body_{node.op_type}"
    step.output(b.op("Loop", b.constant(np.int64(2)), b.constant(np.bool_(True)), x, body=body))
    assert schedule_updates(model_of(step.graph), step.state) == {"w"}
    assert list(step.graph)[-1] is new.producer()


# At random ---------------------------------------------------------------------------------------

OPERATORS = ["Add", "Sub", "Mul", "Neg", "Tanh", "MatMul", "Transpose", "Identity", "View", "Max"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    nodes=st.lists(
        st.tuples(st.sampled_from(OPERATORS), st.integers(0, 20), st.integers(0, 20)),
        min_size=2,
        max_size=10,
    ),
    states=st.integers(1, 4),
    choices=st.lists(st.integers(0, 20), min_size=6, max_size=6),
)
def test_random_steps_mean_the_same_in_place(
    nodes: list[tuple[str, int, int]], states: int, choices: list[int]
) -> None:
    step = Step()
    b = step.b
    values = [step.variable(f"w{i}") for i in range(states)] + [b.input("x", FLOAT64, SHAPE)]
    made: list[ir.Value] = []
    for op_type, i, j in nodes:
        x, y = values[i % len(values)], values[j % len(values)]
        if op_type in ("Add", "Sub", "Mul", "MatMul"):
            out = b.op(op_type, x, y)
        elif op_type == "Max":
            out = b.op("Max", x, y, values[(i + j) % len(values)])
        elif op_type == "View":
            out = b.op("Reshape", b.op("Reshape", x, [4]), [2, 2])
        elif op_type == "Transpose":
            out = b.op("Transpose", x, perm=[1, 0])
        else:
            out = b.op(op_type, x)
        values.append(out)
        made.append(out)
    free = list(made)
    for i in range(states):
        if free:
            step.update(f"w{i}", free.pop(choices[i] % len(free)))
    for choice in choices[4:]:
        if free:
            step.output(free.pop(choice % len(free)))
    step.check()


# Size --------------------------------------------------------------------------------------------


def long_step(count: int, chained: bool) -> Step:
    """`count` nodes that read `count / 5` states; chained: each update reads the one before."""
    step = Step()

    def node(op_type: str, *inputs: ir.Value, name: str = "") -> ir.Value:
        made = ir.Node("", op_type, inputs)
        made.outputs[0].type, made.outputs[0].shape = inputs[0].type, inputs[0].shape
        made.outputs[0].name = name or step.b.unique_name(op_type)
        step.graph.append(made)
        return made.outputs[0]

    x = step.b.input("x", FLOAT64, SHAPE)
    weights = [step.variable(f"w{i}") for i in range(count // 5)]
    previous = x
    for i, w in enumerate(weights):
        new = node("Sub", w, previous, name=f"w{i}.next")
        step.graph.outputs.append(new)
        hidden = node("Tanh", node("MatMul", previous, w))
        previous = node("Add", hidden, new if chained else x)
        if chained and i % 2:
            previous = node("Mul", previous, w)
    step.graph.outputs.append(previous)
    return step


@pytest.mark.parametrize("chained", [False, True])
def test_work_grows_with_the_size_of_the_graph(
    chained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: heap operations and producers looked up."""
    counts = {"heap": 0, "producers": 0, "circles": 0}

    def counting(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            counts[kind] += 1
            return function(*args)

        return counted

    monkeypatch.setattr(heapq, "heappush", counting("heap", heapq.heappush))
    monkeypatch.setattr(schedule, "_producers", counting("producers", schedule._producers))
    monkeypatch.setattr(schedule, "_in_a_circle", counting("circles", schedule._in_a_circle))
    found = {}
    for size in (2500, 5000):
        counts.update(dict.fromkeys(counts, 0))
        step = long_step(size, chained)
        in_place = schedule_updates(model_of(step.graph), step.state)
        assert topological(step.graph)
        if not chained:
            assert in_place == set(step.state)
        found[size] = dict(counts)
    for kind in counts:
        assert found[5000][kind] <= 2.2 * found[2500][kind] + 10
    assert found[5000]["heap"] < 5 * 5000
