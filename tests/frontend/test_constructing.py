"""Arguments that a user mistypes are named, with the class that the user wrote."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot

L = ot.layers


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: L.Dense(3, activaton="relu"),
            r"Dense has no argument 'activaton'; did you mean 'activation'",
        ),
        (lambda: ot.optimizers.Adam(lr=1e-3), "Adam has no argument 'lr'; did you mean 'learn"),
        (lambda: ot.optimizers.SGD(clip_norm=1.0), "SGD has no .* did you mean 'clipnorm'"),
        (lambda: ot.losses.Huber(detla=1.0), "Huber has no argument 'detla'; did you mean 'delta'"),
        (lambda: ot.metrics.Mean(nam="m"), "Mean has no argument 'nam'; did you mean 'name'"),
        (lambda: ot.callbacks.EarlyStopping(patiense=3), "did you mean 'patience'"),
        (lambda: ot.constraints.NonNeg(3), "NonNeg takes no arguments"),
        (
            lambda: L.Conv2D(3),
            r"^Conv2D needs its argument 'kernel_size'\n  at .*test_constructing.py:\d+$",
        ),
        (lambda: L.Conv2D(), r"^Conv2D needs its argument 'filters'\n  at "),
        (lambda: L.Dense(), r"^Dense needs its argument 'units'\n  at "),
        (lambda: L.Embedding(), r"^Embedding needs its argument 'input_dim'\n  at "),
        (lambda: ot.metrics.MeanIoU(), r"^MeanIoU needs its argument 'num_classes'\n  at "),
        (
            lambda: L.Flatten(None, 3),
            r"Flatten takes 1 arguments by position \(data_format\), not 2",
        ),
        (
            lambda: ot.Sequential().fit(epoch=3),
            r"fit\(\) has no argument 'epoch'; did you mean 'ep",
        ),
        (lambda: ot.Sequential().compile(metric=[]), r"compile\(\) has no .* mean 'metrics'"),
        (lambda: ot.optimizers.Adam("0.1"), "learning_rate is a number, not '0.1'"),
    ],
)
def test_the_argument_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.Dense(3.5), "Dense's units is an integer, not 3.5"),
        (lambda: L.Embedding(10, "3"), "Embedding's output_dim is an integer, not '3'"),
        (lambda: L.Conv1D(filters=2.0, kernel_size=1), "Conv1D's filters is an integer, not 2.0"),
    ],
)
def test_a_size_is_an_integer(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_numpy_integers_are_integers() -> None:
    assert L.Dense(np.int64(3))(np.ones((2, 4), "float32")).shape == (2, 3)


class Own(L.Dense):
    def __init__(self, units: float, **kwargs: Any) -> None:
        self.depth = kwargs.pop("depth")
        super().__init__(int(units), **kwargs)


def test_a_class_of_ones_own_takes_what_it_likes() -> None:
    layer = Own(3.5, depth=2)
    assert (layer.units, layer.depth) == (3, 2)
    assert copy.deepcopy(layer).units == 3


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (lambda g, v: ([g, g, g], [v, v, v]), r"write optimizer.apply_gradients\(zip\(gradients"),
        (lambda g, v: [g], r"write optimizer.apply_gradients\(zip\(gradients"),
        (lambda g, v: [(v, g)], "in this order; here the variable comes first"),
        (lambda g, v: [(g, None)], "in this order; not with None"),
    ],
)
def test_gradients_come_in_pairs(pairs: Callable[..., Any], message: str) -> None:
    variable = ot.Variable([1.0, 2.0])
    gradient = ot.ops.ones((2,))
    with pytest.raises(TypeError, match=message):
        ot.optimizers.SGD().apply_gradients(pairs(gradient, variable))


def test_a_mistyped_monitor_warns_once() -> None:
    model = ot.Sequential([L.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x = np.ones((4, 2), "float32")
    with pytest.warns(UserWarning, match="EarlyStopping watches") as caught:
        model.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=[ot.callbacks.EarlyStopping("los")])
    (warning,) = caught
    assert "'los', which is not in the logs; did you mean 'loss'?" in str(warning.message)


SCHEDULE = ot.optimizers.schedules.ExponentialDecay


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (ot.optimizers.SGD(0.1, momentum=0.9, name="s"), "name=s, learning_rate=0.1, momentum=0.9"),
        (
            ot.optimizers.Adam(SCHEDULE(0.1, 5, decay_rate=0.5), name="a"),
            "name=a, learning_rate=<ExponentialDecay initial_learning_rate=0.1, decay_steps=5, "
            "decay_rate=0.5>",
        ),
        (ot.losses.Huber(2.0, name="h"), "name=h, delta=2.0"),
        (ot.metrics.Mean(name="m"), "name=m"),
        (ot.initializers.HeNormal(seed=3), "seed=3"),
        (ot.regularizers.L2(), ""),
        (ot.constraints.MaxNorm(3), "max_value=3"),
        (ot.callbacks.EarlyStopping("loss", patience=2), "monitor=loss, patience=2"),
        (L.Dense(2, name="d"), "name=d, built=False"),
    ],
)
def test_what_objects_look_like(made: Any, text: str) -> None:
    name = type(made).__name__
    assert repr(made) == (f"<{name} {text}>" if text else f"<{name}>")


def test_long_arguments_are_shortened() -> None:
    shown = repr(ot.initializers.Constant(np.eye(100)))
    assert "\n" not in shown
    assert len(shown) < 150


def test_a_configuration_of_something_else_is_no_model() -> None:
    with pytest.raises(
        ValueError, match=r"get_config\(\) of a functional model gave .* not one of 'a'"
    ):
        ot.Model.from_config({"a": 1})

    class Own(ot.Model):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    with pytest.raises(TypeError, match=r"Own has no argument 'nam'; did you mean 'name'\?"):
        Own(3, nam="x")
