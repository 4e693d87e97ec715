"""Optimizers as a step uses them; their numbers are compared with Keras's in test_keras.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import optimizers
from onnxtape.errors import GradientError, ShapeError, VariableError
from tests.frontend.op_cases.case import sample

Array = np.ndarray[Any, Any]

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.1),
}


#: 1 - beta_2^t is rounded in float32, as in Keras: at first, that is 1e-5 of Adam's steps.
ATOL = {"sgd": 1e-6, "momentum": 1e-6, "nesterov": 1e-6, "adam": 3e-6}


def variables() -> list[Any]:
    return [
        ot.Variable(sample((3, 2)).astype(np.float32), name="kernel"),
        ot.Variable(sample((2,)).astype(np.float32), name="bias"),
    ]


def gradients(step: int) -> list[Array]:
    return [sample(s, seed=step).astype(np.float32) for s in ((3, 2), (2,))]


def by_hand(name: str, w: Array, steps: int, index: int) -> Array:
    """The formulas of the documentation in float64."""
    w = w.astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step in range(steps):
        g = gradients(step)[index].astype(np.float64)
        if name == "sgd":
            w = w - 0.1 * g
        elif name == "adam":
            t = step + 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        else:
            m = 0.9 * m - 0.1 * g
            w = w + (0.9 * m - 0.1 * g if name == "nesterov" else m)
    return w


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps(name: str, mode: str) -> None:
    optimizer, trained = OPTIMIZERS[name](), variables()
    start = [w.numpy() for w in trained]

    def apply(gradients: Any) -> None:
        optimizer.apply(gradients, trained)

    step = ot.function(apply, fallback="error") if mode == "compiled" else apply
    for count in range(6):
        step(gradients(count))
        for index, w in enumerate(trained):
            expected = by_hand(name, start[index], count + 1, index)
            np.testing.assert_allclose(w.numpy(), expected, rtol=1e-5, atol=ATOL[name])
    assert int(optimizer.iterations) == 6
    if mode == "compiled":
        assert step.trace_count == 1


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_new_learning_rate_counts_at_once_and_compiles_nothing_again(
    name: str, mode: str
) -> None:
    def trained_with(rates: list[float]) -> tuple[Any, Any]:
        optimizer, trained = OPTIMIZERS[name](), variables()

        def apply(gradients: Any) -> None:
            optimizer.apply(gradients, trained)

        step = ot.function(apply, fallback="error") if mode == "compiled" else apply
        for count, rate in enumerate(rates):
            optimizer.learning_rate = rate
            step(gradients(count))
        assert mode == "eager" or step.trace_count == 1
        return trained[0].numpy(), optimizer

    start = variables()[0].numpy()
    still, _ = trained_with([0.0, 0.0])
    np.testing.assert_array_equal(still, start)
    once, optimizer = trained_with([0.0, 0.3])
    thrice, _ = trained_with([0.0, 0.9])
    assert not np.array_equal(once, start)
    np.testing.assert_allclose(thrice - start, 3 * (once - start), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(float(optimizer.learning_rate), 0.3)
    assert optimizer.learning_rate.dtype == "float32"


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_variables_of_other_dtypes(name: str, dtype: str) -> None:
    optimizer = OPTIMIZERS[name]()
    w = ot.Variable(sample((3, 2)).astype(dtype))
    start = w.numpy()
    for count in range(3):
        optimizer.apply([gradients(count)[0].astype(dtype)], [w])
    assert w.dtype == dtype
    # The learning rate itself is float32.
    atol = 1e-2 if dtype == "float16" else 1e-8 if name != "adam" else ATOL[name]
    expected = by_hand(name, start, 3, 0)
    np.testing.assert_allclose(w.numpy().astype(np.float64), expected, rtol=0, atol=atol)


def test_state_and_its_names() -> None:
    optimizer, trained = optimizers.Adam(), variables()
    assert [v.path for v in optimizer.variables] == ["adam/iteration", "adam/learning_rate"]
    optimizer.build(trained)
    assert [v.path for v in optimizer.variables[2:]] == [
        "adam/kernel_momentum",
        "adam/kernel_velocity",
        "adam/bias_momentum",
        "adam/bias_velocity",
    ]
    assert {v.role for v in optimizer.variables} == {"optimizer"}
    assert not any(v.trainable for v in optimizer.variables)
    sgd = optimizers.SGD(name="mine")
    sgd.build(trained)
    assert [v.path for v in sgd.variables] == ["mine/iteration", "mine/learning_rate"]
    assert len(optimizers.SGD(momentum=0.5).variables) == 2


def test_pairs() -> None:
    optimizer, trained = optimizers.SGD(1.0), [ot.Variable([1.0]), ot.Variable([2.0])]
    optimizer.apply_gradients((g, w) for g, w in zip(([0.5], [1.0]), trained, strict=True))
    assert [w.numpy().tolist() for w in trained] == [[0.5], [1.0]]
    # Without variables: those of the first call.
    optimizer.apply([[0.5], [1.0]])
    assert [w.numpy().tolist() for w in trained] == [[0.0], [0.0]]


def test_some_of_the_variables_may_be_trained() -> None:
    for make in OPTIMIZERS.values():
        optimizer, (first, second) = make(), variables()
        optimizer.build([first, second])
        before = first.numpy()
        optimizer.apply([gradients(0)[1]], [second])
        np.testing.assert_array_equal(first.numpy(), before)
        assert not np.array_equal(second.numpy(), variables()[1].numpy())


def test_variables_without_a_gradient_are_left_alone_with_a_warning() -> None:
    optimizer, (first, second) = optimizers.SGD(1.0), variables()
    before = first.numpy()
    with pytest.warns(UserWarning, match=r"no gradient reaches kernel; they are left as") as caught:
        optimizer.apply([None, gradients(0)[1]], [first, second])
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(first.numpy(), before)


def test_refusals() -> None:
    optimizer, trained = optimizers.SGD(name="opt"), variables()
    with pytest.raises(ValueError, match=r"optimizer\.apply needs the variables on its first call"):
        optimizer.apply(gradients(0))
    with pytest.raises(ValueError, match=r"1 gradients were given for 2 variables"):
        optimizer.apply(gradients(0)[:1], trained)
    with pytest.raises(GradientError, match=r"no variable has a gradient \(kernel, bias\)"):
        optimizer.apply([None, None], trained)
    with pytest.raises(VariableError, match=r"'opt' does not know variable 'new': it was"):
        optimizer.apply([[1.0]], [ot.Variable([1.0], name="new")])
    for shape in ((4, 3, 2), (1, 2), ()):
        with pytest.raises(ShapeError, match=r"'kernel' has shape .*, not \(3, 2\)") as refusal:
            optimizer.apply([np.ones(shape, np.float32), gradients(0)[1]], trained)
        assert "test_optimizers.py" in str(refusal.value)
    for value in (True, lambda step: 0.1):
        with pytest.raises(TypeError, match=r"learning_rate is a number, not"):
            optimizers.SGD(value)
        with pytest.raises(TypeError, match=r"learning_rate is a number, not"):
            optimizer.learning_rate = value
    with pytest.raises(ValueError, match=r"momentum lies between 0 and 1, not at 1\.5"):
        optimizers.SGD(momentum=1.5)
    for option, value in (("beta_1", 1.0), ("beta_2", -0.1)):
        with pytest.raises(ValueError, match=rf"Adam's {option} lies in \[0, 1\), not at {value}"):
            optimizers.Adam(**{option: value})
    with pytest.raises(NotImplementedError, match=r"Optimizer has no update_step method"):
        optimizers.Optimizer(0.1).apply(gradients(0), trained)


def test_an_optimizer_of_ones_own() -> None:
    class SignDescent(optimizers.Optimizer):
        def build(self, variables: Any) -> None:
            super().build(variables)
            self.counts = [self.add_variable_from_reference(v, "count", 5.0) for v in variables]

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            self.counts[self.state_index(variable)].assign_add(1.0)
            variable.assign_sub(ot.ops.sign(gradient) * learning_rate)

    optimizer, w = SignDescent(0.5), ot.Variable([1.0, 1.0], name="w")
    assert optimizer.name == "sign_descent"
    step = ot.function(lambda g: optimizer.apply([g], [w]), fallback="error")
    for _ in range(2):
        step(np.array([3.0, -0.1], np.float32))
    assert w.numpy().tolist() == [0.0, 2.0]
    assert optimizer.counts[0].numpy().tolist() == [7.0, 7.0]
    assert optimizer.counts[0].path == "sign_descent/w_count"


def test_two_optimizers_in_one_step() -> None:
    first, second = variables()
    start = [first.numpy(), second.numpy()]
    sgd, adam = optimizers.SGD(0.1), optimizers.Adam(0.1)

    @ot.function(fallback="error")
    def step(g: Any, h: Any) -> None:
        sgd.apply([g], [first])
        adam.apply([h], [second])

    for count in range(3):
        step(*gradients(count))
    np.testing.assert_allclose(first.numpy(), by_hand("sgd", start[0], 3, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        second.numpy(), by_hand("adam", start[1], 3, 1), rtol=1e-5, atol=1e-6
    )


def test_state_is_assigned_in_order() -> None:
    first, second = (ot.optimizers.Adam(0.1, name="adam") for _ in range(2))
    a, b = ot.Variable([1.0, 2.0]), ot.Variable([1.0, 2.0])
    with pytest.raises(ValueError, match="'adam' is not built yet: call"):
        second.set_weights([])
    first.apply([np.array([0.5, -1.0], np.float32)], [a])
    second.build([b])
    second.set_weights([v.numpy() for v in first.variables])
    b.assign(a)
    for optimizer, variable in ((first, a), (second, b)):
        optimizer.apply([np.array([0.2, 0.3], np.float32)], [variable])
    np.testing.assert_array_equal(b.numpy(), a.numpy())
    with pytest.raises(ValueError, match="has 4 variables, but 1 arrays were given"):
        second.set_weights([1])
