"""Masks from layer to layer, to losses and to metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, numpy

TOKENS = np.asarray([[3, 1, 0, 2, 0], [4, 0, 0, 0, 0], [1, 2, 3, 4, 2]], np.int32)
#: Steps of zeros where the tokens are.
STEPS = array((3, 5, 2), 7) * (TOKENS > 0)[..., None].astype(np.float32)


def _embedding(k: Any, features: int = 3, seed: int = 1) -> Any:
    layer = k.layers.Embedding(5, features, mask_zero=True)
    layer.build((None, None))
    fill(layer, seed)
    return layer


def _mask(x: Any) -> Any:
    """The mask that a tensor carries; nothing for none."""
    mask = getattr(x, "_keras_mask", None)
    return np.array([]) if mask is None else numpy(mask)


def _through(make: Callable[[Any], list[Any]], length: int | None = 5) -> Program:
    """Layers on an embedding: what comes out, with its mask, and how a model of them learns."""

    def run(k: Any) -> Arrays:
        inputs = k.Input((length,), dtype="int32")
        x = k.layers.Embedding(5, 3, mask_zero=True)(inputs)
        for layer in make(k):
            x = layer(x)
        model = k.Model(inputs, x)
        fill(model, 2)
        output = model(k.ops.convert_to_tensor(TOKENS))
        found: Arrays = {"output": numpy(output)}
        found["mask"] = _mask(output)
        model.compile(k.optimizers.SGD(0.1), "mse", metrics=["mae"], weighted_metrics=["mse"])
        y = array(found["output"].shape, 9)
        logs = model.fit(TOKENS, y, epochs=3, batch_size=2, shuffle=False, verbose=0).history
        found |= {f"logs/{name}": np.array(v, np.float32) for name, v in logs.items()}
        found |= {f"weight.{i}": numpy(w) for i, w in enumerate(model.weights)}
        return found

    return run


def _masking_layer(k: Any) -> Arrays:
    layer = k.layers.Masking()
    output = layer(k.ops.convert_to_tensor(STEPS))
    gru = k.layers.GRU(2, return_sequences=True)
    gru(output)
    fill(gru, 3)
    return {
        "output": numpy(output),
        "mask": numpy(output._keras_mask),
        "computed": numpy(layer.compute_mask(k.ops.convert_to_tensor(STEPS))),
        "gru": numpy(gru(output)),
    }


def _merged(kind: str, one_masked: bool = False, **options: Any) -> Program:
    """Two masked tensors merged (or one, and one without a mask)."""

    def run(k: Any) -> Arrays:
        first = _embedding(k)(k.ops.convert_to_tensor(TOKENS))
        second: Any = k.ops.convert_to_tensor(array((3, 5, 3), 4))
        if not one_masked:
            second = _embedding(k, seed=5)(k.ops.convert_to_tensor(TOKENS[::-1].copy()))
        output = getattr(k.layers, kind)(**options)([first, second])
        return {"output": numpy(output), "mask": _mask(output)}

    return run


def _attention(k: Any) -> Arrays:
    def masked(seed: int) -> Any:
        # Anew for each call: Keras's MultiHeadAttention takes the masks off its inputs.
        tokens = TOKENS if seed == 1 else TOKENS[:, ::-1].copy()
        return _embedding(k, 4, seed)(k.ops.convert_to_tensor(tokens))

    multi = k.layers.MultiHeadAttention(2, 3)
    multi(masked(1), masked(6))
    fill(multi, 2)
    attended = multi(masked(1), masked(6))
    x = masked(1)
    plain = k.layers.Attention()([masked(1), masked(6)])
    return {
        "multi": numpy(attended),
        "multi_mask": _mask(attended),
        "causal": numpy(multi(x, x, use_causal_mask=True)),
        "attention": numpy(plain),
        "attention_mask": _mask(plain),
    }


def _blocks(k: Any) -> Arrays:
    """Attention that takes masks off, and what comes after it in a functional model."""
    inputs = k.Input((None,), dtype="int32")
    x = k.layers.Embedding(5, 4, mask_zero=True)(inputs)
    for i in range(2):
        attended = k.layers.MultiHeadAttention(2, 2, name=f"attention_{i}")(x, x)
        x = k.layers.LayerNormalization()(k.layers.Add()([x, attended]))
    steps = k.layers.GRU(3, return_sequences=True)(x)
    again = k.layers.MultiHeadAttention(1, 2, name="again")(steps, x)
    heads = [
        k.layers.GlobalAveragePooling1D()(k.layers.Dense(4, activation="tanh")(x)),
        k.layers.LSTM(2)(x),
        k.layers.GlobalAveragePooling1D()(k.layers.Dot(axes=2)([x, x])),
        k.layers.GlobalAveragePooling1D()(again),
    ]
    model = k.Model(inputs, heads)
    fill(model, 2)
    outputs = model(k.ops.convert_to_tensor(TOKENS))
    model.compile(k.optimizers.SGD(0.1), "mse")
    targets = [array(tuple(numpy(y).shape), 9) for y in outputs]
    logs = model.fit(TOKENS, targets, epochs=3, batch_size=2, shuffle=False, verbose=0).history
    found = {f"output.{i}": numpy(y) for i, y in enumerate(outputs)}
    found |= {f"weight.{i}": numpy(w) for i, w in enumerate(model.weights)}
    return found | {"loss": np.array(logs["loss"], np.float32)}


def _losses(k: Any) -> Arrays:
    found: Arrays = {}
    x = _embedding(k)(k.ops.convert_to_tensor(TOKENS))
    y = array((3, 5, 3), 8)
    weights = array((3, 5), 2, 0.0, 1.0)
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight", "none"):
        loss = k.losses.MeanSquaredError(reduction=reduction)
        found[reduction] = numpy(loss(y, x))
        found[f"{reduction}.weighted"] = numpy(loss(y, x, sample_weight=weights))
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)
    found["ignored_class"] = numpy(loss(TOKENS % 3, x))
    for name, metric in (
        ("mean", k.metrics.Mean()),
        ("sum", k.metrics.Sum()),
    ):
        metric.update_state(x)
        metric.update_state(x, sample_weight=weights)
        found[f"metric.{name}"] = numpy(metric.result())
    metric = k.metrics.MeanAbsoluteError()
    metric.update_state(y, x)
    metric.update_state(y, x, sample_weight=weights)
    found["metric.mae"] = numpy(metric.result())
    return found


def _own_layer(k: Any) -> Arrays:
    """Layers that take, make and pass on masks, as in the guide "Understanding masking"."""

    class Halves(k.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return k.ops.split(inputs, 2, axis=1)

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return None if mask is None else k.ops.split(mask, 2, axis=1)

    class Softmax(k.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.supports_masking = True

        def call(self, inputs: Any, mask: Any = None) -> Any:
            kept = k.ops.expand_dims(k.ops.cast(mask, "float32"), -1)
            powers = k.ops.exp(inputs) * kept
            return powers / k.ops.sum(powers, axis=1, keepdims=True)

    x = _embedding(k)(k.ops.convert_to_tensor(TOKENS[:, :4].copy()))
    first, second = Halves()(x)
    soft = Softmax()(x)
    return {
        "first": numpy(first._keras_mask),
        "second": numpy(second._keras_mask),
        "soft": numpy(soft),
        "soft_mask": numpy(soft._keras_mask),
    }


def _stateful(k: Any) -> Arrays:
    model = k.Sequential(
        [
            k.Input(batch_shape=(3, 5, 2)),
            k.layers.LSTM(2, return_sequences=True, stateful=True),
            k.layers.GRU(2, stateful=True),
        ]
    )
    fill(model, 4)
    found: Arrays = {"weights": np.array(len(model.weights))}
    for call in ("first", "second"):
        found[call] = numpy(model(k.ops.convert_to_tensor(STEPS)))
    found["states"] = np.concatenate([numpy(s) for s in model.layers[0].states])
    model.layers[0].reset_state()
    model.layers[1].reset_state()
    found["again"] = numpy(model(k.ops.convert_to_tensor(STEPS)))
    model.compile(k.optimizers.SGD(0.1), "mse")
    options = {"epochs": 3, "batch_size": 3, "shuffle": False, "verbose": 0}
    logs = model.fit(STEPS, array((3, 2), 1), **options).history
    found["losses"] = np.array(logs["loss"], np.float32)
    return found


def _constraints(kind: str) -> Program:
    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, kind)(
            2,
            kernel_constraint=k.constraints.UnitNorm(),
            recurrent_constraint=k.constraints.MaxNorm(0.5),
            bias_constraint=k.constraints.NonNeg(),
            kernel_regularizer="l2",
            # Keras's SimpleRNN takes it, and forgets it.
            activity_regularizer=None if kind == "SimpleRNN" else "l1",
        )
        model = k.Sequential([k.Input((5, 2)), layer])
        fill(model, 4)
        model.compile(k.optimizers.SGD(0.1), "mse")
        logs = model.fit(STEPS, array((3, 2), 1), epochs=3, batch_size=3, verbose=0).history
        found = {f"weight.{i}": numpy(w) for i, w in enumerate(model.weights)}
        return {**found, "losses": np.array(logs["loss"], np.float32)}

    return run


PROGRAMS: dict[str, Program] = {
    "lstm": _through(lambda k: [k.layers.LSTM(2)]),
    "lstm_any_length": _through(lambda k: [k.layers.LSTM(2)], length=None),
    "gru_any_length": _through(
        lambda k: [k.layers.GRU(2, return_sequences=True), k.layers.SimpleRNN(2)], length=None
    ),
    "tagger": _through(
        lambda k: [
            k.layers.Dropout(0.0),
            k.layers.Bidirectional(k.layers.LSTM(2, return_sequences=True)),
            k.layers.Dense(3, activation="tanh"),
        ]
    ),
    "tagger_any_length": _through(
        lambda k: [
            k.layers.Bidirectional(k.layers.GRU(2, return_sequences=True)),
            k.layers.TimeDistributed(k.layers.Dense(3)),
            k.layers.LayerNormalization(),
            k.layers.Activation("relu"),
        ],
        length=None,
    ),
    "pooled": _through(lambda k: [k.layers.GlobalAveragePooling1D(), k.layers.Dense(2)]),
    "masking_layer": _masking_layer,
    "add": _merged("Add"),
    "add_one": _merged("Add", one_masked=True),
    "multiply": _merged("Multiply"),
    "multiply_one": _merged("Multiply", one_masked=True),
    "maximum": _merged("Maximum"),
    "minimum_one": _merged("Minimum", one_masked=True),
    "concatenate": _merged("Concatenate"),
    "concatenate_steps": _merged("Concatenate", axis=1),
    "concatenate_one": _merged("Concatenate", one_masked=True, axis=1),
    "attention": _attention,
    "blocks": _blocks,
    "losses": _losses,
    "own_layer": _own_layer,
    "stateful": _stateful,
    "lstm_constraints": _constraints("LSTM"),
    "gru_constraints": _constraints("GRU"),
    "simple_rnn_constraints": _constraints("SimpleRNN"),
}
