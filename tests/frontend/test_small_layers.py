"""Merging, activation and arranging layers: what they refuse, and any batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import ShapeError

of = ot.layers


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("make", "inputs", "kind", "text"),
    [
        (lambda: of.Add(name="a"), ones(2, 3), TypeError, "Add 'a' merges a list of tensors"),
        (lambda: of.Add(name="a"), [ones(2, 3)], ValueError, "at least 2 inputs, but got 1"),
        (lambda: of.Subtract(name="s"), [ones(2)] * 3, ValueError, "Subtract 's' needs 2 inputs"),
        (lambda: of.Add(), [ones(2, 3), ones(2, 4)], ShapeError, r"\(2, 3\)(?s:.*)\(2, 4\)"),
        (lambda: of.Concatenate(name="c"), [ones(2, 3), ones(3, 3)], ShapeError,
         r"Concatenate 'c' joins along axis 1.*\(2, 3\) and \(3, 3\)(?s:.*)test_small_layers.py"),
        (lambda: of.Concatenate(5), [ones(2, 3), ones(2, 3)], ShapeError, "axis 5 is out of range"),
        (lambda: of.Dot(1, name="d"), [ones(2, 3), ones(2, 4)], ShapeError,
         r"Dot 'd' sums axis 1 of \(2, 3\) with axis 1 of \(2, 4\), whose sizes differ"),
        (lambda: of.Dot(-2), [ones(2, 3), ones(2, 3)], ShapeError, "axis 0 counts the samples"),
        (lambda: of.Dot(1), ones(2, 3), ValueError, "a list of 2 inputs"),
        (lambda: of.RepeatVector(2, name="r"), ones(2, 3, 4), ShapeError,
         r"RepeatVector 'r' takes \(batch, features\), not \(2, 3, 4\)"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(make: Any, inputs: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        make()(inputs)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: of.Dot(0), "none of them 0, not 0"),
        (lambda: of.Dot((1, 2, 3)), "one axis, or one for each"),
        (lambda: of.Permute((0, 1)), r"counted from 1, not \(0, 1\)"),
        (lambda: of.ReLU(max_value=-1.0), "max_value is not negative, not -1"),
        (lambda: of.ReLU(threshold=-1.0), "threshold are not negative"),
        (lambda: of.LeakyReLU(-0.1), "negative_slope is not negative"),
    ],
)
def test_arguments_that_make_no_sense(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_other_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"RepeatVector's n is an integer, not 2\.5"):
        of.RepeatVector(2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Lambda takes a function, not 3"):
        of.Lambda(3)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"PReLU 'p' needs inputs .*shared_axes"):
        of.PReLU(name="p").build((None, None, 3))


def test_lambda_takes_further_arguments() -> None:
    layer = of.Lambda(lambda x, factor: x * factor, arguments={"factor": 3})
    np.testing.assert_array_equal(layer(ones(2)), [3, 3])


def test_one_trace_serves_every_batch_size() -> None:
    x, y = ot.Input((3, 4)), ot.Input((4, 2))
    merged = of.Flatten()(of.Dot(axes=(2, 1))([x, y]))
    merged = of.Concatenate()([merged, of.PReLU()(of.Flatten()(of.Permute((2, 1))(x)))])
    model = ot.Model([x, y], of.Average()([merged, of.ReLU(1.0)(merged)]))
    step = ot.function(lambda x, y: model([x, y]), fallback="error")
    for size in (4, 2, 7):
        a, b = ones(size, 3, 4), np.full((size, 4, 2), 0.5, np.float32)
        expected = [[1.5] * 6 + [1.0] * 12] * size
        np.testing.assert_allclose(step(a, b), expected)
    assert step.trace_count == 2


@pytest.mark.parametrize(
    ("equation", "shape", "message"),
    [
        ("ab->ac", 3, "EinsumDense's equation is of the form"),
        ("...ab,bc->ac", 3, "EinsumDense's equation is of the form"),
        ("ab,bc->ad", 3, "the output's 'd' is in no operand"),
        ("ab,bcd->ac", 3, "the kernel's 'd' is nowhere else"),
    ],
)
def test_equations_that_are_none(equation: str, shape: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ot.layers.EinsumDense(equation, shape)


def test_equations_that_do_not_fit_the_inputs() -> None:
    with pytest.raises(ValueError, match="the bias's 'b' is not among the outputs'"):
        ot.layers.EinsumDense("ab,bc->ac", 3, bias_axes="b")
    with pytest.raises(ShapeError, match=r"'b' is 4 in the inputs \(2, 4, 3\), and 5"):
        ot.layers.EinsumDense("abc,cd->abd", (5, 6))(np.ones((2, 4, 3), np.float32))
    with pytest.raises(ShapeError, match=r"inputs \(2, 4\) and output_shape \(6,\) do not fit"):
        ot.layers.EinsumDense("abc,cd->abd", 6)(np.ones((2, 4), np.float32))
    with pytest.raises(ShapeError, match="needs inputs whose 'c' is known"):
        ot.layers.EinsumDense("abc,cd->abd", (None, 6)).build((None, 3, None))


def test_wrappers_take_layers() -> None:
    with pytest.raises(ValueError, match="Wrapper takes a layer, not 3"):
        ot.layers.Wrapper(3)
    with pytest.raises(ValueError, match="a layer with a kernel or embeddings, which Flatten"):
        ot.layers.SpectralNormalization(ot.layers.Flatten())(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="one power iteration or more, not 0"):
        ot.layers.SpectralNormalization(ot.layers.Dense(2), 0)
    with pytest.raises(ValueError, match="output_size is a number or 2 of them"):
        ot.layers.AdaptiveMaxPooling2D((1, 2, 3))
    layer = ot.layers.SpectralNormalization(ot.layers.Dense(2))
    layer(np.ones((2, 3), np.float32))
    assert [v.name for v in layer.trainable_weights] == ["kernel", "bias"]
    again = ot.layers.SpectralNormalization.from_config(layer.get_config())
    assert again(np.ones((2, 3), np.float32)).shape == (2, 2)
