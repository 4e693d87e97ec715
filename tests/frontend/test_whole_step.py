"""A training step with all at once: one run of one session, one trace, and resumed bit for bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import naming
from onnxtape.runtime.eager import EagerExecutor
from onnxtape.runtime.step import CompiledStep

BATCHES = [
    (
        np.random.default_rng(i).normal(size=(8, 6, 5)).astype(np.float32),
        np.random.default_rng(i).integers(0, 3, 8),
    )
    for i in range(12)
]


class Whole:
    """Dropout, noise, batch normalization, a recurrent state, metrics, schedule, clipping, EMA."""

    def __init__(self, seed: int) -> None:
        naming.reset_names()
        ot.set_seed(seed)
        self.model = ot.Sequential(
            [
                ot.Input(batch_shape=(8, 6, 5)),
                ot.layers.Dropout(0.3),
                ot.layers.GaussianNoise(0.1, seed=4),
                ot.layers.GRU(4, return_sequences=True, stateful=True),
                ot.layers.BatchNormalization(),
                ot.layers.LSTM(4, dropout=0.2, recurrent_dropout=0.2, seed=5),
                ot.layers.Dense(3, kernel_regularizer="l2", kernel_constraint="max_norm"),
            ],
            name="whole",
        )
        schedule = ot.optimizers.schedules.CosineDecay(0.0, 20, warmup_target=0.02, warmup_steps=4)
        self.optimizer = ot.optimizers.AdamW(
            schedule, use_ema=True, ema_momentum=0.9, global_clipnorm=0.5
        )
        self.metrics: list[Any] = [
            ot.metrics.Mean(),
            ot.metrics.SparseCategoricalAccuracy(),
            ot.metrics.F1Score(average="macro"),
            ot.metrics.AUC(num_thresholds=20),
        ]
        loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)

        @ot.function(fallback="error")
        def step(x: Any, y: Any) -> Any:
            with ot.GradientTape() as tape:
                logits = self.model(x, training=True)
                loss = loss_fn(y, logits) + sum(self.model.losses)
            weights = self.model.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            mean, accuracy, f1, auc = self.metrics
            mean.update_state(loss)
            accuracy.update_state(y, logits)
            hot = ot.ops.one_hot(y, 3)
            f1.update_state(hot, logits)
            auc.update_state(hot, ot.ops.softmax(logits))
            return loss, {metric.name: metric.result() for metric in self.metrics}

        self.step = step

    @property
    def tree(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "metrics": self.metrics}

    def run(self, batches: Any) -> list[Any]:
        found = []
        for x, y in batches:
            loss, results = self.step(x, y)
            found.append((float(loss), {name: float(value) for name, value in results.items()}))
        return found

    def state(self) -> list[Any]:
        variables = [*self.model.variables, *self.optimizer.variables]
        variables += [v for metric in self.metrics for v in metric.variables]
        return [v.numpy() for v in (*variables, ot.random.global_generator().state)]


def test_a_step_is_one_run_of_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Whole(0)
    whole.run(BATCHES[:2])
    runs: Counter[str] = Counter()
    for cls in (CompiledStep, EagerExecutor):

        def counted(self: Any, *args: Any, run: Any = cls.run, **options: Any) -> Any:
            runs[type(self).__name__] += 1
            return run(self, *args, **options)

        monkeypatch.setattr(cls, "run", counted)
    for x, y in BATCHES[2:]:
        whole.step(x, y)
    assert runs == {"CompiledStep": len(BATCHES) - 2}
    assert whole.step.trace_count == 1
    assert whole.step.fallback_reason is None
    # All of it learns, and the schedule has come down again.
    assert whole.optimizer.iterations.numpy() == len(BATCHES)
    assert 0.0 < float(whole.optimizer.learning_rate) < 0.02


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = Whole(1)
    whole.run(BATCHES[:5])
    ot.save_checkpoint(tmp_path / "checkpoint.safetensors", whole.tree)
    expected, final = whole.run(BATCHES[5:]), whole.state()

    other = Whole(2)
    # What is made on the first call has to be there before it can be restored.
    other.run(BATCHES[:1])
    ot.restore_checkpoint(tmp_path / "checkpoint.safetensors", other.tree)
    assert other.run(BATCHES[5:]) == expected
    assert other.step.trace_count == 1
    for mine, theirs in zip(other.state(), final, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_eager_gives_the_same(tmp_path: Path) -> None:
    compiled = Whole(3).run(BATCHES[:3])
    ot.run_functions_eagerly(True)
    try:
        eager = Whole(3).run(BATCHES[:3])
    finally:
        ot.run_functions_eagerly(False)
    for (loss, results), (other, others) in zip(compiled, eager, strict=True):
        assert loss == pytest.approx(other, rel=1e-5)
        assert results == pytest.approx(others, rel=1e-4)
