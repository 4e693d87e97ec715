"""`Model.summary`; the text itself is compared with Keras's in test_keras.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.frontend.samples import x32
from tests.frontend.test_models import TwoHeads, two_layers

Dense = ot.layers.Dense


def summary(model: Any) -> str:
    texts: list[str] = []
    model.summary(print_fn=texts.append)
    assert len(texts) == 1
    return texts[0]


def rows(text: str) -> list[list[str]]:
    """The table's cells."""
    lines = [line for line in text.splitlines() if line.startswith(("│", "┃"))]
    return [
        [cell.strip() for cell in line.strip("│┃").split("┃" if "┃" in line else "│")]
        for line in lines
    ]


def test_summary_of_a_functional_model() -> None:
    a, b = ot.Input((3,), name="a"), ot.Input((2,), name="b")
    model = ot.Model([a, b], Dense(1, name="top")(Dense(2, name="left")(a) + b), name="joined")
    assert rows(summary(model)) == [
        ["Layer (type)", "Output Shape", "Param #"],
        ["a (InputLayer)", "(None, 3)", "0"],
        ["left (Dense)", "(None, 2)", "8"],
        ["b (InputLayer)", "(None, 2)", "0"],
        ["top (Dense)", "(None, 1)", "3"],
    ]


def test_summary_of_a_subclassed_model() -> None:
    model = TwoHeads()
    assert rows(summary(model))[1] == ["dense (Dense)", "?", "0 (unbuilt)"]
    model(x32(1, 4))
    text = summary(model)
    # As in Keras: of the call that built it.
    assert rows(text)[1:3] == [
        ["dense (Dense)", "(1, 4)", "20"],
        ["dense_1 (Dense)", "(1, 1)", "5"],
    ]
    assert " Total params: 31 (124.00 B)" in text
    assert " Trainable params: 30 (120.00 B)" in text
    assert " Non-trainable params: 1 (4.00 B)" in text


def test_shapes_in_the_summary_of_a_subclassed_model() -> None:
    class Several(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = ot.layers.LSTM(3, return_state=True, name="recurrent")
            self.unused = Dense(1, name="unused")

        def call(self, x: Any) -> Any:
            return self.recurrent(x)

    model = Several()
    model(np.ones((4, 5, 2), np.float32))
    model(np.ones((1, 6, 2), np.float32))
    texts = [row[1] for row in rows(summary(model))[1:]]
    assert " ".join(texts[:2]) == "((4, 3), (4, 3), (4, 3))"
    assert texts[2] == "?"
    other = Several()
    other.build((None, 5, 2))
    assert rows(summary(other))[1][1].startswith("((None, 3), (None, 3)")


def test_what_the_optimizer_holds_is_in_the_summary_once_it_is_built() -> None:
    model = two_layers()
    model.compile("adam", "mse")
    assert "Optimizer" not in summary(model)
    x = np.ones((2, *model.input_shape[1:]), np.float32)
    model.fit(x, model.predict(x, verbose=0), verbose=0)
    # As in Keras: a mean and a square for each of 21 weights, the count and the rate.
    assert " Optimizer params: 44 (180.00 B)" in summary(model)
    assert " Total params: 65 (264.00 B)" in summary(model)


def test_layers_behind_a_dict_are_in_the_order_of_its_names_as_in_keras() -> None:
    inputs = {name: ot.Input((2,), name=name) for name in ("b", "a")}
    outputs = {name: Dense(1, name=name)(x) for name, x in zip("zy", inputs.values(), strict=True)}
    model = ot.Model(inputs, outputs)
    assert [v.path for v in model.weights] == ["y/kernel", "y/bias", "z/kernel", "z/bias"]
    made = model({name: np.ones((1, 2), np.float32) for name in "ab"})
    assert list(made) == ["z", "y"]


def test_the_state_of_metrics_is_listed_apart() -> None:
    """As in Keras, where `metrics_variables` has them."""

    class Tracked(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.tracker = ot.metrics.Mean(name="own")
            self.dense = Dense(2, name="dense")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Tracked()
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), verbose=0)
    for listed in (model.variables, model.weights, model.trainable_variables):
        assert [v.name for v in listed] == ["kernel", "bias"]
    assert model.non_trainable_variables == []
    assert [v.path for v in model.metrics_variables] == [
        "loss/total",
        "loss/count",
        "mean_absolute_error/total",
        "mean_absolute_error/count",
        "own/total",
        "own/count",
    ]
    assert model.dense.metrics_variables == []


def test_summary_goes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    two_layers().summary()
    printed = capsys.readouterr().out
    assert 'Model: "sequential"' in printed
    assert " Total params: 21 (84.00 B)" in printed


@pytest.mark.parametrize(
    ("count", "text"),
    [(100, "400.00 B"), (256, "1.00 KB"), (2**18, "1.00 MB"), (3 * 2**17, "1.50 MB")],
)
def test_sizes_in_a_summary(count: int, text: str) -> None:
    model = ot.Sequential([ot.Input((1,)), Dense(count, use_bias=False)])
    assert f"Total params: {count:,} ({text})" in summary(model)
