"""Masks go from layer to layer, and to losses and metrics, as Keras's do."""

from __future__ import annotations

import numpy as np
import pytest

import onnxtape as ot
from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("masking"))
def test_as_keras(name: str) -> None:
    parity.check("masking", name, rtol=1e-4, atol=1e-5)


def test_a_layer_that_loses_the_mask_says_so() -> None:
    x = ot.layers.Embedding(4, 2, mask_zero=True)(np.asarray([[1, 0]], np.int32))
    with pytest.warns(UserWarning, match=r"layer 'flat' \(Flatten\) got an input with a mask"):
        ot.layers.Flatten(name="flat")(x)


def test_padding_does_not_matter_in_a_compiled_step() -> None:
    model = ot.Sequential(
        [
            ot.Input((None,), dtype="int32"),
            ot.layers.Embedding(9, 4, mask_zero=True),
            ot.layers.Bidirectional(ot.layers.LSTM(3, return_sequences=True)),
            ot.layers.GRU(3),
        ]
    )
    step = ot.function(
        lambda tokens: model(tokens), input_signature=[ot.TensorSpec((None, None), "int32")]
    )
    tokens = np.asarray([[1, 2, 3], [4, 5, 0]], np.int32)
    longer = np.pad(tokens, ((0, 0), (0, 4)))
    np.testing.assert_allclose(step(longer), step(tokens), rtol=1e-5)
    np.testing.assert_allclose(step(tokens), model(tokens), rtol=1e-5)
    alone = model(np.asarray([[4, 5]], np.int32))
    np.testing.assert_allclose(np.asarray(step(tokens))[1:], alone, rtol=1e-5)
    assert step.trace_count == 1


def test_dropout_masks_are_the_same_for_all_steps_of_any_length() -> None:
    layer = ot.layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5, seed=1, return_sequences=True)
    x = np.ones((2, 4, 3), np.float32)
    layer(x)
    state = layer.cell.seed_generator.state
    begin = state.numpy()
    by_steps = ot.function(lambda x: layer(x, training=True))(x)
    state.assign(begin)
    in_scan = ot.function(
        lambda x: layer(x, training=True),
        input_signature=[ot.TensorSpec((None, None, 3), "float32")],
    )(x)
    assert in_scan.shape == by_steps.shape
    # Drawn in another order, so with other numbers; but as many are dropped on average.
    assert np.isfinite(in_scan.numpy()).all()
