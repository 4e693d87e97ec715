"""What all optimizers share: accumulation, averages, clipping, decay, copies, checkpoints,
configurations. Their numbers are compared with Keras's in test_optimizers_keras.py."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import naming, optimizers
from onnxtape.errors import VariableError
from onnxtape.optimizers import schedules
from tests.frontend.op_cases.case import sample

SHAPES = {"kernel": (3, 2), "bias": (2,)}

#: Everything that has state of its own, at once.
EVERYTHING: dict[str, Any] = {
    "weight_decay": 0.1,
    "global_clipnorm": 1.0,
    "use_ema": True,
    "ema_momentum": 0.6,
    "ema_overwrite_frequency": 2,
    "gradient_accumulation_steps": 2,
}

ALL = ["SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion", "Ftrl",
       "Adafactor", "Lamb", "Muon", "ScheduleFreeAdamW"]  # fmt: skip


def variables(dtype: str = "float32") -> list[Any]:
    return [ot.Variable(sample(s).astype(dtype), name=name) for name, s in SHAPES.items()]


def gradients(step: int, dtype: str = "float32") -> list[Any]:
    return [sample(s, seed=step).astype(dtype) for s in SHAPES.values()]


def compiled(optimizer: Any, trained: Any) -> Any:
    return ot.function(lambda grads: optimizer.apply(grads, trained), fallback="error")


def values(trained: Any) -> list[Any]:
    return [v.numpy() for v in trained]


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_variables_of_other_dtypes(name: str, dtype: str) -> None:
    """Near the float32 numbers, which are compared with Keras's."""
    options = {"clipnorm": 1.5, "use_ema": True}
    if dtype == "float16" and name != "SGD":
        options["epsilon_1" if name == "Adafactor" else "epsilon"] = 1e-3
        if name in ("Lion", "Ftrl"):
            del options["epsilon"]
    results = []
    for made in ("float32", dtype):
        optimizer = getattr(optimizers, name)(0.1, **options)
        trained = variables(made)
        for count in range(3):
            optimizer.apply(gradients(count, made), trained)
        assert {v.dtype.name for v in trained} == {made}
        results.append(values(trained))
    for low, high in zip(*results, strict=True):
        np.testing.assert_allclose(low, high, rtol=0, atol=5e-3 if dtype == "float16" else 2e-5)


# Accumulation -----------------------------------------------------------------------------------


def test_accumulation_keeps_everything_exactly_until_the_last_call() -> None:
    optimizer = optimizers.Adam(0.1, gradient_accumulation_steps=3, weight_decay=0.5)
    trained = variables()
    step = compiled(optimizer, trained)
    before = values(trained)
    step(gradients(0))
    # An overflow that is not part of the update yet does not touch what is selected against.
    broken = gradients(1)
    broken[0][0, 0] = np.nan
    step(broken)
    assert_equal(values(trained), before)
    assert_equal([v.numpy() for v in optimizer._momenta], [np.zeros_like(w) for w in before])
    assert int(optimizer.iterations) == 0
    step(gradients(2))
    assert np.isnan(trained[0].numpy()).sum() == 1
    assert int(optimizer.iterations) == 1
    assert_equal([v.numpy() for v in optimizer._accumulators], [np.zeros_like(w) for w in before])
    assert step.trace_count == 1


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_accumulation_is_training_on_the_mean(mode: str) -> None:
    trained, expected = variables(), variables()
    accumulating = optimizers.Adam(0.1, gradient_accumulation_steps=2)
    plain = optimizers.Adam(0.1)
    step = compiled(accumulating, trained)
    if mode == "eager":
        step = step.python_function
    for count in range(3):
        one, two = gradients(2 * count), gradients(2 * count + 1)
        step(one)
        step(two)
        plain.apply([(a + b) / 2 for a, b in zip(one, two, strict=True)], expected)
    for found, wanted in zip(trained, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6, atol=1e-7)


def test_a_schedule_counts_calls_while_the_optimizer_counts_updates() -> None:
    rate = schedules.PiecewiseConstantDecay([1, 3], [1.0, 2.0, 4.0])
    optimizer, w = optimizers.SGD(rate, gradient_accumulation_steps=2), ot.Variable([0.0])
    step = compiled(optimizer, [w])
    found = []
    for _ in range(6):
        step([np.ones(1, np.float32)])
        found.append(float(w.value[0]))
    assert found == [0.0, -1.0, -1.0, -3.0, -3.0, -7.0]
    assert int(optimizer.iterations) == 3


def test_state_is_made_once() -> None:
    optimizer, trained = optimizers.Adam(name="opt"), variables()
    optimizer.apply([], [])
    assert not optimizer.built
    assert int(optimizer.iterations) == 0
    optimizer.build(trained)
    with pytest.raises(ValueError, match=r"optimizer 'opt' is built already"):
        optimizer.build(trained)
    assert len(optimizer.variables) == 6


# Averages ---------------------------------------------------------------------------------------


def test_averages_take_their_place_at_the_end() -> None:
    optimizer, w = optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5), ot.Variable([0.0])
    for _ in range(3):
        optimizer.apply([[1.0]], [w])
    assert w.numpy() == [-3.0]
    optimizer.finalize_variable_values([w])
    assert w.numpy() == [0.5 * (0.5 * -1.0 + 0.5 * -2.0) + 0.5 * -3.0]
    # The variable has memory of its own.
    optimizer.apply([[1.0]], [w])
    optimizer.finalize_variable_values([w])
    before = w.numpy()
    optimizers.SGD().finalize_variable_values([w])
    assert w.numpy() == before


# The learning rate ------------------------------------------------------------------------------


def test_a_schedule_may_be_assigned_until_a_step_is_compiled() -> None:
    optimizer, w = optimizers.SGD(1.0), ot.Variable([0.0])
    assert len(optimizer.variables) == 2
    optimizer.apply([[1.0]], [w])
    optimizer.learning_rate = schedules.PiecewiseConstantDecay([1], [10.0, 100.0])
    assert [v.path for v in optimizer.variables] == [f"{optimizer.name}/iteration"]
    assert float(optimizer.learning_rate) == 10.0
    step = compiled(optimizer, [w])
    step([np.ones(1, np.float32)])
    step([np.ones(1, np.float32)])
    assert w.numpy() == [-111.0]
    with pytest.raises(ValueError, match=r"is part of a compiled step already, which would not"):
        optimizer.learning_rate = schedules.ExponentialDecay(0.1, 1, 0.5)
    with pytest.raises(TypeError, match=r"a schedule makes the learning rate .* set to 0\.5"):
        optimizer.learning_rate = 0.5
    number = optimizers.SGD(1.0)
    compiled(number, [w])([np.ones(1, np.float32)])
    with pytest.raises(ValueError, match=r"part of a compiled step already"):
        number.learning_rate = schedules.ExponentialDecay(0.1, 1, 0.5)
    number.learning_rate = 0.25
    assert float(number.learning_rate) == 0.25


def test_the_learning_rate_can_be_a_result_of_a_step() -> None:
    optimizer, w = optimizers.SGD(schedules.ExponentialDecay(1.0, 1, 0.5)), ot.Variable([0.0])

    @ot.function(fallback="error")
    def step() -> Any:
        rate = optimizer.learning_rate
        optimizer.apply([[1.0]], [w])
        return rate

    assert [float(step()) for _ in range(4)] == [1.0, 0.5, 0.25, 0.125]
    assert float(optimizer.learning_rate) == 0.0625
    assert step.trace_count == 1


# Clipping and decay -----------------------------------------------------------------------------


def test_clip_by_global_norm() -> None:
    a, b = np.float32([3.0, 0.0]), np.float32([[4.0]])
    clipped, norm = ot.clip_by_global_norm([a, None, b], 1.0)
    assert clipped[1] is None
    assert float(norm) == 5.0
    np.testing.assert_allclose(clipped[0], a / 5, rtol=1e-6)
    np.testing.assert_allclose(clipped[2], b / 5, rtol=1e-6)
    clipped, norm = ot.clip_by_global_norm([a, b], 7.0)
    np.testing.assert_allclose(clipped[0], a, rtol=1e-6)
    clipped, norm = ot.clip_by_global_norm([a], 1.0, use_norm=6.0)
    np.testing.assert_allclose(clipped[0], a / 6, rtol=1e-6)
    clipped, norm = ot.clip_by_global_norm([a * 0], 1.0)
    np.testing.assert_array_equal(clipped[0], a * 0)
    clipped, norm = ot.clip_by_global_norm([a, np.float32([np.inf])], 1.0)
    assert np.isinf(norm.numpy())
    assert np.isnan(clipped[0].numpy()).all()
    clipped, norm = ot.clip_by_global_norm([a.astype(np.float16), b.astype(np.float64)], 1.0)
    assert [t.dtype.name for t in clipped] == ["float16", "float64"]
    assert norm.dtype == "float64"
    # Squares that overflow in float16.
    clipped, norm = ot.clip_by_global_norm([np.float16([300.0, 400.0])], 5.0)
    assert float(norm) == 500.0
    np.testing.assert_allclose(clipped[0], [3.0, 4.0], rtol=1e-3)
    with pytest.raises(ValueError, match=r"all of them are None"):
        ot.clip_by_global_norm([None], 1.0)


def test_the_gradient_of_clip_by_global_norm() -> None:
    x = ot.Variable([3.0, 4.0])
    with ot.GradientTape() as tape:
        (clipped,), _ = ot.clip_by_global_norm([x * 2.0], 1.0)
        y = clipped[0]
    # The first component of x / |x|.
    np.testing.assert_allclose(tape.gradient(y, x), [16 / 125, -12 / 125], rtol=1e-5)


def test_exclusion_from_weight_decay() -> None:
    optimizer, (kernel, bias) = optimizers.AdamW(0.0), variables()
    optimizer.build([kernel, bias])
    with pytest.raises(ValueError, match=r"call exclude_from_weight_decay before the first step"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer = optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[kernel])
    before = values([kernel, bias])
    optimizer.apply([np.zeros_like(v) for v in before], [kernel, bias])
    assert_equal(values([kernel, bias]), [before[0], before[1] * 0.5])


def test_a_small_decay_is_not_rounded_away() -> None:
    """1 - 1e-8 is 1 in float32, where many small subtractions would go astray together."""
    optimizer, w = optimizers.SGD(1e-4, weight_decay=1e-3), ot.Variable(np.float32([1e-3]))
    optimizer.apply([[0.0]], [w])
    assert w.numpy() < np.float32(1e-3) or w.numpy() == np.float32(1e-3) - np.float32(1e-10)
    optimizer, w = optimizers.SGD(1e-3, weight_decay=4e-3), ot.Variable(np.ones(1, np.float32))
    for _ in range(100):
        optimizer.apply([[0.0]], [w])
    np.testing.assert_allclose(1 - w.numpy(), 4e-4, rtol=5e-2)


def test_the_loss_can_be_scaled() -> None:
    optimizer, w = optimizers.SGD(1.0, loss_scale_factor=1024.0), ot.Variable([2.0])
    with ot.GradientTape() as tape:
        loss = optimizer.scale_loss(w * w)
    assert loss.numpy() == [4096.0]
    optimizer.apply(tape.gradient(loss, [w]), [w])
    assert w.numpy() == [-2.0]
    assert optimizers.SGD().scale_loss(3.0) == 3.0


def test_a_constraint_holds_after_each_update() -> None:
    layer = ot.layers.Dense(2)
    w = layer.add_weight((2, 2), "ones", name="w", constraint="non_neg")
    v = layer.add_weight((2,), "ones", name="v", constraint=lambda x: x * 2.0)
    optimizer = optimizers.SGD(1.0)
    grads = [np.float32([[3.0, 0.5], [-1.0, 1.0]]), np.float32([0.0, 2.0])]
    step = compiled(optimizer, [w, v])
    step(grads)
    np.testing.assert_array_equal(w.numpy(), [[0.0, 0.5], [2.0, 0.0]])
    np.testing.assert_array_equal(v.numpy(), [2.0, -2.0])


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_schedule_free_steps(mode: str) -> None:
    """The paper's formulas in float64. (Keras on TensorFlow takes the new z for the old one.)"""
    beta_1, beta_2, epsilon, rate, decay = 0.7, 0.8, 1e-3, 0.05, 0.1
    optimizer = optimizers.ScheduleFreeAdamW(
        rate, beta_1, beta_2, epsilon, warmup_steps=4, weight_decay=decay
    )
    trained = variables()
    step = compiled(optimizer, trained)
    if mode == "eager":
        step = step.python_function
    w = values(trained)[0].astype(np.float64)
    x, z, v = w, w, np.zeros_like(w)
    for t in range(1, 7):
        g = gradients(t)[0].astype(np.float64)
        # The mean follows from w, which decays.
        w = w - decay * rate * w
        x = (w - (1 - beta_1) * z) / beta_1
        v = beta_2 * v + (1 - beta_2) * g**2
        z = z - rate * min(t / 4, 1) * g / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        x = (1 - 1 / t) * x + z / t
        w = (1 - beta_1) * z + beta_1 * x
        step(gradients(t))
        np.testing.assert_allclose(trained[0].numpy(), w, rtol=1e-5, atol=1e-6)


# Copies and checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
                         ids=["deepcopy", "pickle"])  # fmt: skip
def test_a_copy_trains_its_own_variables(duplicate: Callable[[Any], Any]) -> None:
    trained = variables()
    optimizer = optimizers.Adam(0.1, weight_decay=0.1, use_ema=True)
    optimizer.exclude_from_weight_decay(var_list=[trained[1]])
    optimizer.apply(gradients(0), trained)
    others, other = duplicate((trained, optimizer))
    before = values([*trained, *optimizer.variables])
    other.apply(gradients(1), others)
    other.apply(gradients(2))
    assert_equal(values([*trained, *optimizer.variables]), before)
    optimizer.apply(gradients(1), trained)
    optimizer.apply(gradients(2), trained)
    assert_equal(values([*others, *other.variables]), values([*trained, *optimizer.variables]))
    with pytest.raises(VariableError, match=r"copied together, copy\.deepcopy\(\(model, opt"):
        other.apply(gradients(1), trained)


@pytest.mark.parametrize("name", ["Adam", "Nadam", "Adafactor"])
def test_training_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    def made() -> tuple[Any, Any, Any]:
        naming.reset_names()
        trained = variables()
        optimizer = getattr(optimizers, name)(0.05, **EVERYTHING)
        optimizer.build(trained)
        return trained, optimizer, compiled(optimizer, trained)

    trained, optimizer, step = made()
    for count in range(3):
        step(gradients(count))
    tree = {"model": trained, "optimizer": optimizer}
    ot.save_checkpoint(tmp_path / "file", tree)
    for count in range(3, 7):
        step(gradients(count))
    others, other, other_step = made()
    ot.restore_checkpoint(tmp_path / "file", {"model": others, "optimizer": other})
    for count in range(3, 7):
        other_step(gradients(count))
    assert_equal(values([*others, *other.variables]), values([*trained, *optimizer.variables]))
    assert not np.array_equal(others[0].numpy(), variables()[0].numpy())


def test_an_artifact_trains_alike(tmp_path: Path) -> None:
    trained = variables()
    rate = schedules.CosineDecay(0.1, 10)
    optimizer = optimizers.Adam(rate, name="adam", **EVERYTHING)

    @ot.function(fallback="error")
    def step(g: Any, h: Any) -> Any:
        optimizer.apply([g, h], trained)
        return {"rate": optimizer.learning_rate}

    step(*gradients(0))
    step.export(tmp_path / "artifact")
    session = ot.TrainingSession(tmp_path / "artifact")
    for count in range(1, 5):
        g, h = gradients(count)
        found = session.step(g=g, h=h)
        assert found["rate"] == step(g, h)["rate"].numpy()
    state = session.state_dict()
    for variable in [*trained, *optimizer.variables]:
        np.testing.assert_array_equal(state[variable.path], variable.numpy())


# Configurations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_an_optimizer_can_be_made_again(name: str) -> None:
    made = optimizers.get(name)
    assert type(made) is type(optimizers.get(name.lower())) is getattr(optimizers, name)
    assert made is optimizers.get(made)
    first = type(made)(0.5, clipvalue=2.0, use_ema=True, name="mine")
    again = optimizers.get(optimizers.serialize(first))
    assert type(again) is type(first)
    assert again.get_config() == first.get_config()
    assert again.clipvalue == 2.0
    assert float(again.learning_rate) == 0.5


def test_a_schedule_is_made_again_with_its_optimizer() -> None:
    optimizer = optimizers.AdamW(schedules.CosineDecay(0.1, 10, warmup_target=0.5, warmup_steps=3))
    again = optimizers.AdamW.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert type(again._rate) is schedules.CosineDecay
    assert again._rate.warmup_target == 0.5


def test_names_that_stand_for_nothing() -> None:
    with pytest.raises(ValueError, match=r"no optimizer is called 'adamm'; there are sgd, rmsprop"):
        optimizers.get("adamm")
    with pytest.raises(TypeError, match=r"cannot make an optimizer of 3"):
        optimizers.get(3)
    with pytest.raises(TypeError, match=r"cannot make an optimizer of <function"):
        optimizers.get(lambda: None)
    assert optimizers.get(None) is None
    assert type(optimizers.get(optimizers.Adam)) is optimizers.Adam

    class Forgetful(optimizers.SGD):
        def __init__(self, extra: int = 3, **options: Any) -> None:
            super().__init__(**options)

    with pytest.raises(NotImplementedError, match=r"Forgetful keeps no attribute 'extra'"):
        Forgetful().get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipnorm": 1.0, "clipvalue": 2.0}, r"in one way, not by clipnorm=1\.0 and clipvalue=2"),
        ({"clipnorm": 0.0}, r"clipnorm is positive, not 0\.0; None means no clipping"),
        ({"global_clipnorm": -1.0}, r"global_clipnorm is positive, not -1\.0"),
        ({"ema_momentum": 1.5}, r"ema_momentum lies between 0 and 1, not at 1\.5"),
        ({"ema_overwrite_frequency": 0}, r"ema_overwrite_frequency is a whole number of at least"),
        ({"gradient_accumulation_steps": 1}, r"of at least 2, or None; not 1"),
        ({"gradient_accumulation_steps": 2.0}, r"gradient_accumulation_steps is a whole number"),
        ({"learning_rate": lambda: 0.1}, r"write a subclass with __call__\(self, step\)"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        optimizers.SGD(**options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("AdamW", {"weight_decay": None}, r"AdamW needs a weight_decay"),
        ("RMSprop", {"rho": 1.0}, r"RMSprop's rho lies in \[0, 1\), not at 1\.0"),
        ("Adadelta", {"rho": -0.5}, r"Adadelta's rho lies in \[0, 1\)"),
        ("Adamax", {"beta_1": 1.0}, r"Adamax's beta_1 lies in \[0, 1\)"),
        ("ScheduleFreeAdamW", {"beta_1": 0.0}, r"beta_1 lies in \(0, 1\), not at 0\.0"),
        ("Muon", {"adam_beta_2": 1.0}, r"Muon's adam_beta_2 lies in \[0, 1\)"),
        ("Lion", {"beta_1": 0.0}, r"Lion's beta_1 lies in \(0, 1\], not at 0\.0"),
        ("Ftrl", {"learning_rate_power": 0.5}, r"learning_rate_power is zero or less, not 0\.5"),
        ("Ftrl", {"l1_regularization_strength": -1.0}, r"l1_.*_strength is zero or more, not -1"),
    ],
)
def test_arguments_that_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(optimizers, name)(**options)


def test_lions_sign_is_exact() -> None:
    from onnxtape.optimizers.lion import sign

    for dtype in (np.float16, np.float32, np.float64):
        tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
        x = np.array([0.0, -0.0, tiny, -tiny, 1.0, -3.0, huge, -huge, np.inf, -np.inf], dtype)
        np.testing.assert_array_equal(sign(ot.convert_to_tensor(x)).numpy(), np.sign(x))
        assert np.isnan(sign(ot.convert_to_tensor(np.array([np.nan], dtype))).numpy())
