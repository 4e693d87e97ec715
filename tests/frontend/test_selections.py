"""`where` and `sign` in compiled steps: the same, by other operators than in what is exported."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxtape as ot
from onnxtape import compilation, ops
from onnxtape.runtime.bit_casts import has_bit_cast

needs_bit_casts = pytest.mark.skipif(
    not has_bit_cast(), reason="needs an ONNX Runtime with BitCast"
)

SHAPE = (64, 130)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    """The graphs that sessions run, but for their order."""
    models: list[ir.Model] = []
    tidy = compilation._tidy

    def noted(optimized: ir.Model, *args: Any) -> None:
        tidy(optimized, *args)
        models.append(optimized)

    monkeypatch.setattr(compilation, "_tidy", noted)
    return models


def step_with_state(f: Any) -> Any:
    """A compiled step that counts, so that its graph is put in order."""
    count = ot.Variable(0.0)

    @ot.function(fallback="error")
    def step(*args: Any) -> Any:
        count.assign_add(1.0)
        return f(*args)

    return step


def special_numbers(seed: int) -> Any:
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**32, SHAPE, dtype=np.uint32).view(np.float32)
    bits[0, :8] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3.4e38, -3.4e38]
    return bits


@needs_bit_casts
@pytest.mark.parametrize("kind", ["both", "zero after", "zero before", "minus zero", "broadcast"])
def test_the_bits_are_those_of_one_or_the_other(kind: str, run: list[ir.Model]) -> None:
    x, y = special_numbers(0), special_numbers(1)[:, ::-1].copy()
    condition = np.random.default_rng(2).random(SHAPE) < 0.5
    choose: Any = {
        "both": lambda c, x, y: (c, x, y),
        "zero after": lambda c, x, y: (c, x, 0.0),
        "zero before": lambda c, x, y: (c, 0.0, y),
        "minus zero": lambda c, x, y: (c, np.float32(-0.0), y),
        "broadcast": lambda c, x, y: (c[:, :1], x, y[:1]),
    }[kind]
    step = step_with_state(lambda *args: ops.where(*choose(*args)))
    found = step(condition, x, y).numpy()
    c, a, b = choose(condition, x, y)
    expected = np.where(c, np.float32(a), np.float32(b))
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
    used = Counter(node.op_type for node in run[-1].graph)
    assert not used["Where"]
    assert used["BitCast"]
    exported = step.get_concrete_function(condition, x, y).model
    assert {node.op_type for node in exported.graph.node} >= {"Where"}
    assert exported.opset_import[0].version < 26


@needs_bit_casts
def test_the_gradient_does_not_meet_what_was_not_chosen(run: list[ir.Model]) -> None:
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    w = ot.Variable(x)

    @ot.function(fallback="error")
    def step() -> tuple[ot.Tensor, ot.Tensor]:
        with ot.GradientTape() as tape:
            # 1 / 0 in what is not chosen, whose gradient is NaN there.
            inner = ops.where(w > 0, w, 0.0)
            loss = ops.sum(ops.where(w > 0, 1.0 / inner, 0.0))
        gradient = tape.gradient(loss, w)
        w.assign_sub(1e-6 * gradient)
        return loss, gradient

    loss, gradient = step()
    assert not any(node.op_type == "Where" for node in run[-1].graph)
    positive = x[x > 0]
    np.testing.assert_allclose(float(loss), np.sum(1 / positive), rtol=1e-5)
    expected = np.zeros(SHAPE, np.float32)
    expected[x > 0] = -1 / positive**2
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5)


def test_signs(run: list[ir.Model]) -> None:
    x = special_numbers(0)
    # Numbers below this are zeros while a step runs.
    x[np.abs(x) < np.finfo(np.float32).tiny] = 0
    step = step_with_state(ops.sign)
    np.testing.assert_array_equal(step(x).numpy(), np.sign(x))
    used = Counter(node.op_type for node in run[-1].graph)
    assert (used["Sign"], used["Mul"], used["Clip"]) == (0, 1, 1)
    assert "Sign" in {node.op_type for node in step.get_concrete_function(x).model.graph.node}


def test_signs_in_an_update(run: list[ir.Model]) -> None:
    """Lion's step is a sign: its chain of nodes is packed as before."""
    w = ot.Variable(np.ones(300_000, np.float32))
    optimizer = ot.optimizers.Lion(0.1)
    gradient = np.random.default_rng(0).normal(size=300_000).astype(np.float32)

    @ot.function(fallback="error")
    def step(g: Any) -> None:
        optimizer.apply([g * 2.0], [w])

    step(gradient)
    np.testing.assert_allclose(w.numpy(), 1 - 0.1 * np.sign(gradient), rtol=1e-6)
    assert not any(node.op_type == "Sign" for node in run[-1].graph)
    assert step.get_concrete_function(gradient).in_place_count >= 2
