"""Every gradient rule against central differences in float64, static and symbolic.

The table is in `cases/`. Each case runs in several variants of the same graph:

- static: every dimension a number;
- shared: every dimension above 1 a symbol, equal sizes the same symbol;
- distinct: every dimension a symbol of its own, so that nothing tells what broadcasts;
- dynamic: static, but axes, indices, sizes and the like come at run time;
- dynamic-distinct: both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder, differentiable_operators, differentiate
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.verify import verify
from tests.compiler.cases import CASES, Case
from tests.compiler.graphs import (
    Array,
    Evaluator,
    check_shapes,
    input_like,
    model_of,
    new_graph,
)

VARIANTS = ("static", "shared", "distinct", "dynamic", "dynamic-distinct")


@dataclass
class Built:
    """A case as a graph, with one cotangent input per differentiable output."""

    graph: ir.Graph
    builder: GraphBuilder
    inputs: list[ir.Value | None]
    sources: list[ir.Value]
    targets: list[ir.Value]
    cotangents: list[ir.Value]
    feeds: dict[str, Array]


def variants(case: Case) -> list[str]:
    return [v for v in VARIANTS if "dynamic" not in v or (case.has_constants and case.dynamic)]


def build(case: Case, variant: str) -> Built:
    graph, b = new_graph(case.opset)
    inputs: list[ir.Value | None] = []
    feeds: dict[str, Array] = {}

    def dims(name: str, array: Array) -> Shape:
        if "distinct" in variant:
            return tuple(f"{name}_{axis}" for axis in range(array.ndim))
        if variant == "shared":
            return tuple(f"n{d}" if d > 1 else d for d in array.shape)
        return array.shape

    for i, x in enumerate(case.inputs):
        if x is None:
            inputs.append(None)
            continue
        array = case.array(i)
        if case.is_constant(i) and "dynamic" not in variant:
            inputs.append(b.constant(array))
            continue
        # Shape, axis and index vectors have a length that is known even where their content is not.
        shape = array.shape if case.is_constant(i) else dims(f"x{i}", array)
        inputs.append(b.input(f"x{i}", array.dtype, shape))
        feeds[f"x{i}"] = array
    outputs = b.op_multi(case.op, *inputs, outputs=case.outputs, **case.attributes)
    targets = [o for o in outputs if is_floating(b.dtype(o))]
    values = Evaluator(graph, targets).all_values(feeds)
    cotangents = []
    for k, target in enumerate(targets):
        actual = values[target.name or ""]
        rng = np.random.default_rng(k)
        cotangents.append(input_like(b, f"g{k}", target, actual.shape))
        # The reference evaluator's LSTM computes in float64 whatever it is given.
        feeds[f"g{k}"] = random_like(rng, actual).astype(b.dtype(target))
    sources = [x for i, x in enumerate(inputs) if x is not None and case.is_source(i)]
    return Built(graph, b, inputs, sources, targets, cotangents, feeds)


def central_differences(
    function: Callable[[dict[str, Array]], float], feeds: dict[str, Array], name: str, step: float
) -> Array:
    result = np.zeros_like(feeds[name])
    for place in np.ndindex(result.shape):
        ends = []
        for sign in (1, -1):
            moved = feeds[name].copy()
            moved[place] += sign * step
            ends.append(function({**feeds, name: moved}))
        result[place] = (ends[0] - ends[1]) / (2 * step)
    return result


def random_like(rng: np.random.Generator, array: Array) -> Array:
    return np.asarray(rng.uniform(-1, 1, array.shape), array.dtype)


def project(outputs: Sequence[Array], cotangents: Sequence[Array]) -> float:
    return sum(float(np.sum(o * g)) for o, g in zip(outputs, cotangents, strict=True))


@functools.cache
def expected(index: int) -> list[Array]:
    """The central differences of a case, the same for all its variants."""
    case = CASES[index]
    built = build(case, "static")
    evaluator = Evaluator(built.graph, built.targets)
    seeds = [built.feeds[f"g{k}"] for k in range(len(built.targets))]

    def function(feeds: dict[str, Array]) -> float:
        return project(evaluator(feeds), seeds)

    return [
        central_differences(function, built.feeds, source.name or "", case.step)
        for source in built.sources
    ]


def gradients(built: Built, case: Case) -> list[ir.Value]:
    found = differentiate(built.graph, built.targets, built.sources, built.cotangents)
    for source, gradient in zip(built.sources, found, strict=True):
        assert gradient is not None, f"no gradient for {source.name}"
    return [g for g in found if g is not None]


def parametrized(smooth: bool, wanted: Sequence[str] = VARIANTS) -> list[Any]:
    return [
        pytest.param(i, variant, id=f"{case.id}-{variant}")
        for i, case in enumerate(CASES)
        for variant in variants(case)
        if variant in wanted and (case.smooth or not smooth)
    ]


def test_every_registered_operator_has_a_case() -> None:
    elsewhere = {"If", "Loop", "Scan"}  # test_control_flow.py
    assert sorted({case.op for case in CASES} | elsewhere) == list(differentiable_operators())


def test_cases_are_told_apart_by_their_names() -> None:
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("index", "variant"), parametrized(smooth=False))
def test_first_derivative(index: int, variant: str) -> None:
    case = CASES[index]
    built = build(case, variant)
    found = gradients(built, case)
    verify(model_of(built.graph))
    evaluator = Evaluator(built.graph, found)
    values = evaluator.all_values(built.feeds)
    check_shapes(built.graph, values)
    for gradient, source, numeric in zip(found, built.sources, expected(index), strict=True):
        analytic = values[gradient.name or ""]
        assert analytic.shape == built.feeds[source.name or ""].shape
        assert analytic.dtype == built.feeds[source.name or ""].dtype
        np.testing.assert_allclose(
            analytic, numeric, rtol=case.tolerance, atol=case.tolerance, err_msg=f"by {source.name}"
        )


@pytest.mark.parametrize(
    ("index", "variant"), parametrized(smooth=True, wanted=("static", "distinct"))
)
def test_second_derivative(index: int, variant: str) -> None:
    """Along random directions, by the inputs and by the cotangents of the first derivative."""
    case = CASES[index]
    built = build(case, variant)
    first = gradients(built, case)
    rng = np.random.default_rng(7)
    evaluate_first = Evaluator(built.graph, first)
    weights = [random_like(rng, g) for g in evaluate_first(built.feeds)]
    seeds = []
    for k, (gradient, weight) in enumerate(zip(first, weights, strict=True)):
        seeds.append(input_like(built.builder, f"w{k}", gradient, weight.shape))
        built.feeds[f"w{k}"] = weight
    cotangents = [v for v in built.graph.inputs if (v.name or "").startswith("g")]
    points = [*built.sources, *cotangents]
    second = differentiate(built.graph, first, points, seeds)
    verify(model_of(built.graph))
    evaluator = Evaluator(built.graph, [g for g in second if g is not None] or first)
    values = evaluator.all_values(built.feeds)
    check_shapes(built.graph, values)

    for _ in range(2):
        directions = {p.name or "": random_like(rng, built.feeds[p.name or ""]) for p in points}
        ends = []
        for sign in (1, -1):
            moved = {k: built.feeds[k] + d * (sign * case.step) for k, d in directions.items()}
            ends.append(project(evaluate_first({**built.feeds, **moved}), weights))
        numeric = (ends[0] - ends[1]) / (2 * case.step)
        analytic = sum(
            float(np.sum(values[g.name or ""] * directions[p.name or ""]))
            for p, g in zip(points, second, strict=True)
            if g is not None
        )
        scale = max(1.0, sum(float(np.abs(w).sum()) for w in weights))
        assert analytic == pytest.approx(numeric, rel=case.tolerance, abs=case.tolerance * scale)
