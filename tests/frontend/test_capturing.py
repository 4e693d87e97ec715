"""Steps that are recorded and replayed (CUDA graphs): addresses stay, and numbers are the same.

The CPU provider records nothing, but everything around the recording is the same. `recorder` does
what ONNX Runtime does on CUDA: the first run of a recording is run several times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import capturing
from onnxtape.errors import ExecutionError, FallbackWarning
from onnxtape.runtime.captured import CapturedStep, wants_capture, without_capture

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
CAPTURE = ("cpu", {"enable_cuda_graph": 1})


class Training:
    """A step whose metric and random stream cannot be updated in place without a copy."""

    def __init__(self, providers: Any = None) -> None:
        ot.set_seed(0)
        self.model = ot.Sequential(
            [
                ot.layers.Dense(16, activation="relu"),
                ot.layers.BatchNormalization(),
                ot.layers.Dropout(0.2),
                ot.layers.Dense(3),
            ]
        )
        self.optimizer = ot.optimizers.Adam(1e-2)
        self.mean = ot.metrics.Mean()
        self.step = ot.function(self._step, providers=providers, fallback="error")

    def _step(self, x: Any, y: Any) -> Any:
        loss_of = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
        with ot.GradientTape() as tape:
            loss = loss_of(y, self.model(x, training=True))
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.mean.update_state(loss)
        return {"loss": loss, "mean": self.mean.result()}

    def __call__(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.step(X, Y).items()}

    @property
    def inner(self) -> CapturedStep:
        step: Any = self.step.get_concrete_function()._step
        assert isinstance(step, CapturedStep)
        return step


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the first run of each recording three times; the ids of all runs."""
    runs: list[str] = []
    real = CapturedStep._record

    def record(step: CapturedStep) -> None:
        plain = step._run

        def thrice(io: Any, options: Any) -> None:
            for _ in range(3):
                plain(io, options)
            runs.append(options.get_run_config_entry("gpu_graph_id"))

        step._run = thrice
        try:
            real(step)
        finally:
            step._run = plain

    monkeypatch.setattr(CapturedStep, "_record", record)
    return runs


def test_a_recorded_step_trains_as_any_other(recorder: list[str]) -> None:
    captured, plain = Training(CAPTURE), None
    found = [captured() for _ in range(6)]
    plain = Training()
    assert [plain() for _ in range(6)] == found
    assert captured.inner.in_place_count == len(captured.inner._in_place)
    assert recorder == ["1"]


def test_addresses_stay(recorder: list[str]) -> None:
    training = Training(CAPTURE)
    training()

    def addresses() -> list[int]:
        step = training.inner
        buffers = [*step._input_buffers.values(), *step._result_buffers.values()]
        return [v.data_ptr() for v in (*buffers, *(e.bound for e in step._in_place))]

    before, results = addresses(), [training.step(X, Y) for _ in range(3)]
    assert addresses() == before
    # The results of earlier steps are still what they were.
    assert len({float(result["loss"]) for result in results}) == 3


@pytest.mark.parametrize("held", [False, True])
def test_what_is_assigned_outside_is_seen(recorder: list[str], held: bool) -> None:
    """A value that somebody holds is left to them, and the step recorded again."""
    found: dict[str, list[Any]] = {}
    for providers in (CAPTURE, None):
        training = Training(providers)
        training(), training()
        kernel = training.model.layers[0].kernel
        kept = kernel.value if held else None
        numbers = kernel.numpy()
        training.optimizer.learning_rate = 0.5
        kernel.assign(kernel.numpy() * 2)
        found[str(providers)] = [training() for _ in range(3)]
        if kept is not None:
            np.testing.assert_array_equal(kept.numpy(), numbers)
        if providers:
            assert training.inner.recordings == (2 if held else 1)
    assert found[str(CAPTURE)] == found["None"]


def test_two_recorded_steps_share_their_state(recorder: list[str]) -> None:
    v = ot.Variable(np.ones(3, np.float32))
    add = ot.function(lambda x: v.assign_add(x).value, providers=CAPTURE)
    double = ot.function(lambda: v.assign(v.value * 2.0).value, providers=CAPTURE)
    one = np.ones(3, np.float32)
    for expected in (4, 10, 22):
        add(one)
        np.testing.assert_array_equal(double().numpy(), expected)
    assert recorder == ["1", "1"]


def test_other_sizes_run_without_a_recording() -> None:
    square = ot.function(lambda x: x * x, providers=CAPTURE)
    square(np.ones(3, np.float32))
    assert isinstance(square.get_concrete_function()._step, CapturedStep)
    with pytest.warns(FallbackWarning, match="without a CUDA graph: 'x' has shape"):
        assert square(np.full(4, 3, np.float32)).numpy().tolist() == [9] * 4


def test_an_operator_on_the_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: bytes, providers: Any, **options: Any) -> Any:
        raise ExecutionError("This session cannot use the graph capture feature as requested")

    monkeypatch.setattr(capturing, "create_session", refuse)
    square = ot.function(lambda x: ot.ops.exp(x) * x, providers=CAPTURE)
    with pytest.warns(FallbackWarning, match=r"cannot use the graph.*\(Exp, Mul run on the CPU\)"):
        assert square(np.zeros(2, np.float32)).numpy().tolist() == [0, 0]

    def fail(model: bytes, providers: Any, **options: Any) -> Any:
        raise ExecutionError("out of memory")

    monkeypatch.setattr(capturing, "create_session", fail)
    with pytest.raises(ExecutionError, match="out of memory"):
        ot.function(lambda x: x + x, providers=CAPTURE)(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("given", "wanted"), [("1", True), (1, True), (True, True), ("0", False), (False, False)]
)
def test_the_option(given: Any, wanted: bool) -> None:
    providers = ("cpu", {"enable_cuda_graph": given, "use_arena": 1})
    assert wants_capture(providers) == wanted
    assert without_capture(providers) == [("CPUExecutionProvider", {"use_arena": "1"})]
    assert not wants_capture(None)


@pytest.mark.gpu
def test_a_recorded_step_on_the_gpu() -> None:
    def losses(make: Callable[[], Training]) -> list[float]:
        training = make()
        return [training()["loss"] for _ in range(6)]

    expected = losses(Training)
    found = losses(lambda: Training(("cuda", {"enable_cuda_graph": 1})))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
