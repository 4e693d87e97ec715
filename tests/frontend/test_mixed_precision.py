"""Dtype policies, layers in 16 bits over float32 weights, and the scale of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import mixed_precision

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)


@pytest.fixture(autouse=True)
def _full_precision_again() -> Iterator[None]:
    yield
    ot.set_mixed_precision(None)


def classifier() -> Any:
    return ot.Sequential(
        [
            ot.layers.Dense(16, activation="relu"),
            ot.layers.LayerNormalization(),
            ot.layers.BatchNormalization(),
            ot.layers.Dense(3),
        ]
    )


class Training:
    """A step with a scaled loss."""

    def __init__(self, compiled: bool = True, **options: Any) -> None:
        ot.set_seed(0)
        self.model = classifier()
        self.optimizer = ot.optimizers.LossScaleOptimizer(ot.optimizers.Adam(1e-2), **options)
        self.loss_of = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.step = ot.function(self._step, fallback="error") if compiled else self._step

    def _step(self, x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = self.loss_of(y, self.model(x, training=True))
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss

    def trained(self) -> list[np.ndarray]:
        inner = self.optimizer.inner_optimizer
        return [v.numpy() for v in (*self.model.trainable_variables, *inner.variables)]


# Policies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compute", "variable"),
    [
        ("mixed_float16", "float16", "float32"),
        ("mixed_bfloat16", "bfloat16", "float32"),
        ("float32", "float32", "float32"),
        ("float16", "float16", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_policies(name: str, compute: str, variable: str) -> None:
    policy = ot.DTypePolicy(name)
    assert (policy.compute_dtype.name, policy.variable_dtype.name) == (compute, variable)
    assert policy == mixed_precision.get_policy(name) == mixed_precision.Policy(name)
    assert ot.DTypePolicy(**policy.get_config()) == policy
    assert repr(policy) == f'<DTypePolicy "{name}">'
    layer = ot.layers.Dense(2, dtype=name)
    assert (layer.dtype_policy, layer.dtype.name) == (policy, variable)
    assert ot.layers.Dense(2, dtype=policy).compute_dtype == policy.compute_dtype


def test_the_policy_in_use_is_that_of_new_layers() -> None:
    assert ot.dtype_policy().name == "float32"
    ot.set_mixed_precision("float16")
    assert ot.dtype_policy().name == ot.DTypePolicy().name == "mixed_float16"
    layer = ot.layers.Dense(2)
    ot.set_mixed_precision(None)
    assert layer(X).dtype == "float16"
    assert ot.layers.Dense(2)(X).dtype == "float32"
    assert ot.layers.Dense(2, dtype=np.float64)(X).dtype == "float64"
    mixed_precision.set_global_policy("mixed_bfloat16")
    assert ot.dtype_policy() == ot.DTypePolicy("mixed_bfloat16")


def test_what_is_no_policy() -> None:
    with pytest.raises(ValueError, match=r"'float16', 'bfloat16' or None, not 'float8'"):
        ot.set_mixed_precision("float8")  # type: ignore[arg-type]
    for name in ("mixed_float8", "tall"):
        with pytest.raises(ValueError, match=f"no dtype policy is called '{name}'"):
            ot.DTypePolicy(name)


# Layers ------------------------------------------------------------------------------------------


def test_weights_are_read_in_16_bits_inside_the_layer_only() -> None:
    seen = []

    class Own(ot.layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.w = self.add_weight((5,), "ones", name="w")
            self.exact = self.add_weight((5,), "ones", name="exact", autocast=False)
            self.count = self.add_weight((), "zeros", dtype="int32", trainable=False, name="count")
            self.mean = ot.metrics.Mean()

        def call(self, inputs: Any) -> Any:
            seen.extend([inputs.dtype, self.w.value.dtype, self.exact.value.dtype])
            self.count.assign_add(1)
            self.w.assign_add(np.full(5, 1e-4, np.float32))
            self.mean.update_state(1e-6)
            seen.extend([self.count.value.dtype, self.mean.result().dtype])
            return inputs * self.w

    layer = Own(dtype="mixed_float16")
    assert layer(X).dtype == "float16"
    assert [d.name for d in seen] == ["float16", "float16", "float32", "int32", "float32"]
    assert layer.w.value.dtype == "float32"
    # Not rounded to float16, which has nothing between 1 and 1 + 2**-10.
    np.testing.assert_allclose(layer.w.numpy(), np.float32(1) + np.float32(1e-4), rtol=1e-7)


def test_gradients_reach_the_weights_in_float32() -> None:
    layer = ot.layers.Dense(3, dtype="mixed_float16")
    with ot.GradientTape() as tape:
        loss = ot.ops.sum(ot.ops.cast(layer(X), "float32"))
    kernel, bias = tape.gradient(loss, layer.trainable_variables)
    assert kernel.dtype == bias.dtype == "float32"
    half = X.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(kernel.numpy(), half.sum(0)[:, None].repeat(3, 1), rtol=5e-3)


def test_softmax_and_normalization_are_islands_of_float32() -> None:
    """What float16 cannot sum: 70000 entries of one."""
    long = np.ones((1, 70000), np.float16)
    np.testing.assert_allclose(ot.ops.softmax(long).numpy()[0, 0], 1 / 70000, rtol=0.02)
    assert ot.ops.softmax(long).dtype == "float16"
    x = (RNG.standard_normal((4, 64)) * 300 + 20000).astype(np.float16)
    expected = x.astype(np.float64)
    expected = (expected - expected.mean(1, keepdims=True)) / expected.std(1, keepdims=True)
    found = ot.layers.LayerNormalization(dtype="mixed_float16")(x)
    assert found.dtype == "float16"
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)
    loss = ot.losses.MeanSquaredError()(np.zeros(2, np.float16), np.full(2, 300, np.float16))
    assert (loss.dtype, float(loss)) == ("float32", 90000.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_built_in_its_first_step(compiled: bool) -> None:
    ot.set_mixed_precision("float16")
    training = Training(compiled)
    losses = [float(training.step(X, Y)) for _ in range(30)]
    assert losses[-1] < 0.2 < losses[0]
    assert {v.dtype.name for v in training.model.weights} == {"float32"}
    ot.set_mixed_precision(None)
    exact = Training(compiled)
    expected = [float(exact.step(X, Y)) for _ in range(30)]
    np.testing.assert_allclose(losses, expected, rtol=0.03, atol=0.01)


def test_bfloat16_on_the_cpu_is_computed_in_float32() -> None:
    """Eagerly and compiled, where no kernel takes it."""
    ot.set_mixed_precision("bfloat16")
    layer = ot.layers.Dense(3, activation="gelu")

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            made = layer(x)
            loss = ot.ops.mean(made * made)
        return made, tape.gradient(loss, layer.kernel)

    made, gradient = step(X)
    again, compiled = ot.function(step, fallback="error")(X)
    assert made.dtype.name == "bfloat16"
    expected = ot.ops.gelu(X @ layer.kernel.numpy(), approximate=False).numpy()
    np.testing.assert_allclose(made.numpy().astype(np.float32), expected, rtol=0.05, atol=0.05)
    for eager, traced in ((made, again), (gradient, compiled)):
        pair = [t.numpy().astype(np.float32) for t in (traced, eager)]
        np.testing.assert_allclose(*pair, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("compiled", [False, True])
def test_training_in_bfloat16_follows_float32(compiled: bool) -> None:
    def losses() -> list[float]:
        training = Training(compiled)
        return [float(training.step(X, Y)) for _ in range(30)]

    expected = losses()
    ot.set_mixed_precision("bfloat16")
    np.testing.assert_allclose(losses(), expected, rtol=0.05, atol=0.02)


# The scale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_overflows_changes_nothing_but_the_scale(compiled: bool, bad: float) -> None:
    training = Training(compiled, initial_scale=1024.0)
    training.step(X, Y)
    before = training.trained()
    poisoned = X.copy()
    poisoned[3, 2] = bad
    training.step(poisoned, Y)
    for old, new in zip(before, training.trained(), strict=True):
        np.testing.assert_array_equal(old, new)
    optimizer = training.optimizer
    assert (float(optimizer.dynamic_scale), int(optimizer.step_counter)) == (512.0, 0)
    assert int(optimizer.iterations) == 1
    training.step(X, Y)
    assert int(optimizer.iterations) == 2
    assert all(np.isfinite(array).all() for array in training.trained())


def test_the_scale_grows_and_costs_no_new_trace() -> None:
    training = Training(initial_scale=8.0, dynamic_growth_steps=3)
    scales = []
    for _ in range(7):
        training.step(X, Y)
        scales.append(float(training.optimizer.dynamic_scale))
    assert scales == [8, 8, 16, 16, 16, 32, 32]
    assert training.step.trace_count == 1


def test_a_scaled_loss_trains_as_an_unscaled_one() -> None:
    found = []
    for scale in (2.0**10, 1.0):
        training = Training(initial_scale=scale)
        found.append([float(training.step(X, Y)) for _ in range(5)])
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_the_wrapper_shows_what_is_inside() -> None:
    inner = ot.optimizers.SGD(0.5, loss_scale_factor=8.0)
    optimizer = ot.optimizers.LossScaleOptimizer(inner, 4.0, name="scaled")
    assert inner.loss_scale_factor is None
    optimizer.learning_rate = 0.25
    assert float(inner.learning_rate) == 0.25
    assert optimizer.iterations is inner.iterations
    assert float(optimizer.scale_loss(ot.ops.ones(()))) == 4.0
    copy = ot.optimizers.get(ot.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()
    assert mixed_precision.LossScaleOptimizer is ot.optimizers.LossScaleOptimizer


def test_what_the_wrapper_refuses() -> None:
    wrap = ot.optimizers.LossScaleOptimizer
    with pytest.raises(TypeError, match="wraps an optimizer, not str"):
        wrap("adam")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no dynamic=False"):
        wrap(ot.optimizers.SGD(), dynamic=False)
    with pytest.raises(ValueError, match="does not take clipnorm: give it to the inner"):
        wrap(ot.optimizers.SGD(), clipnorm=1.0)
    with pytest.raises(ValueError, match="needs the variables on its first call"):
        wrap(ot.optimizers.SGD()).apply([])


def test_compile_scales_by_itself() -> None:
    def optimizer_of(policy: str, **options: Any) -> Any:
        model = ot.Sequential([ot.Input((5,)), ot.layers.Dense(1)], dtype=policy)
        model.compile("sgd", "mse", **options)
        return model.optimizer

    scaled = ot.optimizers.LossScaleOptimizer
    assert isinstance(optimizer_of("mixed_float16"), scaled)
    assert not isinstance(optimizer_of("mixed_float16", auto_scale_loss=False), scaled)
    assert not isinstance(optimizer_of("mixed_bfloat16"), scaled)
    assert not isinstance(optimizer_of("float32"), scaled)


def test_a_checkpoint_has_the_scale(tmp_path: Path) -> None:
    """Training goes on as if it had not stopped, the steps until the scale grows counted."""

    def training() -> Any:
        ot.set_seed(0)
        layer = ot.layers.Dense(2)
        layer.build((None, 3))
        optimizer = ot.optimizers.LossScaleOptimizer(
            ot.optimizers.Adam(0.1), initial_scale=64.0, dynamic_growth_steps=3
        )
        optimizer.build(layer.trainable_variables)

        @ot.function
        def step() -> ot.Tensor:
            with ot.GradientTape() as tape:
                loss = ot.ops.mean(layer(np.ones((4, 3), np.float32)) ** 2)
                scaled = optimizer.scale_loss(loss)
            weights = layer.trainable_variables
            optimizer.apply(tape.gradient(scaled, weights), weights)
            return loss

        tree = {"weights": layer.weights, "optimizer": optimizer.variables}
        return step, tree, optimizer

    step, tree, optimizer = training()
    for _ in range(2):
        step()
    ot.save_checkpoint(tmp_path / "two", tree)
    expected = [float(step()) for _ in range(3)]
    assert float(optimizer.dynamic_scale.numpy()) == 128.0
    again, tree, optimizer = training()
    ot.restore_checkpoint(tmp_path / "two", tree)
    assert int(optimizer.step_counter.numpy()) == 2
    assert [float(again()) for _ in range(3)] == expected
    assert float(optimizer.dynamic_scale.numpy()) == 128.0


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_an_artifact_trains_on_with_the_scale(policy: Any, tmp_path: Path) -> None:
    """Saved after a step that was skipped, and resumed, it takes the steps of the program."""
    ot.set_mixed_precision(policy)
    training = Training(initial_scale=64.0, dynamic_growth_steps=3)
    poisoned = np.full_like(X, np.inf)
    training.step(X, Y)
    session = ot.TrainingSession(training.step.export(tmp_path / "artifact", X, Y))
    for x in (X, poisoned, X):
        expected = float(training.step(x, Y))
        np.testing.assert_allclose(session.step(x=x, y=Y)["output_0"], expected, rtol=1e-2)
    session.save(tmp_path / "saved")
    resumed = ot.TrainingSession(tmp_path / "artifact")
    resumed.load(tmp_path / "saved")
    for _ in range(3):
        expected = float(training.step(X, Y))
        np.testing.assert_allclose(resumed.step(x=X, y=Y)["output_0"], expected, rtol=1e-2)
    state = resumed.state_dict()
    scale, counter = (
        next(value for name, value in state.items() if name.endswith(variable.name))
        for variable in (training.optimizer.dynamic_scale, training.optimizer.step_counter)
    )
    assert float(scale) == float(training.optimizer.dynamic_scale) == 64.0
    assert int(counter) == int(training.optimizer.step_counter) == 1
