"""CompiledStep: state kept in bound buffers, in place or alternating."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxtape.compiler.passes.schedule import schedule_updates
from onnxtape.runtime.errors import ExecutionError
from onnxtape.runtime.session import create_session
from onnxtape.runtime.step import CompiledStep, StateBinding
from onnxtape.runtime.values import copy_from_numpy, from_numpy, to_numpy

Array = NDArray[Any]
FLOAT = TensorProto.FLOAT


class Cell:
    """A state entry's value; `held` says that somebody else has it too."""

    def __init__(self, array: Array) -> None:
        self.value = copy_from_numpy(np.asarray(array))
        self.held = False

    def current(self) -> Any:
        return self.value

    def exclusive(self) -> Any:
        if self.held:
            self.value = copy_from_numpy(to_numpy(self.value))
            self.held = False
        return self.value

    def is_exclusive(self) -> bool:
        return not self.held

    def replace(self, value: Any) -> None:
        self.value = value
        self.held = False

    def numpy(self) -> Array:
        return np.array(to_numpy(self.value))


class Run:
    """The regression of conftest.py as a bound step."""

    def __init__(
        self, regression: Any, *, in_place: bool, cells: dict[str, Cell] | None = None
    ) -> None:
        self.state = {e.input: e.output for e in regression.entries if e.output is not None}
        model = ir.from_proto(onnx.load_from_string(regression.training_model()))
        possible = schedule_updates(model, self.state)
        assert possible == set(self.state)
        self.initial = regression.initial_state()
        self.cells = cells or {name: Cell(array) for name, array in self.initial.items()}
        self.step = CompiledStep(
            create_session(ir.to_proto(model).SerializeToString(), optimize=False, in_order=True),
            [entry.name for entry in regression.inputs],
            [entry.name for entry in regression.outputs],
            [
                StateBinding(self.cells[e.name], e.input, e.output, in_place=in_place)
                for e in regression.entries
            ],
        )

    def __call__(self, **batch: Array) -> dict[str, Array]:
        self.step.rebind()
        held = [batch["x"], batch["y"]]
        loss, prediction = self.step.run([from_numpy(array) for array in held])
        return {"loss": to_numpy(loss), "prediction": to_numpy(prediction)}

    def numpy(self) -> dict[str, Array]:
        return {name: cell.numpy() for name, cell in self.cells.items()}

    def pointers(self) -> dict[str, int]:
        return {name: cell.value.data_ptr() for name, cell in self.cells.items()}


@pytest.mark.parametrize("in_place", [True, False])
def test_it_trains_as_numpy_does(regression: Any, in_place: bool) -> None:
    run, state = Run(regression, in_place=in_place), regression.initial_state()
    assert run.step.in_place_count == (6 if in_place else 0)
    results = []
    for i in range(20):
        batch = regression.batch(8 if i % 3 else 5, seed=i)
        expected, state = regression.oracle(state, **batch)
        results.append((run(**batch), expected))
        for name, array in run.numpy().items():
            assert array.dtype == state[name].dtype
            np.testing.assert_allclose(array, state[name], rtol=1e-4, atol=1e-5)
    for found, expected in results:  # those of earlier steps too are still what they were
        np.testing.assert_allclose(
            found["prediction"], expected["prediction"], rtol=1e-3, atol=1e-4
        )


def test_both_ways_give_the_same_bits(regression: Any) -> None:
    runs = [Run(regression, in_place=in_place) for in_place in (True, False)]
    for i in range(50):
        for run in runs:
            run(**regression.batch(8, seed=i))
    for name, array in runs[0].numpy().items():
        np.testing.assert_array_equal(array, runs[1].numpy()[name])


def test_in_place_state_stays_where_it_is(regression: Any) -> None:
    run = Run(regression, in_place=True)
    where = run.pointers()
    for i in range(50):
        run(**regression.batch(8, seed=i))
    assert run.pointers() == where


def test_alternating_state_uses_two_buffers(regression: Any) -> None:
    run = Run(regression, in_place=False)
    seen: dict[str, set[int]] = {name: set() for name in run.cells}
    for i in range(50):
        run(**regression.batch(8, seed=i))
        for name, address in run.pointers().items():
            seen[name].add(address)
    assert {name: len(found) for name, found in seen.items()} == {
        entry.name: 1 if entry.output is None else 2 for entry in regression.entries
    }


@pytest.mark.parametrize("in_place", [True, False])
def test_held_values_are_left_alone(regression: Any, in_place: bool) -> None:
    run = Run(regression, in_place=in_place)
    held = []
    for i in range(6):
        cell = run.cells["kernel"]
        if i % 2:
            cell.held = True
            held.append((cell.value, cell.numpy()))
        run(**regression.batch(8, seed=i))
    for value, numbers in held:
        np.testing.assert_array_equal(to_numpy(value), numbers)


@pytest.mark.parametrize("in_place", [(True, True), (True, False), (False, False)])
def test_steps_that_share_their_state_take_turns(
    regression: Any, in_place: tuple[bool, bool]
) -> None:
    first = Run(regression, in_place=in_place[0])
    second = Run(regression, in_place=in_place[1], cells=first.cells)
    state = regression.initial_state()
    for i in range(12):
        batch = regression.batch(8, seed=i)
        _, state = regression.oracle(state, **batch)
        (first, second)[i % 2 if i < 8 else 0](**batch)
        if i == 5:  # somebody assigns from outside
            state["learning_rate"] = np.array(0.01, np.float32)
            first.cells["learning_rate"].replace(copy_from_numpy(state["learning_rate"]))
            state["kernel"] = state["kernel"] * 2
            first.cells["kernel"].replace(copy_from_numpy(state["kernel"]))
        for name, array in first.numpy().items():
            np.testing.assert_allclose(array, state[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_step_that_fails_leaves_the_state(regression: Any, in_place: bool) -> None:
    run = Run(regression, in_place=in_place)
    run(**regression.batch(8))
    before = run.numpy()
    good = regression.batch(8)
    with pytest.raises(ExecutionError, match="the step failed: "):
        run(x=good["x"], y=good["y"][:3])
    for name, array in run.numpy().items():
        np.testing.assert_array_equal(array, before[name])
    run(**good)
    assert not np.array_equal(run.numpy()["kernel"], before["kernel"])


# The order ---------------------------------------------------------------------------------------


def backward_after_update(builder: Callable[..., bytes], *, update_first: bool) -> bytes:
    """h = x w, new w = w - x^T h, and the backward pass's h w^T, which needs the old w."""
    node = helper.make_node
    update = [
        node("Gemm", ["x", "h"], ["gradient"], transA=1),
        node("Sub", ["w", "gradient"], ["w_new"]),
    ]
    backward = [node("Gemm", ["h", "w"], ["back"], transB=1)]
    nodes = [*update, *backward] if update_first else [*backward, *update]
    square: list[int | str] = [8, 8]
    return builder(
        [node("MatMul", ["x", "w"], ["h"]), *nodes],
        [("x", FLOAT, ["batch", 8]), ("w", FLOAT, square)],
        [("back", FLOAT, ["batch", 8]), ("w_new", FLOAT, square)],
    )


X = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)
W = np.random.default_rng(1).standard_normal((8, 8), dtype=np.float32)


def run_in_place(model: bytes, **options: Any) -> tuple[Array, Array]:
    """The result and the new weight of one step bound in place."""
    cell = Cell(W)
    state = [StateBinding(cell, "w", "w_new", in_place=True)]
    step = CompiledStep(create_session(model, **options), ["x"], ["back"], state)
    step.rebind()
    (back,) = step.run([from_numpy(X)])
    return to_numpy(back), cell.numpy()


@pytest.mark.parametrize("update_first", [True, False])
def test_a_schedule_makes_in_place_safe_where_other_orders_corrupt(
    model_builder: Callable[..., bytes], update_first: bool
) -> None:
    h = X @ W
    new = W - X.T @ h
    right, corrupted = h @ W.T, h @ new.T
    assert not np.allclose(right, corrupted, rtol=0.1)
    model = backward_after_update(model_builder, update_first=update_first)

    # What happens without one: in the order of the file, and in ONNX Runtime's own, which may be
    # either way.
    back, weight = run_in_place(model, optimize=False, in_order=True)
    np.testing.assert_allclose(weight, new, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(back, corrupted if update_first else right, rtol=1e-4, atol=1e-3)
    back, weight = run_in_place(model, optimize=False, in_order=False)
    np.testing.assert_allclose(weight, new, rtol=1e-4, atol=1e-4)
    assert any(np.allclose(back, seen, rtol=1e-4, atol=1e-3) for seen in (right, corrupted))

    scheduled = ir.from_proto(onnx.load_from_string(model))
    assert schedule_updates(scheduled, {"w": "w_new"}) == {"w"}
    back, weight = run_in_place(
        ir.to_proto(scheduled).SerializeToString(), optimize=False, in_order=True
    )
    np.testing.assert_allclose(weight, new, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(back, right, rtol=1e-4, atol=1e-3)


def test_state_that_lies_elsewhere_is_moved_once(
    regression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cell holds from another device, here marked so, is copied to the session's."""
    run, state = Run(regression, in_place=True), regression.initial_state()
    elsewhere = [cell.value for cell in run.cells.values()]
    monkeypatch.setattr(
        "onnxtape.runtime.step.is_on", lambda value, device: all(value is not v for v in elsewhere)
    )
    copies = []

    def copy(value: Any, device: Any) -> Any:
        copies.append(value)
        return copy_from_numpy(to_numpy(value))

    monkeypatch.setattr("onnxtape.runtime.step.copy", copy)
    for i in range(5):
        batch = regression.batch(8, seed=i)
        _, state = regression.oracle(state, **batch)
        run(**batch)
    assert sorted(map(id, copies)) == sorted(map(id, elsewhere))
    for name, array in run.numpy().items():
        np.testing.assert_allclose(array, state[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_place", [True, False])
def test_state_that_the_session_copies_is_bound_for_each_run(
    regression: Any, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    """Where Python cannot allocate what a session reads, state stays in the host's memory."""
    monkeypatch.setattr(
        "onnxtape.runtime.step.input_devices",
        lambda session: {node.name: None for node in session.get_inputs()},
    )
    run, state = Run(regression, in_place=in_place), regression.initial_state()
    bound: list[str] = []
    watched = Watched(run.step._io, bound)
    monkeypatch.setattr(run.step, "_io", watched)
    run_bound = run.step._run
    monkeypatch.setattr(run.step, "_run", lambda io, options: run_bound(io._io, options))
    for i in range(5):
        batch = regression.batch(8, seed=i)
        _, state = regression.oracle(state, **batch)
        bound.clear()
        run(**batch)
        assert set(bound) >= {entry.input for entry in regression.entries}
        for name, array in run.numpy().items():
            np.testing.assert_allclose(array, state[name], rtol=1e-4, atol=1e-5)


class Watched:
    """A SessionIOBinding that notes which inputs were bound."""

    def __init__(self, io: Any, bound: list[str]) -> None:
        self._io, self._bound = io, bound

    def __getattr__(self, name: str) -> Any:
        return getattr(self._io, name)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self._bound.append(name)
        self._io.bind_ortvalue_input(name, value)
