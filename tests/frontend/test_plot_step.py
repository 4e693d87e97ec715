"""Pictures of compiled steps, and the layout of graphs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.drawing.layout import isotonic, place
from onnxtape.drawing.step_groups import GroupKey, StepGroups

X = np.random.default_rng(0).normal(size=(6, 4)).astype("f")
Y = np.array([0, 1, 0, 1, 1, 0])


def trained(**options: Any) -> Any:
    layers = [
        ot.Input((4,)),
        ot.layers.Dense(3, "relu", name="one"),
        ot.layers.Dense(2, name="two"),
    ]
    model = ot.Sequential(layers, name="net")
    loss = ot.losses.SparseCategoricalCrossentropy(from_logits=True, name="error")
    model.compile(ot.optimizers.Adam(0.1, name="adam"), loss, **options)
    model.fit(X, Y, verbose=0)
    return model


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [str(e.text) for e in root.iter() if e.tag.endswith("text")]


def test_a_step_in_three_phases_by_layer() -> None:
    model = trained()
    concrete = model.train_function.function.get_concrete_function()
    groups = StepGroups(concrete, None)
    for layer in ("net/one", "net/two"):
        for phase in ("forward", "backward", "update"):
            assert GroupKey(phase, layer) in groups.items  # type: ignore[arg-type]
    update = groups.items[GroupKey("update", "net/two")]
    assert sorted(update.writes) == [
        "bias", "kernel", "momentum", "momentum", "velocity", "velocity",
    ]  # fmt: skip
    assert "iteration" in groups.items[GroupKey("update", "adam")].writes
    assert "kernel" in groups.items[GroupKey("forward", "net/one")].reads
    # Every node is in one group, and the gradients of kernel and bias go to the update.
    assert sum(len(g.operators) for g in groups.items.values()) == len(
        list(concrete.traced.model.graph)
    )
    assert groups.edges[GroupKey("backward", "net/two"), GroupKey("update", "net/two")] == 2
    assert groups.edges[GroupKey("forward", "net/one"), GroupKey("forward", "net/two")] == 1
    assert groups.rows.index("net/one") < groups.rows.index("net/two") < groups.rows.index("error")


def test_the_picture_of_a_step(tmp_path: Path) -> None:
    model = trained()
    path = tmp_path / "step.svg"
    svg = ot.plot_step(model.train_function, path)
    assert path.read_text(encoding="utf-8") == svg == svg._repr_svg_()
    shown = texts(svg)
    assert shown.count("net/one") == 3
    assert {"batch", "results", "loss", "x (6, 4) float32"} <= set(shown)
    counts = [int(m[1]) for t in shown if (m := re.match(r"\w+: (\d+) operators", t))]
    graph = model.train_function.function.get_concrete_function().traced.model.graph
    assert sum(counts) == len(list(graph))
    coarse = texts(ot.plot_step(model.train_function, None, depth=1))
    assert coarse.count("net") == 3
    assert "net/one" not in coarse


def test_a_step_of_ones_own() -> None:
    v = ot.Variable([1.0, 2.0], name="v")

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(v.value * x)
        v.assign_sub(0.1 * tape.gradient(loss, v))
        return {"loss": loss}

    with pytest.raises(ValueError, match="has not been called yet"):
        ot.plot_step(step, None)
    step(X[0, :2])
    shown = texts(ot.plot_step(step, None))
    assert "outside of layers" in shown
    assert any(t.startswith("reads v") for t in shown)
    assert ot.plot_step(step.get_concrete_function(), None) == ot.plot_step(step, None)


def test_mistakes() -> None:
    with pytest.raises(TypeError, match=r"plot_step draws an ot\.function .* not Sequential"):
        ot.plot_step(ot.Sequential([]), None)
    with pytest.raises(ValueError, match="depth is at least 1"):
        ot.plot_step(None, None, depth=0)
    model = trained()
    with pytest.raises(ValueError, match=r"call the file 'step\.svg', not 'step\.png'"):
        ot.plot_step(model.train_function, "step.png")
    with pytest.raises(TypeError, match="plot_model draws models"):
        ot.plot_model(model.layers[0], None)
    with pytest.raises(ValueError, match="rankdir is 'TB' or 'LR'"):
        ot.plot_model(model, None, rankdir="up")  # type: ignore[arg-type]


def test_isotonic_regression_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, weights = rng.normal(size=5), rng.uniform(0.5, 2, 5)
        found = np.array(isotonic(list(values), list(weights)))
        assert (np.diff(found) >= -1e-12).all()
        cost = (weights * (found - values) ** 2).sum()
        tries = np.sort(found + rng.normal(0, 0.3, (500, 5)), axis=1)
        assert cost <= (weights * (tries - values) ** 2).sum(axis=1).min() + 1e-12


def test_boxes_do_not_overlap_and_edges_go_down() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        count = 30
        sizes = {i: tuple(rng.uniform(20, 150, 2)) for i in range(count)}
        edges = [(int(rng.integers(j)), j) for j in range(1, count) for _ in range(2)]
        edges = list(dict.fromkeys(edges))
        layout = place(sizes, edges)  # type: ignore[arg-type]
        for a in range(count):
            (ax, ay), (aw, ah) = layout.centres[a], sizes[a]
            assert aw / 2 - 1e-6 <= ax <= layout.width - aw / 2 + 1e-6
            for b in range(a):
                (bx, by), (bw, bh) = layout.centres[b], sizes[b]
                apart = abs(ax - bx) >= (aw + bw) / 2 or abs(ay - by) >= (ah + bh) / 2
                assert apart, (a, b)
        for source, target in edges:
            assert layout.centres[source][1] < layout.centres[target][1]


def test_two_crossing_edges_are_put_straight() -> None:
    sizes = dict.fromkeys(range(4), (40.0, 20.0))
    centres = place(sizes, [(0, 3), (1, 2)]).centres
    assert (centres[0][0] < centres[1][0]) == (centres[3][0] < centres[2][0])


def test_updates_belong_to_their_layers_also_where_the_step_reads_new_weights() -> None:
    model = ot.Sequential([ot.Input((4,)), ot.layers.Dense(2, name="one")], name="net")
    optimizer = ot.optimizers.Adam(0.1, name="adam")

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(ot.ops.square(model(x)))
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return ot.ops.mean(model(x))

    step(X)
    groups = StepGroups(step.get_concrete_function(), None)
    update = groups.items[GroupKey("update", "net/one")]
    assert sorted(update.writes) == [
        "bias", "kernel", "momentum", "momentum", "velocity", "velocity",
    ]  # fmt: skip
    assert groups.items[GroupKey("update", "adam")].writes == ["iteration"]
    # The new weights flow back to the first column, around the boxes of the second.
    assert groups.edges[GroupKey("update", "net/one"), GroupKey("forward", "net/one")] == 2
    svg = ot.plot_step(step, None)
    assert "net/one" in texts(str(svg))
