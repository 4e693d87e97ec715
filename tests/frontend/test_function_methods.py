"""`ot.function` on methods and callable objects, and functions in functions."""

from __future__ import annotations

import dataclasses
import functools
import gc
import weakref
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.frontend.samples import floats
from tests.frontend.training import Training, batches


class Accumulator:
    def __init__(self, start: float) -> None:
        self.total = ot.Variable(start)

    @ot.function
    def add(self, x: Any, *, times: int = 1) -> Any:
        """Add to the total."""
        self.total.assign_add(ot.ops.sum(x) * times)
        return self.total.value


def test_methods_have_their_instances_state_and_traces() -> None:
    one, two = Accumulator(0.0), Accumulator(100.0)
    assert float(one.add(np.float32([1, 2]))) == 3
    assert float(two.add(np.float32([1, 2]), times=2)) == 106
    assert float(one.add(np.float32([1, 2, 3]))) == 9
    assert (one.add.trace_count, two.add.trace_count) == (2, 1)
    assert one.add.__doc__ == "Add to the total."
    assert one.add.__name__ == "add"


def test_a_method_keeps_its_instance_and_the_class_does_not() -> None:
    add = Accumulator(5.0).add
    gc.collect()
    assert float(add(np.float32([1]))) == 6
    reference = weakref.ref(add._instance)
    del add
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("frozen", [False, True])
def test_methods_of_dataclasses(frozen: bool) -> None:
    """They have no hash, or are equal where they are not the same."""

    @dataclasses.dataclass(frozen=frozen)
    class Scaled:
        factor: float
        seen: list[Any] = dataclasses.field(default_factory=list, compare=False)

        @ot.function
        def scale(self, x: Any) -> Any:
            self.seen.append(1)
            return x * self.factor

    one, two = Scaled(2.0), Scaled(2.0)
    for instance in (one, two, one):
        np.testing.assert_array_equal(instance.scale(floats(2)), floats(2) * 2)
    assert (one.seen, two.seen) == ([1], [1])
    assert len(Scaled.scale._methods) == 2
    del one, two, instance
    gc.collect()
    assert len(Scaled.scale._methods) == 0


def test_callable_objects_and_partials() -> None:
    model = ot.Sequential([ot.Input((3,)), ot.layers.Dense(2)])
    np.testing.assert_allclose(ot.function(model)(floats(4, 3)), model(floats(4, 3)), rtol=1e-5)
    add = ot.function(functools.partial(lambda a, b: a + b, b=2.0))
    np.testing.assert_array_equal(add(floats(3)), floats(3) + 2)


def test_static_and_class_methods_and_super() -> None:
    class Base:
        offset = 3.0

        @staticmethod
        @ot.function
        def static(x: Any) -> Any:
            return x + 1

        @classmethod
        @ot.function
        def of_class(cls, x: Any) -> Any:
            return x + cls.offset

        @ot.function(fallback="error")
        def method(self, x: Any) -> Any:
            return x + 5

    class Derived(Base):
        @ot.function
        def method(self, x: Any) -> Any:
            return super().method(x) * 2

    x = floats(2)
    np.testing.assert_array_equal(Base.static(x), x + 1)
    np.testing.assert_array_equal(Derived().static(x), x + 1)
    np.testing.assert_array_equal(Derived.of_class(x), x + 3)
    np.testing.assert_array_equal(Derived().method(x), (x + 5) * 2)


def test_functions_in_functions_become_one_graph() -> None:
    @ot.function
    def square(x: Any) -> Any:
        return x * x

    @ot.function
    def outer(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            y = square(x)
        return y, tape.gradient(y, x)

    value, gradient = outer(floats(3))
    np.testing.assert_allclose(value, floats(3) ** 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * floats(3), rtol=1e-6)
    assert square.trace_count == 0


def test_an_eager_tape_sees_into_a_compiled_function() -> None:
    weight = ot.Variable(3.0)
    compiled = ot.function(lambda x: x * x * weight)
    x = ot.convert_to_tensor(np.float32(2))
    assert float(compiled(x)) == 12
    with ot.GradientTape() as tape:
        tape.watch(x)
        y = compiled(x)
    assert [float(g) for g in tape.gradient(y, [x, weight])] == [12, 4]


def test_a_compiled_function_in_a_functional_model() -> None:
    double = ot.function(lambda x: x * 2)
    inputs = ot.Input((3,))
    model = ot.Model(inputs, double(inputs))
    np.testing.assert_array_equal(model(floats(2, 3)), floats(2, 3) * 2)


def test_nothing_keeps_a_function_and_its_variables_alive() -> None:
    def make() -> list[Any]:
        training = Training()
        training.run(batches(2, last=3))
        kept = [training, training.step, training.model.variables[0]]
        return [weakref.ref(x) for x in kept]

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
