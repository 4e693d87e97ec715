"""Adam on tables of which a step reads few rows: the numbers of the dense gradient, without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import onnxtape as ot
from onnxtape.compiler import scattered
from onnxtape.compiler.passes import serial_scatters, update_chains

Array = npt.NDArray[Any]
ROWS, WIDTH = 60, 3
OPTIMIZERS: dict[str, Callable[[], ot.optimizers.Optimizer]] = {
    "Adam": lambda: ot.optimizers.Adam(0.01),
    "amsgrad": lambda: ot.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: ot.optimizers.AdamW(0.01),
    "Nadam": lambda: ot.optimizers.Nadam(0.01),
    "Lamb": lambda: ot.optimizers.Lamb(0.01),
    "without averages": lambda: ot.optimizers.Adam(0.01, beta_1=0.0),
    "clipped": lambda: ot.optimizers.Adam(0.01, clipnorm=0.1),
}
#: With a row that is there three times, one counted from the end, and one that is both.
BATCHES = [np.int64(x) for x in ([[3, 7], [3, 3]], [[-1, 5], [59, 7]], [[0, 1], [2, 4]])]


@pytest.fixture(autouse=True)
def small_tables_count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scattered, "LARGE", 1)
    monkeypatch.setattr(update_chains, "LARGE", 64)


class Bags:
    """A table, a column, and the step that trains both."""

    def __init__(self, optimizer: ot.optimizers.Optimizer, rows: int = ROWS) -> None:
        rng = np.random.default_rng(0)
        uniform = rng.uniform(-1, 1, (rows, WIDTH)).astype(np.float32)
        self.table = ot.Variable(uniform, name="table")
        self.column = ot.Variable(np.ones((WIDTH, 1), np.float32), name="column")
        self.optimizer = optimizer
        variables = [self.table, self.column]

        def step(places: Any) -> Any:
            with ot.GradientTape() as tape:
                bags = ot.ops.mean(ot.ops.take(self.table, places, axis=0), axis=1)
                loss = ot.ops.mean((ot.ops.matmul(bags, self.column) - 1.0) ** 2)
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

        self.eager = step
        self.compiled = ot.function(step, fallback="error")

    @property
    def state(self) -> dict[str, Array]:
        return {v.name: v.numpy() for v in (self.table, self.column, *self.optimizer.variables)}


def operators(step: Any, places: Array) -> list[str]:
    return [node.op_type for node in step.get_concrete_function(places).model.graph.node]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_numbers_of_dense_gradients(name: str) -> None:
    """Eagerly the gradient is dense."""
    compiled, eager = Bags(OPTIMIZERS[name]()), Bags(OPTIMIZERS[name]())
    for places in BATCHES * 3:
        one, other = compiled.compiled(places)["loss"], eager.eager(places)["loss"]
        np.testing.assert_allclose(float(one), float(other), rtol=1e-5)
    for (key, mine), theirs in zip(compiled.state.items(), eager.state.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7, err_msg=key)


def test_rows_that_no_step_has_read_keep_moving() -> None:
    bags = Bags(ot.optimizers.Adam(0.01))
    bags.compiled(BATCHES[0])
    before = bags.table.numpy()
    bags.compiled(BATCHES[1])
    moved = np.flatnonzero(np.any(bags.table.numpy() != before, axis=1))
    np.testing.assert_array_equal(moved, [3, 5, 7, 59])


def test_the_gradient_is_never_there() -> None:
    bags = Bags(ot.optimizers.Adam(0.01))
    model = bags.compiled.get_concrete_function(BATCHES[0]).model
    filled = [node for node in model.graph.node if node.op_type == "ScatterND"]
    # The two averages; the sums of equal rows are made in a Loop.
    assert len(filled) == 2
    averages = {e.input_name for e in bags.compiled.get_concrete_function(BATCHES[0]).state}
    assert sum(node.input[0] in averages for node in filled) == 2


def test_the_averages_are_scattered_into_in_place() -> None:
    bags = Bags(ot.optimizers.Adam(0.01))
    bags.compiled(BATCHES[0])
    function = bags.compiled.get_concrete_function(BATCHES[0])
    assigned = [entry for entry in function.state if entry.output_name is not None]
    assert function.in_place_count == len(assigned)


def test_equal_rows_add_up_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are so many that ONNX Runtime would divide them among threads."""
    whole = Bags(ot.optimizers.Adam(0.01))
    monkeypatch.setattr(serial_scatters, "SERIAL", WIDTH)
    pieces = Bags(ot.optimizers.Adam(0.01))
    for bags in (whole, pieces):
        monkeypatch.setattr(serial_scatters, "SERIAL", WIDTH if bags is pieces else 1 << 20)
        for places in BATCHES:
            bags.compiled(places)
    for (key, mine), theirs in zip(pieces.state.items(), whole.state.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("signature", [None, [ot.TensorSpec((None,), "int64")]])
def test_equal_rows_add_up_on_two_threads(signature: Any) -> None:
    """5,000 times the same row, where ONNX Runtime's ScatterND would lose some."""
    table = ot.Variable(np.zeros((4, 64), np.float32))

    @ot.function(input_signature=signature, fallback="error")
    def gradient(places: Any) -> Any:
        with ot.GradientTape() as tape:
            total = ot.ops.sum(ot.ops.take(table, places, axis=0))
        return tape.gradient(total, table)

    for _ in range(5):
        made = gradient(np.full(5000, 2))
        np.testing.assert_array_equal(made, np.full((4, 64), [[0], [0], [5000], [0]]))


def test_equal_rows_add_up_in_a_branch() -> None:
    @ot.function(fallback="error")
    def sums(wanted: Any, x: Any, ids: Any) -> Any:
        nothing = ot.ops.zeros((4, 64))
        return ot.cond(wanted, lambda: ot.ops.segment_sum(x, ids, 4), lambda: nothing)

    x, ids = np.ones((5000, 64), np.float32), np.full(5000, 3)
    for _ in range(5):
        np.testing.assert_array_equal(sums(np.array(True), x, ids)[3], np.full(64, 5000))


@pytest.mark.parametrize("rows", [ROWS, 8])
def test_many_rows_are_a_dense_gradient(rows: int) -> None:
    bags = Bags(ot.optimizers.Adam(0.01), rows)
    places = np.int64([[3, 7], [3, 3]])
    assert operators(bags.compiled, places).count("ScatterND") == (2 if rows == ROWS else 1)


def test_a_clipped_gradient_is_dense() -> None:
    bags = Bags(ot.optimizers.Adam(0.01, clipnorm=1.0))
    assert operators(bags.compiled, BATCHES[0]).count("ScatterND") == 1


def test_a_step_that_fails_leaves_the_state() -> None:
    bags = Bags(ot.optimizers.Adam(0.01))
    bags.compiled(BATCHES[0])
    before = bags.state
    with pytest.raises(ot.errors.ExecutionError):
        bags.compiled(np.int64([[0, 1], [2, ROWS]]))
    for name, value in bags.state.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_an_artifact_trains_alike(tmp_path: Path) -> None:
    bags = Bags(ot.optimizers.Adam(0.01))
    bags.compiled(BATCHES[0])
    session = ot.TrainingSession(bags.compiled.export(tmp_path / "artifact"))
    for places in BATCHES * 2:
        mine, theirs = bags.compiled(places), session.step(places=places)
        np.testing.assert_allclose(theirs["loss"], float(mine["loss"]), rtol=1e-5)
