"""Updates of many variables as one, and of large ones in pieces.

The judge is the simulation of `test_schedule`, on memory that the members of a block share: what it
computes must be what the graph means, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder
from onnxtape.compiler.passes import packing, update_chains
from onnxtape.compiler.passes.packing import Packed, schedule_packed
from onnxtape.compiler.passes.pieces import Block
from onnxtape.compiler.passes.scaled_sums import fuse_scaled_sums
from tests.compiler.graphs import Array, model_of, new_graph, run
from tests.compiler.simulation import execute

FLOAT32 = np.dtype(np.float32)
SHAPES = [(3, 4), (5,), (2, 2)]


class Step:
    """A graph under construction; the state entry 'w' is updated by the output 'w.next'."""

    def __init__(self) -> None:
        self.graph, self.b = new_graph()
        self.state: dict[str, str] = {}
        self.rate = self.b.input("rate", FLOAT32, ())

    def variable(self, name: str, shape: Sequence[int]) -> ir.Value:
        self.state[name] = f"{name}.next"
        return self.b.input(name, FLOAT32, tuple(shape))

    def update(self, name: str, value: ir.Value) -> None:
        value.name = self.state[name]
        self.graph.outputs.append(value)

    def momentum(self, shape: Sequence[int], number: int) -> tuple[ir.Value, ir.Value]:
        """m = 0.9 m + tanh(x w), w = w - rate m, and x w as a result; returns w and the new m."""
        b = self.b
        w, m = self.variable(f"w{number}", shape), self.variable(f"m{number}", shape)
        product = b.op("Mul", b.input(f"x{number}", FLOAT32, tuple(shape)), w)
        new = b.op("Add", b.op("Mul", m, b.constant(np.float32(0.9))), tanh_of(b, product))
        self.update(f"w{number}", b.op("Sub", w, b.op("Mul", new, self.rate)))
        self.update(f"m{number}", new)
        product.name = f"result{number}"
        self.graph.outputs.append(product)
        return w, new

    def feeds(self) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        return {
            v.name or "": np.asarray(rng.uniform(-1, 1, v.shape.numpy()), np.float32)  # type: ignore[union-attr]
            for v in self.graph.inputs
        }

    def packed(self, workers: int = 1) -> list[Block]:
        """Pack it, compare what it computes then with what it computed before; the blocks."""
        return self.shared(workers=workers).blocks

    def shared(self, **options: Any) -> Packed:
        """The same, with what has become of the graph."""
        feeds = self.feeds()
        names = [v.name or "" for v in self.graph.outputs]
        expected = dict(zip(names, run(self.graph, feeds), strict=True))
        packed = schedule_packed(model_of(self.graph), self.state, **options)
        found = run_in_blocks(self.graph, feeds, self.state, packed)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        return packed


def tanh_of(b: GraphBuilder, x: ir.Value) -> ir.Value:
    """Something that no chain has inside: a gradient as it were."""
    return b.op("Transpose", b.op("Transpose", b.op("Tanh", x)))


def run_in_blocks(
    graph: ir.Graph,
    feeds: dict[str, Array],
    state: dict[str, str],
    packed: Packed,
) -> dict[str, Array]:
    """Run in file order on memory shared as the blocks say; the original graph's outputs.

    The last share runs first: they may run in any order.
    """
    memory = {name: array.copy() for name, array in feeds.items()}
    buffers = {state[name]: memory[name] for name in packed.in_place}
    found: dict[str, Array] = {}
    for block in packed.blocks:
        flat = np.full(block.size, np.nan, np.float32)
        for name, start in block.members.items():
            part = flat[start : start + feeds[name].size].reshape(feeds[name].shape)
            part[...] = feeds[name]
            memory[name] = found[state[name]] = part
        for name, (start, shape) in block.results.items():
            buffers[name] = flat[start : start + int(np.prod(shape))].reshape(shape)
        memory.update({name: flat[None, start:end] for name, start, end in block.inputs})
        memory.update({name: flat[start:end].reshape(2, -1) for name, start, end in block.pairs})
        buffers.update({name: flat[None, start:end] for name, start, end in block.outputs})
    values: dict[int, Array] = {}
    with np.errstate(invalid="ignore"):
        for each in (graph, *(share.graph for share in reversed(packed.shares))):
            values.update({id(v): memory[v.name or ""] for v in each.inputs})
            for constant in each.initializers.values():
                assert constant.const_value is not None
                values[id(constant)] = constant.const_value.numpy()
            for node in each:
                execute(node, values, buffers)
    found.update({v.name or "": values[id(v)] for v in graph.outputs})
    return found


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


def test_alike_updates_become_one() -> None:
    step = Step()
    for number, shape in enumerate(SHAPES):
        step.momentum(shape, number)
    blocks = step.packed()
    # Aligned, in the state's order: the variables, their averages, and the gradients.
    assert [block.members for block in blocks] == [
        {"w0": 0, "w1": 16, "w2": 32},
        {"m0": 0, "m1": 16, "m2": 32},
        {},
    ]
    assert [block.size for block in blocks] == [48, 48, 48]
    assert sorted(blocks[2].results.values()) == [(0, (3, 4)), (16, (5,)), (32, (2, 2))]
    assert operators(step.graph)[-4:] == ["Mul", "Add", "Mul", "Sub"]
    assert len(step.graph) == 3 * 4 + 4
    # The averages are read by the update alone: only their block is an input.
    assert {v.name for v in step.graph.inputs if (v.name or "")[0] in "wm"} == {"w0", "w1", "w2"}


def test_a_large_variable_is_updated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PIECE", 32)
    monkeypatch.setattr(packing, "LARGE", 64)
    monkeypatch.setattr(update_chains, "LARGE", 64)
    step = Step()
    step.momentum((10, 10), 0)
    step.momentum((4,), 1)
    step.momentum((6,), 2)
    blocks = step.packed()
    large, small = blocks[:3], blocks[3:]
    assert [list(block.members) for block in large] == [["w0"], ["m0"], []]
    assert [list(block.members) for block in small] == [["w1", "w2"], ["m1", "m2"], []]
    assert [(start, end) for _, start, end in large[0].inputs] == [(0, 48), (48, 96), (96, 100)]
    assert len(small[0].inputs) == 1


def test_a_few_long_pieces_rather_than_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PIECE", 16)
    monkeypatch.setattr(packing, "MOST_PIECES", 2)
    step = Step()
    step.momentum((100,), 0)
    assert [(start, end) for _, start, end in step.packed()[0].inputs] == [(0, 64), (64, 100)]


def test_a_single_small_variable_is_left_alone() -> None:
    step = Step()
    step.momentum((3, 4), 0)
    assert step.packed() == []


def test_other_constants_are_another_group() -> None:
    step = Step()
    for number, factor in enumerate((0.5, 0.5, 0.25, 0.25)):
        w = step.variable(f"w{number}", (4,))
        gradient = tanh_of(step.b, step.b.input(f"x{number}", FLOAT32, (4,)))
        scaled = step.b.op("Sub", gradient, step.b.constant(np.float32(factor)))
        step.update(f"w{number}", step.b.op("Sub", w, scaled))
    members = [list(block.members) for block in step.packed() if block.members]
    assert members == [["w0", "w1"], ["w2", "w3"]]


def test_a_factor_of_the_gradient_sets_nobody_apart() -> None:
    step = Step()
    tenth = step.b.constant(np.float32(0.1))
    for number in (0, 1):
        w = step.variable(f"w{number}", (4,))
        gradient = tanh_of(step.b, step.b.input(f"x{number}", FLOAT32, (4,)))
        gradient = step.b.op("Mul", gradient, tenth) if number else gradient
        step.update(f"w{number}", step.b.op("Sub", w, gradient))
    (states, _) = step.packed()
    assert list(states.members) == ["w0", "w1"]


def broadcast_gradient(step: Step, number: int) -> None:
    w = step.variable(f"w{number}", (3, 4))
    row = tanh_of(step.b, step.b.input(f"x{number}", FLOAT32, (1, 4)))
    step.update(f"w{number}", step.b.op("Sub", w, row))


def exchange(step: Step, number: int) -> None:
    """Each needs the other's old value: they cannot both be overwritten."""
    a, c = step.variable(f"a{number}", (4,)), step.variable(f"c{number}", (4,))
    step.update(f"a{number}", step.b.op("Add", a, c))
    step.update(f"c{number}", step.b.op("Sub", c, a))


def batch_gradient(step: Step, number: int) -> None:
    """The gradient is an input, which lies where the caller has it."""
    w = step.variable(f"w{number}", (4,))
    step.update(f"w{number}", step.b.op("Sub", w, step.b.input(f"g{number}", FLOAT32, (4,))))


def updated_number(step: Step, number: int) -> None:
    """The factor's new value may be there before the chain has read the old one."""
    if number == 0:
        scale = step.variable("scale", (1,))
        step.update("scale", step.b.op("Add", scale, scale))
    scale = next(v for v in step.graph.inputs if v.name == "scale")
    w = step.variable(f"w{number}", (4,))
    gradient = tanh_of(step.b, step.b.input(f"x{number}", FLOAT32, (4,)))
    factor = step.b.op("Identity", scale)
    step.update(f"w{number}", step.b.op("Sub", w, step.b.op("Mul", gradient, factor)))


@pytest.mark.parametrize("make", [broadcast_gradient, exchange, batch_gradient, updated_number])
def test_what_is_not_packed(make: Callable[[Step, int], None]) -> None:
    step = Step()
    for number in (0, 1):
        make(step, number)
    assert step.packed() == []


def test_a_gradient_that_is_a_result_too() -> None:
    step = Step()
    for number in (0, 1):
        w = step.variable(f"w{number}", (4,))
        gradient = tanh_of(step.b, step.b.input(f"x{number}", FLOAT32, (4,)))
        step.update(f"w{number}", step.b.op("Sub", w, gradient))
        step.graph.outputs.append(gradient)
    assert len(step.packed()) == 2


def test_an_old_value_that_is_needed_after_the_new_one() -> None:
    step = Step()
    for number in (0, 1):
        w, m = step.variable(f"w{number}", (4,)), step.variable(f"m{number}", (4,))
        gradient = tanh_of(step.b, step.b.input(f"x{number}", FLOAT32, (4,)))
        new = step.b.op("Add", m, gradient)
        step.update(f"m{number}", new)
        # Listed after the update of m, though it must run before it.
        ahead = step.b.op("Mul", m, step.rate)
        step.update(f"w{number}", step.b.op("Sub", w, step.b.op("Add", ahead, new)))
    blocks = step.packed()
    assert [list(b.members) for b in blocks if b.members] == [["w0", "w1"], ["m0", "m1"]]


def test_a_new_value_that_is_read_outside_is_taken_from_there() -> None:
    step = Step()
    for number in (0, 1):
        _, new = step.momentum((4,), number)
        step.graph.outputs.append(step.b.op("ReduceSum", new, step.b.constant(np.int64([0]))))
    states, arrays = step.packed()
    assert list(states.members) == ["w0", "w1"]
    assert sorted(arrays.results) == ["m0.next.copy", "m1.next.copy"]


def test_shares_of_a_long_update(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (packing, "PIECE", 32),
        (packing, "SHARED_PIECE", 16),
        (packing, "LEAST_SHARED", 64),
        (packing, "LARGE", 64),
        (update_chains, "LARGE", 64),
    ):
        monkeypatch.setattr(module, name, value)
    step = Step()
    step.momentum((10, 10), 0)
    step.momentum((10, 10), 1)
    step.momentum((4,), 2)
    step.momentum((6,), 3)
    packed = step.shared(workers=4)
    pieces = [[v.name for v in share.graph.inputs] for share in packed.shares]
    # A number that is computed comes in once for each update.
    assert [sum(name.startswith("update0.0.") for name in names) for names in pieces] == [1] * 4
    assert [sum(".number" in name for name in names) for names in pieces] == [2] * 4
    # w - rate m is one product that is added to w, by a rate that is negative.
    assert all(operators(s.graph) == ["Mul", "Add", "Gemm"] * 2 for s in packed.shares)
    assert operators(step.graph).count("Neg") == 1
    # What is short stays, and so does what computes the gradients.
    assert operators(step.graph)[-4:] == ["Mul", "Add", "Mul", "Sub"]
    assert not any(name.startswith(("update0", "update1")) for name in names_of(step.graph))


def names_of(graph: ir.Graph) -> list[str]:
    return [node.outputs[0].name or "" for node in graph if node.op_type != "Identity"]


@pytest.mark.parametrize(
    ("fused", "make"),
    [
        (True, lambda b, w, m, g, s: b.op("Add", b.op("Mul", s, g), w)),
        (True, lambda b, w, m, g, s: b.op("Sub", w, b.op("Mul", g, s))),
        # The product is not of a number, is taken from, or is of what may have been overwritten.
        (False, lambda b, w, m, g, s: b.op("Sub", w, b.op("Mul", g, g))),
        (False, lambda b, w, m, g, s: b.op("Sub", b.op("Mul", g, s), w)),
        (False, lambda b, w, m, g, s: b.op("Add", w, b.op("Mul", m, s))),
    ],
)
def test_scaled_sums(fused: bool, make: Callable[..., ir.Value]) -> None:
    graph, b = new_graph()
    w, m, g = (b.input(name, FLOAT32, (1, 6)) for name in "wmg")
    s = b.input("s", FLOAT32, (1, 1))
    graph.outputs.extend([make(b, w, m, g, s), b.op("Mul", m, g)])
    negated = fuse_scaled_sums(graph, sources=2, arrays=1)
    assert ("Gemm" in operators(graph)) == fused
    assert len(graph.inputs) == 4 + len(negated)
    assert len(graph) == (2 if fused else 3)


@pytest.mark.parametrize("single", [True, False])
def test_rows_of_one_matrix(single: bool) -> None:
    """m = 0.9 m + g, w = w - rate sqrt|m|, with g, m, sqrt|m| and w in rows."""
    step = Step()
    b = step.b
    for number, shape in enumerate(SHAPES):
        w, m = step.variable(f"w{number}", shape), step.variable(f"m{number}", shape)
        gradient = tanh_of(b, b.input(f"x{number}", FLOAT32, tuple(shape)))
        new = b.op("Add", b.op("Mul", m, b.constant(np.float32(0.9))), gradient)
        step.update(f"m{number}", new)
        root = b.op("Sqrt", b.op("Abs", new))
        step.update(f"w{number}", b.op("Sub", w, b.op("Mul", root, step.rate)))
    (block,) = step.shared(stacks=True, single=single).blocks
    assert block.size == 4 * 48
    firsts = {name: at for name, at in block.members.items() if name.endswith("0")}
    (gradients,) = {at // 48 for at, _ in block.results.values()}
    assert gradients == firsts["m0"] // 48 + 1
    if single:
        # The factors of w and its step are not constant.
        assert operators(step.graph)[9:] == ["MatMul", "Abs", "Sqrt", "Mul", "Add", "MatMul"]
        # |m| is made where its root will be, in the row after w's.
        assert [at for _, at, _ in block.outputs].count(firsts["w0"] + 48) == 2
        assert {start for _, start, _ in block.pairs} == set(firsts.values())
    else:
        assert operators(step.graph)[9:] == ["Mul", "Add", "Abs", "Sqrt", "Mul", "Sub"]


def test_what_has_no_rows() -> None:
    """Factors that are not constant, a sum of what is state too, of what two averages take in."""
    step = Step()
    for number in (0, 1):
        b, rate = step.b, step.rate
        u, v, w = (step.variable(f"{name}{number}", (4,)) for name in "uvw")
        gradient = tanh_of(b, b.input(f"x{number}", FLOAT32, (4,)))
        step.update(f"u{number}", b.op("Add", b.op("Mul", u, rate), gradient))
        new = b.op("Sub", v, gradient)
        step.update(f"v{number}", new)
        step.update(f"w{number}", b.op("Add", w, new))
    blocks = step.shared(stacks=True, single=True).blocks
    assert operators(step.graph).count("MatMul") == sum(len(block.pairs) for block in blocks) == 1
