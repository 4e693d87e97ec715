"""State that compiled steps keep in blocks: what users hold of it stays as it was."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import onnxtape as ot
from onnxtape import compilation
from onnxtape.compiler.passes import packing
from onnxtape.runtime import session

Array = npt.NDArray[Any]
SHAPES = [(3, 4), (4,), (4, 2), (2,)]
OPTIMIZERS: dict[str, Callable[[], ot.optimizers.Optimizer]] = {
    "SGD": lambda: ot.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: ot.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: ot.optimizers.AdamW(0.01),
    "Adamax": lambda: ot.optimizers.Adamax(0.01),
    "Nadam": lambda: ot.optimizers.Nadam(0.01),
    "RMSprop": lambda: ot.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Adagrad": lambda: ot.optimizers.Adagrad(0.1),
    "Adadelta": lambda: ot.optimizers.Adadelta(1.0),
    "Ftrl": lambda: ot.optimizers.Ftrl(0.1),
    "Lion": lambda: ot.optimizers.Lion(0.01),
    "average": lambda: ot.optimizers.SGD(0.1, use_ema=True),
    "clipped": lambda: ot.optimizers.Adam(0.01, global_clipnorm=0.1),
    "accumulated": lambda: ot.optimizers.Adam(0.01, gradient_accumulation_steps=2),
}


class Network:
    """Two dense layers and their step."""

    def __init__(self, optimizer: ot.optimizers.Optimizer | None = None) -> None:
        rng = np.random.default_rng(0)
        self.weights = [
            ot.Variable(rng.uniform(-1, 1, shape).astype(np.float32), name=f"w{i}")
            for i, shape in enumerate(SHAPES)
        ]
        self.optimizer = optimizer or ot.optimizers.Adam(0.01)
        self.step = self.make_step()

    def make_step(self) -> Any:
        """A new compiled step on the same weights and optimizer."""

        @ot.function(fallback="error")
        def step(x: Any) -> Any:
            first, bias, second, last = self.weights
            with ot.GradientTape() as tape:
                hidden = ot.ops.tanh(ot.ops.matmul(x, first) + bias)
                loss = ot.ops.mean((ot.ops.matmul(hidden, second) + last) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.weights), self.weights)
            return loss

        return step

    @property
    def state(self) -> list[Array]:
        return [v.numpy() for v in (*self.weights, *self.optimizer.variables)]


def batch(number: int, rows: int = 5) -> Array:
    return np.random.default_rng(number).uniform(-1, 1, (rows, 3)).astype(np.float32)


def equal(one: list[Array], other: list[Array]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Network]:
    """Makes a network whose step updates each variable by itself."""

    def make(optimizer: ot.optimizers.Optimizer | None = None) -> Network:
        network = Network(optimizer)
        with monkeypatch.context() as patch:
            patch.setattr(compilation, "packs_updates", lambda traced, providers: False)
            network.step(batch(0))
        return network

    return make


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_bits_as_one_by_one(name: str, unpacked: Callable[..., Network]) -> None:
    packed, apart = Network(OPTIMIZERS[name]()), unpacked(OPTIMIZERS[name]())
    packed.step(batch(0))
    for number in range(1, 6):
        assert float(packed.step(batch(number))) == float(apart.step(batch(number)))
    equal(packed.state, apart.state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_variables_are_in_one_block(name: str) -> None:
    network = Network(OPTIMIZERS[name]())
    network.step(batch(0))
    function = network.step.get_concrete_function(batch(0))
    cells = [len(block.block.cells) for block in function._step._blocks]
    # Accumulated, the gradients of kernels and of biases come out of different operators.
    each = 2 if name == "accumulated" else len(SHAPES)
    # Their averages lie with them if in rows.
    assert max(cells) >= each
    assert max(cells) % each == 0


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_bits_in_shares(
    threads: int, monkeypatch: pytest.MonkeyPatch, unpacked: Callable[..., Network]
) -> None:
    for name in ("PIECE", "SHARED_PIECE", "LEAST_SHARED"):
        monkeypatch.setattr(packing, name, 16)
    monkeypatch.setattr(session, "get_num_threads", lambda: threads)
    packed, apart = Network(), unpacked()
    packed.step(batch(0))
    assert packed.step.get_concrete_function(batch(0))._step._shares is not None
    for number in range(1, 6):
        packed.weights[1].assign(packed.weights[1] * 2)
        apart.weights[1].assign(apart.weights[1] * 2)
        held = packed.weights[0].value
        before = np.array(held)
        assert float(packed.step(batch(number))) == float(apart.step(batch(number)))
        np.testing.assert_array_equal(held, before)
    equal(packed.state, apart.state)


def test_a_snapshot_stays() -> None:
    network = Network()
    network.step(batch(0))
    tensor, view = network.weights[0].value, network.weights[2].value.numpy()
    held = [np.array(tensor), np.array(view)]
    for number in range(3):
        network.step(batch(number))
        equal([np.asarray(tensor), view], held)
    assert not np.array_equal(network.weights[0].numpy(), held[0])


def test_assigning_between_steps(unpacked: Callable[..., Network]) -> None:
    packed, apart = Network(), unpacked()
    packed.step(batch(0))
    for number in range(1, 4):
        for network in (packed, apart):
            network.weights[1].assign(np.full(4, 0.1 * number, np.float32))
            network.weights[3].assign(network.weights[3] * 2)
            network.step(batch(number))
    equal(packed.state, apart.state)


def test_an_old_value_stays_when_another_is_assigned() -> None:
    network = Network()
    network.step(batch(0))
    old = network.weights[1].value
    before = np.array(old)
    network.weights[1].assign(np.zeros(4, np.float32))
    network.step(batch(1))
    np.testing.assert_array_equal(old, before)


def test_two_steps_on_the_same_variables(unpacked: Callable[..., Network]) -> None:
    """They share the blocks; so do the traces of one step for other shapes."""
    packed, apart = Network(), unpacked()
    packed.step(batch(0))
    other = packed.make_step()
    other(batch(1))
    where = [v._tensor._ort.data_ptr() for v in packed.weights]
    for number in range(2, 8):
        (packed.step if number % 2 else other)(batch(number, rows=4 + number % 3))
    assert [v._tensor._ort.data_ptr() for v in packed.weights] == where
    for number in range(1, 8):
        apart.step(batch(number, rows=5 if number < 2 else 4 + number % 3))
    for one, two in zip(packed.state, apart.state, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


def test_variables_outlive_the_step() -> None:
    network = Network()
    network.step(batch(0))
    expected = [v.numpy() for v in network.weights]
    del network.step
    gc.collect()
    [np.full(1 << 16, 7.0, np.float32) for _ in range(64)]
    equal([v.numpy() for v in network.weights], expected)


def test_a_copy_is_apart() -> None:
    network = Network()
    network.step(batch(0))
    copied = copy.deepcopy(network.weights)
    expected = [v.numpy() for v in copied]
    network.step(batch(1))
    equal([v.numpy() for v in copied], expected)


def test_a_step_that_fails_leaves_the_state() -> None:
    table = ot.Variable(np.ones((4, 2), np.float32))
    bias = ot.Variable(np.ones(2, np.float32))
    optimizer = ot.optimizers.SGD(0.1)

    @ot.function(fallback="error")
    def step(places: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(ot.ops.take(table, places, axis=0) * bias)
        optimizer.apply(tape.gradient(loss, [table, bias]), [table, bias])
        return loss

    step(np.int64([0, 1]))
    before = [table.numpy(), bias.numpy()]
    with pytest.raises(ot.errors.ExecutionError):
        step(np.int64([0, 9]))
    equal([table.numpy(), bias.numpy()], before)


@pytest.mark.parametrize(("rows", "threads"), [(4, 1), (300_000, None)])
def test_a_brief_step_has_one_thread(
    rows: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    create = compilation.create_session

    def noted(*args: Any, **options: Any) -> Any:
        opened.append(options)
        return create(*args, **options)

    monkeypatch.setattr(compilation, "create_session", noted)
    Network().step(batch(0, rows))
    assert opened[-1]["threads"] == threads
