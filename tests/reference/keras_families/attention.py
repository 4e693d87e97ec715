"""Attention layers, embeddings, and `ops.dot_product_attention`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, fill, gradients, numpy
from tests.reference.keras_families.common import training as trained

QUERY, VALUE, KEY = array((2, 3, 6), 1), array((2, 4, 5), 2), array((2, 4, 7), 3)
MASK = np.array([[[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]]] * 2, bool)
QUERY_MASK = np.array([[1, 1, 0], [1, 1, 1]], bool)
VALUE_MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)


def _run(k: Any, layer: Any, call: Any, inputs: list[Any]) -> Arrays:
    """Names and numbers of weights, outputs, and gradients of a random projection."""
    tensors = [k.ops.convert_to_tensor(x) for x in inputs]
    call(*tensors)
    fill(layer, 5)
    outputs = call(*tensors)
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    found: Arrays = {f"output.{i}": numpy(output) for i, output in enumerate(outputs)}

    def target() -> Any:
        results = call(*tensors)
        results = list(results) if isinstance(results, (list, tuple)) else [results]
        parts = [k.ops.sum(r * array(r.shape, 50 + i)) for i, r in enumerate(results)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    sources = [*tensors, *layer.trainable_weights]
    for i, gradient in enumerate(gradients(k, target, sources)):
        assert gradient is not None
        found[f"gradient.{i}"] = gradient
    found["weights"] = np.array([str((w.path, tuple(w.shape))) for w in layer.weights])
    return found


def _heads(inputs: list[Any], call: dict[str, Any] | None = None, **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        layer = k.layers.MultiHeadAttention(2, 3, name="heads", **options)
        return _run(k, layer, lambda *x: layer(*x, **(call or {})), inputs)

    return run


def _grouped(inputs: list[Any], call: dict[str, Any] | None = None, **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        layer = k.layers.GroupQueryAttention(3, 4, 2, name="heads", **options)
        return _run(k, layer, lambda *x: layer(*x, **(call or {})), inputs)

    return run


def _one(
    name: str, inputs: list[Any], call: dict[str, Any] | None = None, **options: Any
) -> Program:
    def run(k: Any) -> Arrays:
        layer = getattr(k.layers, name)(name="one", **options)
        return _run(k, layer, lambda *x: layer(list(x), **(call or {})), inputs)

    return run


def _embedding(**options: Any) -> Program:
    places = np.array([[1, 4, 1], [0, 1, 6]])

    def run(k: Any) -> Arrays:
        return trained(k, k.layers.Embedding(7, 3, **options), places)

    return run


def _embedding_given(k: Any) -> Arrays:
    layer = k.layers.Embedding(4, 3, weights=array((4, 3), 4))
    return {
        "floats": numpy(layer(np.array([[0.0, 3.0]], np.float32))),
        "bytes": numpy(layer(np.array([2, 1], np.uint8))),
    }


def _operation(heads: int, key_heads: int, **options: Any) -> Program:
    inputs = [array((2, 3, heads, 4), 1), array((2, 5, key_heads, 4), 2)]
    inputs.append(array((2, 5, key_heads, 3), 3))

    def run(k: Any) -> Arrays:
        tensors = [k.ops.convert_to_tensor(x) for x in inputs]

        def call() -> Any:
            return k.ops.dot_product_attention(*tensors, **options)

        found: Arrays = {"output": numpy(call())}
        weights = array(found["output"].shape, 4)
        for i, g in enumerate(gradients(k, lambda: k.ops.sum(call() * weights), tensors)):
            assert g is not None
            found[f"gradient.{i}"] = g
        return found

    return run


SAME = array((2, 4, 5), 6)
PAIR = [array((2, 3, 5), 7), array((2, 4, 5), 8)]
TRIPLE = [*PAIR, array((2, 4, 5), 9)]
SHOWN = {"return_attention_scores": True}
BIAS = array((1, 2, 3, 5), 10)
KEPT = np.array([[[[1, 0, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]]], bool)

FIELD, OTHER_FIELD = array((2, 3, 4, 6), 11), array((2, 5, 4, 5), 12)
LINES_KEPT = np.array([[[1, 0, 1], [0, 1, 0], [1, 1, 1]]] * 2, bool)
FIELD_KEPT = np.random.default_rng(1).random((2, 2, 3, 4, 3, 4)) > 0.4
ROWS, COLUMNS = {"attention_axes": (1,)}, {"attention_axes": (2,)}

PROGRAMS: dict[str, Program] = {
    "heads": _heads([QUERY, VALUE]),
    "heads_key": _heads([QUERY, VALUE, KEY]),
    "heads_scores": _heads([QUERY, VALUE, KEY], SHOWN),
    "heads_value_dim": _heads([QUERY, VALUE], value_dim=4, use_bias=False),
    "heads_output": _heads([QUERY, VALUE], output_shape=(2, 3)),
    "heads_output_int": _heads([QUERY, VALUE], output_shape=4),
    "heads_causal": _heads([SAME, SAME], {"use_causal_mask": True}),
    "heads_causal_across": _heads([QUERY, VALUE], {"use_causal_mask": True, **SHOWN}),
    "heads_masked": _heads([QUERY, VALUE], {"attention_mask": MASK}),
    "heads_masked_each": _heads([QUERY, VALUE], {"attention_mask": np.stack([MASK, ~MASK], 1)}),
    "heads_masked_causal": _heads(
        [QUERY, VALUE], {"attention_mask": MASK | (np.arange(4) == 0), "use_causal_mask": True}
    ),
    "heads_padded": _heads([QUERY, VALUE], {"value_mask": VALUE_MASK, "key_mask": VALUE_MASK}),
    "heads_window": _heads([SAME, SAME], sliding_window=2),
    "heads_gate": _heads([QUERY, VALUE], use_gate=True),
    "heads_dropout_at_rest": _heads([QUERY, VALUE], {"training": False}, dropout=0.5),
    "heads_field": _heads([FIELD, FIELD], SHOWN),
    "heads_field_across": _heads([FIELD, OTHER_FIELD], attention_axes=(2, 1)),
    "heads_rows": _heads([FIELD, OTHER_FIELD], SHOWN, output_shape=(2, 3), **ROWS),
    "heads_rows_masked": _heads([FIELD, FIELD], {"attention_mask": LINES_KEPT}, **ROWS),
    "heads_columns": _heads([FIELD, FIELD], SHOWN, **COLUMNS),
    "heads_field_masked": _heads([FIELD, FIELD], {"attention_mask": FIELD_KEPT}),
    "grouped": _grouped([QUERY, VALUE]),
    "grouped_scores": _grouped([QUERY, VALUE, KEY], {"attention_mask": MASK, **SHOWN}),
    "grouped_causal": _grouped([SAME, SAME], {"use_causal_mask": True}, use_bias=False),
    "one": _one("Attention", PAIR),
    "one_scaled": _one("Attention", TRIPLE, SHOWN, use_scale=True),
    "one_concat": _one("Attention", TRIPLE, score_mode="concat", use_scale=True),
    "one_causal": _one("Attention", PAIR, {"use_causal_mask": True}),
    "one_masked": _one("Attention", PAIR, {"mask": [QUERY_MASK, VALUE_MASK]}),
    "additive": _one("AdditiveAttention", TRIPLE, SHOWN),
    "additive_plain": _one(
        "AdditiveAttention", PAIR, {"mask": [None, VALUE_MASK]}, use_scale=False
    ),
    "embedding": _embedding(),
    "embedding_given": _embedding_given,
    "operation": _operation(2, 2),
    "operation_grouped": _operation(4, 2, is_causal=True),
    "operation_masked": _operation(2, 2, mask=KEPT, bias=BIAS, scale=0.4),
}
