"""The layers of frontend/layers/recurrent*.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import (
    Arrays,
    Program,
    array,
    fill,
    gradients,
    numpy,
    training,
)

X = (2, 4, 3)
MASK = np.asarray([[True, True, False, True], [False, True, True, False]])


def _layer(kind: str, **options: Any) -> Program:
    """How it learns."""

    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, kind)(2, **options)
        return training(k, layer, array(X, 1), training=False)

    return run


def _states(kind: str, count: int, **options: Any) -> Program:
    """With states given and returned: outputs, and gradients by inputs, states and weights."""

    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, kind)(2, return_state=True, **options)
        x = k.ops.convert_to_tensor(array(X, 1))
        states = [k.ops.convert_to_tensor(array((2, 2), 5 + i)) for i in range(count)]
        return _outputs_and_gradients(k, layer, x, states)

    return run


def _masked(kind: str, **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, kind)(2, return_state=True, **options)
        x = k.ops.convert_to_tensor(array(X, 1))
        return _outputs_and_gradients(k, layer, x, [], mask=k.ops.convert_to_tensor(MASK))

    return run


def _outputs_and_gradients(k: Any, layer: Any, x: Any, states: list[Any], **options: Any) -> Arrays:
    def call() -> Any:
        given = {"initial_state": states} if states else {}
        return layer(x, **given, **options)

    call()
    fill(layer, 3)
    outputs = call()
    found: Arrays = {f"output.{i}": numpy(y) for i, y in enumerate(outputs)}

    def total() -> Any:
        parts = [k.ops.sum(y * array(y.shape, 9 + i)) for i, y in enumerate(call())]
        return sum(parts[1:], parts[0])

    weights = list(layer.trainable_weights)
    for i, gradient in enumerate(gradients(k, total, [x, *states, *weights])):
        assert gradient is not None
        found[f"gradient.{i}"] = gradient
    return found


def _bidirectional(
    kind: str, count: int = 0, merge_mode: Any = "concat", **options: Any
) -> Program:
    def run(k: Any) -> Arrays:
        inner = getattr(k.layers, kind)(2, return_state=bool(count), **options)
        layer = k.layers.Bidirectional(inner, merge_mode=merge_mode)
        if not count:
            return training(k, layer, array(X, 1), training=False)
        x = k.ops.convert_to_tensor(array(X, 1))
        states = [k.ops.convert_to_tensor(array((2, 2), 5 + i)) for i in range(count)]
        return _outputs_and_gradients(k, layer, x, states)

    return run


def _cells(*kinds: str, **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        cells = [getattr(k.layers, kind)(2) for kind in kinds]
        layer = k.layers.RNN(cells if len(cells) > 1 else cells[0], **options)
        return training(k, layer, array(X, 1), training=False)

    return run


def _convolutional(rank: int, **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, f"ConvLSTM{rank}D")(2, 2, **options)
        return training(k, layer, array((2, 3, *(5, 4, 3)[:rank], 2), 1), training=False)

    return run


def _convolutional_states(k: Any) -> Arrays:
    """With a mask, states given and returned, backwards."""
    layer = k.layers.ConvLSTM2D(
        3, (2, 3), padding="same", return_sequences=True, return_state=True, go_backwards=True
    )
    x = k.ops.convert_to_tensor(array((2, 3, 5, 4, 2), 1))
    states = [k.ops.convert_to_tensor(array((2, 5, 4, 3), 5 + i)) for i in range(2)]
    mask = k.ops.convert_to_tensor(np.array([[True, True, False], [False, True, True]]))
    return _outputs_and_gradients(k, layer, x, states, mask=mask)


def _time_distributed(k: Any) -> Arrays:
    return training(k, k.layers.TimeDistributed(k.layers.Dense(2)), array(X, 1))


def _time_distributed_batch(k: Any) -> Arrays:
    """Each step has statistics of its own."""
    inner = k.Sequential([k.Input((3,)), k.layers.Dense(2), k.layers.BatchNormalization()])
    return training(k, k.layers.TimeDistributed(inner), array(X, 1))


PROGRAMS: dict[str, Program] = {
    "simple_rnn": _layer("SimpleRNN"),
    "simple_rnn_relu": _layer("SimpleRNN", activation="relu", return_sequences=True),
    "gru": _layer("GRU", return_sequences=True),
    "gru_reset_before": _layer("GRU", reset_after=False),
    "gru_no_bias": _layer("GRU", use_bias=False),
    "lstm": _layer("LSTM"),
    "lstm_sequences": _layer("LSTM", return_sequences=True),
    "lstm_activations": _layer("LSTM", activation="softsign", recurrent_activation="hard_sigmoid"),
    "lstm_gelu": _layer("LSTM", activation="gelu"),
    "lstm_backwards": _layer("LSTM", go_backwards=True, return_sequences=True),
    "lstm_unrolled": _layer("LSTM", unroll=True, return_sequences=True),
    "simple_rnn_states": _states("SimpleRNN", 1),
    "gru_states": _states("GRU", 1, return_sequences=True, go_backwards=True),
    "lstm_states": _states("LSTM", 2, return_sequences=True),
    "lstm_masked": _masked("LSTM", return_sequences=True),
    "gru_masked": _masked("GRU", go_backwards=True),
    "gru_masked_zeros": _masked("GRU", return_sequences=True, zero_output_for_mask=True),
    "bidirectional_lstm": _bidirectional("LSTM", return_sequences=True),
    "bidirectional_gru_sum": _bidirectional("GRU", merge_mode="sum"),
    "bidirectional_states": _bidirectional("LSTM", 4, return_sequences=True),
    "gru_cell": _cells("GRUCell", return_sequences=True),
    "stacked_cells": _cells("LSTMCell", "SimpleRNNCell", return_sequences=True),
    "conv_lstm_1d": _convolutional(1, padding="same", return_sequences=True),
    "conv_lstm_2d": _convolutional(2, return_sequences=True),
    "conv_lstm_2d_last": _convolutional(2, strides=2, use_bias=False, activation="relu"),
    "conv_lstm_2d_dilated": _convolutional(2, dilation_rate=(2, 1), unit_forget_bias=False),
    "conv_lstm_3d": _convolutional(3, strides=(1, 2, 1), padding="same"),
    "conv_lstm_states": _convolutional_states,
    "time_distributed": _time_distributed,
    "time_distributed_batch": _time_distributed_batch,
}
