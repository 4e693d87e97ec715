"""`memory_budget`: the same numbers in less memory, and the least work that gives it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxtape as ot
from onnxtape import naming
from onnxtape.cli.estimates import estimate
from onnxtape.compiler.errors import Provenance
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes.rematerialize import Rematerialize, _Joint, _rewrite
from onnxtape.compiler.passes.schedule import schedule_updates

X = np.random.default_rng(0).standard_normal((256, 32)).astype(np.float32)


def train(budget: float | None, layers: int = 8) -> tuple[list[float], list[Any], Any]:
    """Losses and weights after three steps of a residual network with dropout; the graph."""
    naming.reset_names()
    ot.set_seed(3)
    dense = [ot.layers.Dense(32, activation="gelu") for _ in range(layers)]
    norms = [ot.layers.LayerNormalization() for _ in range(layers)]
    drop = ot.layers.Dropout(0.2)
    optimizer = ot.optimizers.SGD(0.1)

    def step(x: ot.Tensor) -> ot.Tensor:
        with ot.GradientTape() as tape:
            h = x
            for layer, norm in zip(dense, norms, strict=True):
                h = h + drop(layer(norm(h)), training=True)
            loss = ot.ops.mean(h * h)
        weights = [w for layer in [*dense, *norms] for w in layer.trainable_weights]
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    compiled = ot.function(step, fallback="error", memory_budget=budget)
    losses = [float(compiled(X)) for _ in range(3)]
    weights = [w.numpy() for layer in [*dense, *norms] for w in layer.trainable_weights]
    return losses, weights, compiled.get_concrete_function(X)


@pytest.fixture(scope="module")
def plain() -> tuple[list[float], list[Any], Any]:
    return train(None)


@pytest.mark.parametrize("share", [0.75, 0.5])
def test_less_memory_and_the_same_numbers(share: float, plain: Any) -> None:
    losses, weights, concrete = train(share)
    assert concrete.estimated_peak_bytes <= share * plain[2].estimated_peak_bytes
    # Counted by the other estimate, which gives views memory of their own.
    without, within = (estimate(c.model, {}).peak_bytes for c in (plain[2], concrete))
    assert within < (1 + share) / 2 * without
    np.testing.assert_allclose(losses, plain[0], rtol=1e-5)
    for ours, theirs in zip(weights, plain[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert concrete.in_place_count == plain[2].in_place_count


def test_more_budget_costs_less_work(plain: Any) -> None:
    nodes = [len(train(share)[2].model.graph.node) for share in (0.75, 0.5)]
    assert len(plain[2].model.graph.node) < nodes[0] <= nodes[1]


def test_bytes_and_a_budget_that_is_enough(plain: Any) -> None:
    peak = plain[2].estimated_peak_bytes
    assert len(train(float(peak))[2].model.graph.node) == len(plain[2].model.graph.node)
    assert train(0.6 * peak)[2].estimated_peak_bytes <= 0.6 * peak


def test_what_is_drawn_is_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both passes draw the random numbers, both must draw the same."""

    def everything_again(self: Any, model: ir.Model) -> bool:
        joint = _Joint(model.graph)
        return _rewrite(model, joint, joint.choose(price=1.0, segments=1))

    monkeypatch.setattr(Rematerialize, "run", everything_again)

    def mask(budget: float | None) -> Any:
        naming.reset_names()
        ot.set_seed(5)
        drops = [ot.layers.Dropout(0.5) for _ in range(6)]
        w = ot.Variable(np.ones((64, 64), np.float32))

        def step() -> Any:
            with ot.GradientTape() as tape:
                h = ot.ops.exp(w)
                for drop in drops:
                    h = drop(ot.ops.sin(h) + h, training=True)
                loss = ot.ops.sum(h)
            gradient = tape.gradient(loss, w)
            w.assign_sub(0.1 * gradient)
            return gradient

        compiled = ot.function(step, fallback="error", memory_budget=budget)
        found = [compiled().numpy() for _ in range(2)]
        operators = [n.op_type for n in compiled.get_concrete_function().model.graph.node]
        return found, operators.count("BitShift")

    (first, drawn), (second, drawn_again) = mask(None), mask(0.5)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a == 0, b == 0)
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert drawn_again > drawn


def test_a_budget_that_cannot_be_kept_is_said(plain: Any) -> None:
    with pytest.warns(UserWarning, match=r"budget of 0\.0 MB cannot be kept: .* saves most"):
        losses, _, concrete = train(1000.0)
    assert concrete.estimated_peak_bytes < plain[2].estimated_peak_bytes
    np.testing.assert_allclose(losses, plain[0], rtol=1e-5)


@pytest.mark.parametrize("budget", [0, -1.0, float("nan")])
def test_what_is_no_budget(budget: float) -> None:
    with pytest.raises(ValueError, match="memory_budget is a number of bytes, or a share"):
        ot.function(lambda x: x, memory_budget=budget)


# The choice ---------------------------------------------------------------------------------------


def joint(seed: int) -> _Joint:
    """A small random forward pass, of which a backward pass reads some values."""
    random = np.random.default_rng(seed)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="joint")
    builder = GraphBuilder(graph, opset=21)
    values = [builder.input("x", np.dtype(np.float32), (8, 8))]
    for _ in range(8):
        a, b = (values[i] for i in random.integers(0, len(values), 2))
        op_type = str(random.choice(["Add", "Exp", "MatMul", "Concat"]))
        if op_type == "Exp":
            values.append(builder.op("Exp", a))
        elif op_type == "Concat":
            wide = builder.op("Concat", a, b, axis=1)
            values.append(builder.op("Slice", wide, [0], [8], [1]))
        else:
            values.append(builder.op(op_type, a, b))
    builder.provenance = Provenance(phase="backward")
    read = random.choice(len(values) - 1, 4, replace=False) + 1
    graph.outputs.append(builder.op("Sum", *(values[i] for i in read)))
    return _Joint(graph)


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_is_the_cheapest_of_all_choices(seed: int) -> None:
    graph = joint(seed)
    forward = graph.forward

    def cost(choice: frozenset[int], price: float) -> float:
        read = graph.needed | {s for i in choice for s in graph._sources[i]}
        return graph.seconds(choice) + price * sum(graph._bytes[i] for i in read - choice)

    every = [
        frozenset(chosen)
        for count in range(len(forward) + 1)
        for chosen in itertools.combinations(forward, count)
    ]
    for price in (1e-10, 4e-9, 1e-8, 1e-6):
        best = min(cost(choice, price) for choice in every)
        assert cost(graph.choose(price, 1), price) == pytest.approx(best, rel=1e-3)


def test_what_is_computed_again_waits_until_it_is_needed() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="late")
    builder = GraphBuilder(graph, opset=21)
    x = builder.input("x", np.dtype(np.float32), (4,))
    again = builder.op("Neg", builder.op("Sin", x))
    first = builder.op("Exp", builder.op("Cos", x))
    graph.outputs.append(builder.op("Add", first, again))
    model = ir.Model(graph, ir_version=10)
    schedule_updates(model, {})
    assert [node.op_type for node in graph] == ["Sin", "Neg", "Cos", "Exp", "Add"]
    schedule_updates(model, {}, late=frozenset([again.name or ""]))
    assert [node.op_type for node in graph] == ["Cos", "Exp", "Sin", "Neg", "Add"]
